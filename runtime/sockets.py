"""Listening sockets that somebody else has opened, and init is given: sd_listen_fds(3).

systemd listens while nothing of the container runs; the service accepts from the same sockets, and so sees its
clients' own addresses. They belong to the host's network namespace, whatever network the container has.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress

from runtime.errors import ConfigError
from runtime.program import Call
from valuetypes import dataclass

FIRST = 3  # SD_LISTEN_FDS_START: they are the descriptors from here on, on the way in and inside
_MOST = 64
_F_SETFD = 2
_CONNECTED = frozenset((b"01", b"03", b"04", b"05", b"08", b"09", b"0B"))  # net/tcp_states.h:
# established, being so, and being closed by one side; not those that only wait for their time


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """How many there are, and how the service is told: `systemd` (LISTEN_FDS), or `nginx` (its own variable)."""

    count: int = 0
    told: str = "systemd"

    @property
    def numbers(self) -> range:
        """Their descriptors."""
        return range(FIRST, FIRST + self.count)

    def variables(self) -> tuple[tuple[str, str], ...]:
        """Return what init's environment says of them; init is process 1."""
        if not self.count:
            return ()
        if self.told == "nginx":
            return (("NGINX", "".join(f"{number};" for number in self.numbers)),)
        return ("LISTEN_PID", "1"), ("LISTEN_FDS", str(self.count))

    def passed(self) -> tuple[Call, ...]:
        """Return the calls that let the next execve pass them on."""
        return tuple(Call(name="fcntl", args=(number, _F_SETFD, 0)) for number in self.numbers)


NO_SOCKETS = Sockets()


def given(environment: Mapping[str, str]) -> int:
    """Return how many sockets our starter has opened for this process; from now on no other program gets them.

    ConfigError (E_LIMIT) for more than any service has.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return 0
    text = environment.get("LISTEN_FDS", "")
    count = int(text) if text.isascii() and text.isdigit() else 0
    if count > _MOST:
        raise ConfigError("E_LIMIT", "LISTEN_FDS", f"{count} sockets, limit {_MOST}")
    for number in range(FIRST, FIRST + count):
        os.set_inheritable(number, False)
    return count


class Watch:
    """Looks whether anybody is connected to the listening sockets of a process; for TCP."""

    def __init__(self, count: int) -> None:
        """Learn where they listen. ConfigError (E_PARAM) where one is no TCP socket: it knows no connections."""
        self._addresses: set[tuple[str, bytes]] = set()
        for number in range(FIRST, FIRST + count):
            self._addresses.add(_address(number))

    def is_busy(self) -> bool:
        """Whether there is a connection now, accepted or about to be."""
        return any(
            self._connected(table) for table in sorted({table for table, _ in self._addresses})
        )

    def _connected(self, table: str) -> bool:
        local = {address for name, address in self._addresses if name == table}
        everywhere = tuple(address[-5:] for address in local if not address[:-5].strip(b"0"))
        with suppress(FileNotFoundError), open(f"/proc/self/net/{table}", "rb") as rows:
            for row in rows:
                own, state = row.split(None, 4)[1::2]
                if state in _CONNECTED and (own in local or own.endswith(everywhere)):
                    return True
        return False


def _address(number: int) -> tuple[str, bytes]:
    """Return the table of proc_net(5) that tells of the socket's connections, and its address as it stands there."""
    try:
        listening = _socket.socket(fileno=os.dup(number))
    except OSError:
        raise ConfigError("E_PARAM", f"descriptor {number}", "is no socket") from None
    try:
        family = {_socket.AF_INET: "tcp", _socket.AF_INET6: "tcp6"}.get(listening.family)
        if family is None or listening.type != _socket.SOCK_STREAM:
            raise ConfigError(
                "E_PARAM",
                f"descriptor {number}",
                "is no TCP socket: when it is idle cannot be told",
                hints=("leave out --idle",),
            )
        host, port = listening.getsockname()[:2]
        packed = _socket.inet_pton(listening.family, host.partition("%")[0])
    finally:
        listening.close()
    return family, b"%s:%04X" % (_hexadecimal(packed), port)


def _hexadecimal(packed: bytes) -> bytes:
    """Return an address as the kernel prints it: words in this machine's order."""
    words: Iterable[tuple[int]] = struct.iter_unpack("=I", packed)
    return b"".join(b"%08X" % word for (word,) in words)
