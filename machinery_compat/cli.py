"""The commands ``celery -A APP machinery …``.

Celery finds them through the entry point ``celery.commands``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from celery.bin.base import CeleryCommand, CeleryOption

from machinery_compat import errors
from machinery_compat.dead import DeadEntry, DeadQueue
from machinery_compat.transport.payloads import one_line

__all__ = ["machinery"]

#: Longest pieces of a stranger's text in the table, in characters.
NAME_SHOWN, UUID_SHOWN, REASON_SHOWN = 30, 41, 80


@contextmanager
def _told() -> Iterator[None]:
    """One clear line for what this package refuses."""
    try:
        yield
    except errors.MachineryError as exc:
        raise click.ClickException(one_line(str(exc), 500)) from exc


def _ours(context: click.Context) -> Any:
    """The application of the command line."""
    app = context.obj.app
    if getattr(app, "machinery", None) is None:
        raise click.UsageError(
            f"the application {app.main or 'default'!r} does not speak Machinery; name one that does with "
            "'celery -A APP machinery …': machinery_compat.Celery(...), or machinery_compat.enable(app)"
        )
    return app


def _dead_queue(context: click.Context, queue: str | None) -> DeadQueue:
    found: DeadQueue = _ours(context).machinery.dead_letters(queue or "")
    return found


_queue_option = click.option(
    "-Q",
    "--queue",
    cls=CeleryOption,
    help_group="Dead Letter Options",
    metavar="QUEUE",
    help="The queue whose dead messages are meant, without ':dead' (default: the application's default queue).",
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, cls=CeleryOption, help_group="Dead Letter Options", help="Print JSON."
)
_all_option = click.option(
    "--all", "everything", is_flag=True, cls=CeleryOption, help_group="Dead Letter Options", help="All of them."
)
_numbers = click.argument("numbers", nargs=-1, type=click.IntRange(min=1), metavar="[NUMBER]...")


def _which(numbers: tuple[int, ...], everything: bool) -> tuple[int, ...] | None:
    if everything == bool(numbers):
        raise click.UsageError("say either which, by the numbers that 'list' shows, or --all")
    return None if everything else numbers


@click.group(name="machinery")
def machinery() -> None:
    """What Machinery has beside Celery: the messages that nobody could run, and the tables of results on DynamoDB."""


@machinery.command(cls=CeleryCommand)
@click.pass_context
def tables(context: click.Context, /, **options: Any) -> None:
    """Create the tables of the DynamoDB result backend.

    Each is paid for by the request, and items that have expired are deleted from it. A table that is there stays as it
    is, but for that deletion, which is switched on.
    """
    app = _ours(context)
    with _told():
        backend = app.backend
        if not hasattr(backend, "create_tables"):
            raise click.UsageError(f"the results of this application are in {backend.as_uri()}, which has no tables")
        for name, made in backend.create_tables():
            click.echo(f"Created the table {name}." if made else f"The table {name} is there.")


@machinery.group()
def dead() -> None:
    """Messages that nobody could run, kept in QUEUE:dead with the reason.

    Numbers are places in that list, so they change when entries are requeued or purged.
    """


def _command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    return dead.command(name=name, cls=CeleryCommand)


def _document(entry: DeadEntry) -> dict[str, Any]:
    """What ``--json`` prints of an entry; the body is in ``show`` only."""
    signature = entry.signature
    return {
        "number": entry.number,
        "time": entry.time,
        "queue": entry.queue,
        "reason": entry.reason,
        "task": signature.name if signature else None,
        "uuid": signature.uuid if signature else None,
        "size": len(entry.body),
        "deliveries": entry.deliveries,
    }


def _row(entry: DeadEntry) -> tuple[str, ...]:
    signature = entry.signature
    return (
        str(entry.number),
        (entry.time or "-")[:19].replace("T", " "),
        one_line(signature.name, NAME_SHOWN) if signature else "-",
        one_line(signature.uuid, UUID_SHOWN) if signature else "-",
        str(len(entry.body)),
        one_line(entry.reason, REASON_SHOWN),
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = (0, 4)
    for row in rows:
        cells = [
            text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


@_command("list")
@_queue_option
@_json_option
@click.pass_context
def list_(context: click.Context, /, queue: str | None, as_json: bool, **options: Any) -> None:
    """List the dead messages, the oldest first."""
    found = _dead_queue(context, queue)
    with _told():
        if as_json:
            click.echo(json.dumps([_document(entry) for entry in found.entries()], indent=2))
            return
        rows = [_row(entry) for entry in found.entries()]
    if not rows:
        click.echo(f"No dead messages of queue {found.queue}.")
        return
    for line in _table([("NUMBER", "TIME (UTC)", "TASK", "UUID", "BYTES", "REASON"), *rows]):
        click.echo(line)


def _readable(body: bytes) -> str:
    """A message for a terminal: its JSON, indented and in ASCII, else its bytes with escapes."""
    try:
        return json.dumps(json.loads(body), indent=2)
    except (ValueError, RecursionError):
        return one_line(body.decode("utf-8", "backslashreplace"), len(body) * 4)


@_command("show")
@click.argument("number", type=click.IntRange(min=1))
@_queue_option
@_json_option
@click.option(
    "--raw",
    is_flag=True,
    cls=CeleryOption,
    help_group="Dead Letter Options",
    help="Write the message's bytes, exactly, and nothing else.",
)
@click.pass_context
def show(context: click.Context, /, number: int, queue: str | None, as_json: bool, raw: bool, **options: Any) -> None:
    """Show one dead message with all that is known of it."""
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other")
    found = _dead_queue(context, queue)
    with _told():
        entry = found.get(number)
    if raw:
        sys.stdout.buffer.write(entry.body)
        return
    document = _document(entry)
    if as_json:
        try:
            document["body"] = entry.body.decode("utf-8")
        except UnicodeDecodeError:
            document["body_hex"] = entry.body.hex()
        click.echo(json.dumps(document, indent=2))
        return
    for name, value in document.items():
        if value is not None:
            click.echo(f"{name}:".ljust(12) + one_line(str(value), len(str(value))))
    click.echo("body:")
    click.echo(_readable(entry.body))


@_command("requeue")
@_numbers
@_queue_option
@_all_option
@click.option(
    "--force",
    is_flag=True,
    cls=CeleryOption,
    help_group="Dead Letter Options",
    help="Also what is no task at all. Python workers bury it again; a Go worker may stop at it.",
)
@click.pass_context
def requeue(
    context: click.Context,
    /,
    numbers: tuple[int, ...],
    queue: str | None,
    everything: bool,
    force: bool,
    **options: Any,
) -> None:
    """Put dead messages back into their queue.

    A task gets the state PENDING and a fresh count of redeliveries. What its failure has set off (OnError, the end of a
    chord) is not taken back.
    """
    chosen = _which(numbers, everything)
    found = _dead_queue(context, queue)
    with _told():
        outcome = found.requeue(chosen, force=force)
    click.echo(f"Requeued {_messages(len(outcome.moved))} to {found.queue}.")
    for entry in outcome.gone:
        click.echo(f"number {entry.number}: somebody else has taken it meanwhile", err=True)
    for entry in outcome.unreadable:
        reason = one_line(entry.reason, REASON_SHOWN)
        click.echo(f"number {entry.number}: left, since no worker can read it ({reason}); see --force", err=True)
    if outcome.unreadable or outcome.gone:
        context.exit(1)


@_command("purge")
@_numbers
@_queue_option
@_all_option
@click.option(
    "-y", "--yes", is_flag=True, cls=CeleryOption, help_group="Dead Letter Options", help="Do not ask before."
)
@click.pass_context
def purge(
    context: click.Context, /, numbers: tuple[int, ...], queue: str | None, everything: bool, yes: bool, **options: Any
) -> None:
    """Delete dead messages for ever."""
    chosen = _which(numbers, everything)
    found = _dead_queue(context, queue)
    if not yes:
        what = "ALL dead messages" if chosen is None else f"number {', '.join(map(str, chosen))} of the dead messages"
        click.confirm(f"Delete {what} of queue {found.queue} for ever?", abort=True)
    with _told():
        count = found.purge(chosen)
    click.echo(f"Purged {_messages(count)} from {found.queue}:dead.")


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
