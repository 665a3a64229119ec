"""Sockets that nobody can make us wait on: names resolved once, addresses raced, every byte under a deadline.

Used below http.client. A `Pace` belongs to the thread that transfers.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from provisioner.errors import DownloadFailed
from valuetypes import dataclass

_HEAD_START = 0.25  # seconds before the next address is tried too (RFC 8305, 5)
_Address = tuple[int, tuple[object, ...]]  # family, socket address


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long is waited for a server, in seconds and bytes per second."""

    connect: float = 10.0
    headers: float = 30.0  # until a response's headers are whole
    stall: float = 30.0  # without a byte
    document: float = 120.0  # for a whole document
    rate: int = 1024  # bytes per second, at least, averaged over `window`
    window: float = 60.0
    pauses: tuple[float, ...] = (1.0, 4.0, 16.0)  # before each further try
    redirects: int = 5


class TooSlow(TimeoutError):
    """Bytes came, but too few of them."""


class Unreachable(OSError):
    """No address answered in time."""


class Transient(DownloadFailed):
    """A connection stalled or broke, or the server is busy: another try may do."""


class Pace(threading.local):
    """Until when the calling thread waits for the bytes of one transfer, and how slowly they may come."""

    deadline = float("inf")
    stall = 30.0
    rate = 0
    window = 60.0
    _since = 0.0
    _bytes = 0

    def begin(self, limits: Limits, seconds: float) -> None:
        """Start the clock: all of it within `seconds`, none of it stalled."""
        self._since = time.monotonic()
        self._bytes = 0
        self.deadline = self._since + seconds
        self.stall, self.rate, self.window = limits.stall, limits.rate, limits.window

    def patience(self) -> float:
        """Return how long the next byte may take; TimeoutError where no time is left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long as a whole")
        return min(left, self.stall)

    def got(self, count: int) -> None:
        """Note `count` bytes; TooSlow when a window ended with too few."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since >= self.window:
            if self._bytes < self.rate * self.window:
                raise TooSlow(f"less than {self.rate} bytes per second over {self.window:g} s")
            self._since, self._bytes = now, 0


class PacedSocket(socket.socket):
    """A TCP socket whose reads keep to `pace`."""

    pace: Pace | None = None

    def recv_into(self, buffer, nbytes=0, flags=0):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as the base
        """Receive as the base does, within the pace."""
        if self.pace is None:
            return super().recv_into(buffer, nbytes, flags)
        self.settimeout(self.pace.patience())
        count = super().recv_into(buffer, nbytes, flags)
        self.pace.got(count)
        return count


class PacedTls(ssl.SSLSocket):
    """A TLS socket whose reads keep to `pace`."""

    pace: Pace | None = None

    def recv_into(self, buffer, nbytes=None, flags=0):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as the base
        """Receive as the base does, within the pace."""
        if self.pace is None:
            return super().recv_into(buffer, nbytes, flags)
        self.settimeout(self.pace.patience())
        count = super().recv_into(buffer, nbytes, flags)
        self.pace.got(count)
        return count


@contextmanager
def failures(url: str) -> Iterator[None]:
    """Turn what the network throws into DownloadFailed with an E_NET_* code."""
    try:
        yield
    except (OSError, http.client.HTTPException) as problem:
        raise failure(url, problem) from problem


def failure(url: str, problem: Exception) -> DownloadFailed:
    """Return the error of the product that a network exception means."""
    host = urlsplit(url).hostname or url
    table: tuple[tuple[tuple[type[Exception], ...], type[DownloadFailed], str, str], ...] = (
        ((socket.gaierror,), DownloadFailed, "E_NET_RESOLVE", host),
        ((ssl.SSLError,), DownloadFailed, "E_NET_TLS", url),
        ((TooSlow,), Transient, "E_NET_SLOW", url),
        ((TimeoutError,), Transient, "E_NET_TIMEOUT", url),
        ((http.client.IncompleteRead,), Transient, "E_NET_TRUNCATED", url),
        ((ConnectionResetError, BrokenPipeError), Transient, "E_NET_TRUNCATED", url),
        ((http.client.HTTPException,), DownloadFailed, "E_NET_HTTP", url),
        ((Exception,), DownloadFailed, "E_NET_CONNECT", url),
    )
    kind, code, subject = next(row[1:] for row in table if isinstance(problem, row[0]))
    words = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return kind(code, subject, words, hints=("is the network up, and the mirror right?",))


def tls_context() -> ssl.SSLContext:
    """Return the system's trust anchors and defaults, with sockets that can be paced."""
    context = ssl.create_default_context()
    context.sslsocket_class = PacedTls
    return context


class Resolver:
    """Addresses of hosts, each looked up once: sixteen look-ups at once stall some resolvers for 5 s."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[tuple[str, int], tuple[_Address, ...]] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int) -> tuple[_Address, ...]:
        """Return the addresses of `host`, IPv6 and IPv4 in turn (RFC 8305, 4)."""
        with self._lock:
            found = self._known.get((host, port))
            if found is None:
                name = host.strip("[]")
                plain = name.encode() if name.isascii() else name  # text takes a codec: 4 ms
                rows = socket.getaddrinfo(plain, port, type=socket.SOCK_STREAM)
                found = tuple(_in_turn([(row[0], row[4]) for row in rows]))
                self._known[host, port] = found
        return found

    def is_private(self, host: str, port: int) -> bool:
        """Whether `host` has an address of this machine, of its link or of a private network (T-74)."""
        return any(_is_private(str(address[0])) for _, address in self.addresses(host, port))


_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "::/127", "fc00::/7", "fe80::/10"),
    )
)


def _is_private(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _PRIVATE if network.version == address.version)


def _in_turn(rows: list[_Address]) -> Iterator[_Address]:
    """Yield the families alternately, the resolver's first choice first."""
    first = [row for row in rows if row[0] == rows[0][0]]
    other = [row for row in rows if row[0] != rows[0][0]]
    while first or other:
        if first:
            yield first.pop(0)
        if other:
            yield other.pop(0)


def open_socket(
    host: str, port: int, resolver: Resolver, limits: Limits, pace: Pace
) -> PacedSocket:
    """Return a socket connected to `host`, the first of its addresses that answers (RFC 8305, 5)."""
    waiting = list(resolver.addresses(host, port))
    deadline = time.monotonic() + limits.connect
    problem = OSError("no address")
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            if waiting:
                problem = _begin(selector, *waiting.pop(0)) or problem
            left = deadline - time.monotonic()
            if left <= 0:
                problem = Unreachable(f"no answer within {limits.connect:g} s")
                break
            for key, _ in selector.select(min(left, _HEAD_START) if waiting else left):
                won: PacedSocket = key.data
                selector.unregister(won)
                code = won.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    _close_others(selector)
                    won.settimeout(limits.stall)
                    won.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    won.pace = pace
                    return won
                won.close()
                problem = OSError(code, f"connect: {os.strerror(code)}")
        _close_others(selector)
    raise problem


def _begin(
    selector: selectors.BaseSelector, family: int, address: tuple[object, ...]
) -> OSError | None:
    """Start to connect; return what went wrong at once."""
    candidate = PacedSocket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    candidate.setblocking(False)
    try:
        candidate.connect(address)
    except BlockingIOError:
        pass
    except OSError as problem:
        candidate.close()
        return problem
    selector.register(candidate, selectors.EVENT_WRITE, data=candidate)
    return None


def _close_others(selector: selectors.BaseSelector) -> None:
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        key.data.close()
