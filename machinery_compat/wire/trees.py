"""Walks over a signature and those nested in it as callbacks. Chains may be long, so nothing recurses along one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from machinery_compat.wire.message import Signature

__all__ = ["children", "copy_tree", "count_chained", "count_objects", "is_plain", "tree_of"]


def children(signature: Signature) -> Iterator[Signature]:
    """Yield the signatures that stand directly in one."""
    for callbacks in (signature.on_success, signature.on_error):
        for callback in callbacks or ():
            if callback is not None:
                yield callback
    if signature.chord_callback is not None:
        yield signature.chord_callback


def tree_of(signature: Signature) -> list[Signature]:
    """List a signature and all that are nested in it, each once, parents first."""
    found = [signature]
    if not signature.on_success and not signature.on_error and signature.chord_callback is None:
        return found
    seen = {id(signature)}  # one callback may stand in several places, or by mistake in itself
    for item in found:
        for child in children(item):
            if id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


def count_chained(signature: Signature) -> int:
    """Count the objects of a chain as `count_objects` does, quicker; it stops at headers and leaves branches out."""
    count = 0
    current: Signature | None = signature
    while current is not None:
        args, headers, following = current.args, current.headers, current.on_success
        count += 1 if args is None else 1 + len(args)
        if headers is not None:
            if headers:
                return 0
            count += 1
        if not following:
            break
        current = following[0]
    return count


def count_objects(signature: Signature) -> tuple[int, bool]:
    """Count the objects in a decoded signature's text without those in Values and headers; tell if any has headers."""
    count = 0
    headed = False
    branches: list[Signature] = []
    current: Signature | None = signature
    while True:
        while current is not None:
            args, headers, following = current.args, current.headers, current.on_success
            count += 1 if args is None else 1 + len(args)
            if headers is not None:
                count += 1
                if headers:
                    headed = True
            if current.on_error or current.chord_callback is not None or (following and len(following) > 1):
                branches.extend(children(current))
                break
            current = following[0] if following else None
        if not branches:
            return count, headed
        current = branches.pop()


def is_plain(signature: Signature) -> bool:
    """Tell whether nothing in a signature needs a check before it is sent."""
    while True:
        if (
            signature.headers
            or signature.priority
            or signature.eta is not None
            or signature.retry_count
            or signature.retry_timeout
            or signature.group_task_count
        ):
            return False
        following = signature.on_success
        if signature.on_error or signature.chord_callback is not None or (following and len(following) > 1):
            return all(map(is_plain, children(signature)))
        if not following or following[0] is None:
            return True
        signature = following[0]


def _copy_alone(signature: Signature) -> Signature:
    """Copy a signature, its Args and its headers; the copy still has the callbacks of the original."""
    # Many times quicker than copy.copy, which comes to the same.
    made: Signature = signature.__copy__()  # type: ignore[attr-defined]
    if made.args is not None:
        made.args = [arg.__copy__() for arg in made.args]  # type: ignore[attr-defined]
    if made.headers is not None:
        made.headers = copy.deepcopy(made.headers) if made.headers else {}
    return made


def copy_tree(signature: Signature) -> Signature:
    """Copy a signature with everything in it that can be changed."""
    tree = tree_of(signature)
    copies = {id(item): _copy_alone(item) for item in tree}

    def renew(callbacks: list[Signature | None]) -> list[Signature | None]:
        return [None if item is None else copies[id(item)] for item in callbacks]

    for made in copies.values():
        if made.on_success is not None:
            made.on_success = renew(made.on_success)
        if made.on_error is not None:
            made.on_error = renew(made.on_error)
        if made.chord_callback is not None:
            made.chord_callback = copies[id(made.chord_callback)]
    return copies[id(signature)]
