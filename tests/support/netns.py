"""A private network for programs whose addresses are fixed: its loopback interface, and nothing else.

Only the thread that enters it is in it, with every process and socket that it makes meanwhile.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.processes import Unavailable

# From linux/sched.h, linux/if.h and linux/sockios.h.
CLONE_NEWNET = 0x40000000
IFF_UP = 0x1
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
#: The beginning of ``struct ifreq``: a name and the flags.
REQUEST = struct.Struct("16sh22x")


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise Unavailable(f"{name}: {os.strerror(number)} (a private network needs root)")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _, flags = REQUEST.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, REQUEST.pack(b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, REQUEST.pack(b"lo", flags | IFF_UP))


@contextmanager
def private_network() -> Iterator[None]:
    """Puts this thread into a network of its own.

    Raises:
        Unavailable: the kernel does not allow it.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _call("unshare", CLONE_NEWNET)
        try:
            _raise_loopback()
            yield
        finally:
            _call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)
