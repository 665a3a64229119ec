"""sock_diag(7): the TCP ports that a network namespace listens on, without the tables of /proc/net.

Those are read through the hash table of every connection of the host, which takes milliseconds; the kernel's answer
here comes from its list of listening sockets alone.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections.abc import Iterator

from runtime.kernel.netlink import Netlink

_PROTOCOL = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20
_LISTEN = 1 << 10  # TCP_LISTEN, as a bit of idiag_states
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2, linux/inet_diag.h
_PORT = struct.Struct("!H")
_PORT_AT = 4  # in struct inet_diag_msg


def listening(pid: int) -> frozenset[int]:
    """Return the TCP ports that are listened on where process `pid` is.

    OSError where this kernel has no such thing, or we may not go there: PermissionError.
    """
    return frozenset(_listening(pid))


def _listening(pid: int) -> Iterator[int]:
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Netlink.inside(netns, _PROTOCOL) as there:
            for family in (_socket.AF_INET, _socket.AF_INET6):
                request = _REQUEST.pack(family, _socket.IPPROTO_TCP, 0, _LISTEN)
                for answer in there.dump(_BY_FAMILY, request):
                    yield _PORT.unpack_from(answer, _PORT_AT)[0]
    finally:
        os.close(netns)
