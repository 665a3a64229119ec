"""Bytes from a mirror, bounded in size and time; whether they are the right ones is decided elsewhere.

All of it goes through http.client on kept-alive connections. requests took 140 ms where this takes 100 (64 archives,
29 MB, four connections, hashing and fsync included, medians of 9), and 90 ms of processor time to be imported.
"""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from provisioner.connect import (
    Limits,
    Pace,
    PacedSocket,
    Resolver,
    Transient,
    failures,
    open_socket,
    tls_context,
)
from provisioner.errors import DownloadFailed, ProvisionError
from provisioner.progress import Advance
from provisioner.transfer import Sink, Transfer, body
from provisioner.url import check_url, port_of
from provisioner.workers import Begun
from valuetypes import dataclass

__all__ = ["Fetch", "HttpFetch", "Limits", "Missing", "Sink"]

_CHUNK = 256 << 10  # bytes
HEADERS = {"User-Agent": "mktemplate", "Accept-Encoding": "identity"}
_REDIRECTS = {301, 302, 303, 307, 308}
_QUERY = re.compile(r"[A-Za-z0-9._~:/@!$&'()*+,;=%?-]{1,4096}", re.ASCII)  # RFC 3986, 3.4
_T = TypeVar("_T")


class Missing(DownloadFailed):
    """The server has no such file (404, 410)."""


class Fetch(Protocol):
    """What the pipeline needs of a network."""

    def document(self, url: str, limit: int) -> bytes:
        """Return the body at `url`, at most `limit` bytes, or raise DownloadFailed (E_NET_*)."""
        ...

    def has(self, url: str) -> bool:
        """Whether the document at `url` is here, as it was asked for before."""
        ...

    def download(self, url: str, out: Sink, *, offset: int, size: int, advance: Advance) -> None:
        """Write bytes `offset` to `size` of the file at `url` to `out`, which stands at `offset`.

        Where the server cannot resume, `out` is truncated and begun anew. `advance` is told every byte, a negative
        number where bytes are given up.
        """
        ...

    def places(self, url: str) -> tuple[str, ...]:
        """Return every address that may have the file of `url`, this one first."""
        ...

    def learn(self, mirrors: Sequence[str]) -> None:
        """Learn that these mirrors have the same files."""
        ...


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that names another place."""

    location: str


def check_status(url: str, status: int, location: str | None) -> Redirect | None:
    """Return where a response sends us, None where it is the answer, or raise what its status means."""
    if status in {200, 206}:
        return None
    if status in _REDIRECTS and location:
        return Redirect(location)
    reason = http.client.responses.get(status, "?")
    kind = DownloadFailed
    if status in {404, 410}:
        kind = Missing
    elif status in {429, *range(500, 600)}:
        kind = Transient
    raise kind("E_NET_HTTP", url, f"the server answers {status} {reason}")


class HttpFetch:
    """Fetch over HTTP and HTTPS. Used by several threads at once."""

    def __init__(self, environ: Mapping[str, str], limits: Limits | None = None) -> None:
        """Honour the proxy variables of `environ` (http_proxy, https_proxy, no_proxy) and read nothing else of it."""
        self._limits = limits or Limits()
        self._environ = environ
        self._resolver = Resolver()
        self._pace = Pace()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        self._mirrors: tuple[tuple[str, ...], ...] = ()
        self._expected: dict[str, Begun[bytes]] = {}

    def document(self, url: str, limit: int) -> bytes:
        """Return the body at `url`, at most `limit` bytes, or raise DownloadFailed (E_NET_*)."""
        expected = self._expected.pop(url, None)
        return expected.wait() if expected else self._document(url, limit)

    def expect(self, url: str, limit: int) -> None:
        """Begin to ask for a document: `document`, when it is called for the same, returns or raises what came."""
        self._expected[url] = Begun(lambda: self._document(url, limit))

    def has(self, url: str) -> bool:
        """Whether the document at `url` is here, as it was asked for before."""
        return url in self._expected and self._expected[url].succeeded

    def _document(self, url: str, limit: int) -> bytes:
        return self._tried(url, lambda place: self._read(place, limit))

    def download(self, url: str, out: Sink, *, offset: int, size: int, advance: Advance) -> None:
        """Write bytes `offset` to `size` of the file at `url` to `out`, resuming where a connection broke."""
        transfer = Transfer(out, offset, size, advance)
        self._tried(url, lambda place: self._pour(place, transfer))

    def size(self, url: str) -> int:
        """Return the size in bytes that the server gives the file at `url`, or raise DownloadFailed (E_NET_*)."""
        return self._tried(url, self._ask_size)

    def places(self, url: str) -> tuple[str, ...]:
        """Return every address that may have the file of `url`, this one first."""
        for mirrors in self._mirrors:
            for mirror in mirrors:
                if url.startswith(f"{mirror}/"):
                    rest = url.removeprefix(mirror)
                    return tuple(dict.fromkeys((url, *(each + rest for each in mirrors))))
        return (url,)

    def learn(self, mirrors: Sequence[str]) -> None:
        """Learn that these mirrors have the same files."""
        with self._lock:
            if tuple(mirrors) not in self._mirrors:
                self._mirrors = (*self._mirrors, tuple(mirrors))

    def _tried(self, url: str, ask: Callable[[str], _T | Redirect]) -> _T:
        """Ask, following redirects; again after a pause where the network, not the server, failed (F-15)."""
        check_url(url)
        for pause in self._limits.pauses:
            try:
                return self._followed(url, ask)
            except Transient:
                time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - spreads clients, guards nothing
        return self._followed(url, ask)

    def _followed(self, url: str, ask: Callable[[str], _T | Redirect]) -> _T:
        place = url
        for _ in range(self._limits.redirects + 1):
            answer = ask(place)
            if not isinstance(answer, Redirect):
                return answer
            place = self._next_place(url, place, answer.location)
        raise _bad_redirect(url, f"more than {self._limits.redirects} redirects")

    def _next_place(self, first: str, place: str, location: str) -> str:
        """Return where a redirect leads if that is allowed (T-74): never from https to http, never inwards."""
        there = urljoin(place, location)
        bare, mark, query = there.partition("?")  # stores of releases sign what they hand out
        try:
            check_url(bare)
        except ProvisionError as problem:
            raise _bad_redirect(first, f"leads to {problem.subject}: {problem.detail}") from None
        if mark and not _QUERY.fullmatch(query):
            raise _bad_redirect(first, "leads to a malformed query")
        begin, end = urlsplit(first), urlsplit(there)
        if urlsplit(place).scheme == "https" and end.scheme == "http":
            raise _bad_redirect(first, f"leads from https to {there}")
        if end.hostname != begin.hostname and not self._proxy(there):
            with failures(there):
                inwards = self._is_private(end) and not self._is_private(begin)
            if inwards:
                raise _bad_redirect(first, f"leads to a private address: {there}")
        return there

    def _is_private(self, split: SplitResult) -> bool:
        return self._resolver.is_private(split.hostname or "", port_of(split))

    def _proxy(self, url: str) -> str:
        """Return the proxy that the environment names for `url`, or ""."""
        split = urlsplit(url)
        proxy = _variable(self._environ, f"{split.scheme}_proxy")
        if not proxy or _is_exempt(split.hostname or "", _variable(self._environ, "no_proxy")):
            return ""
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        if urlsplit(check_url(proxy)).scheme != "http":
            raise ProvisionError(
                "E_URL", proxy, "a proxy is http://HOST:PORT", hints=("see http_proxy",)
            )
        return proxy

    def _read(self, url: str, limit: int) -> bytes | Redirect:
        """Ask for a whole document, at most `limit` bytes."""
        with self._answer(url) as answer:
            if isinstance(answer, Redirect):
                return answer
            self._pace.begin(self._limits, self._limits.document)
            return body(url, answer, limit)

    def _pour(self, url: str, transfer: Transfer) -> Redirect | None:
        """Ask for what is missing of a transfer and pour it out."""
        if transfer.at == transfer.size > 0:
            return None
        with self._answer(url, transfer.at) as answer:
            if isinstance(answer, Redirect):
                return answer
            self._pace.begin(self._limits, self._patience(transfer))
            transfer.accept(url, answer)
            transfer.fill(url, answer)
        return None

    def _ask_size(self, url: str) -> int | Redirect:
        with self._answer(url) as answer:
            if isinstance(answer, Redirect):
                return answer
            length = answer.getheader("Content-Length") or ""
        if not re.fullmatch("[0-9]{1,15}", length, re.ASCII):
            raise DownloadFailed("E_NET_HTTP", url, "the server does not say how long the file is")
        return int(length)

    @contextmanager
    def _answer(self, url: str, offset: int = 0) -> Iterator[http.client.HTTPResponse | Redirect]:
        """Yield the response whose headers are good, or where it sends us; the connection is kept where it can be."""
        with failures(url):
            connection, response = self._request(url, offset)
            kept = False
            try:
                redirect = check_status(url, response.status, response.getheader("Location"))
                if redirect is not None:
                    response.read(_CHUNK)  # the short page beside it, so that it can be kept
                yield redirect or response
                kept = response.isclosed() and not response.will_close
            finally:
                if not kept:
                    response.close()  # a response that ends its connection is not closed with it
                    connection.close()
        if kept:
            self._keep(url, connection)

    def _patience(self, transfer: Transfer) -> float:
        """Return how many seconds the rest of a transfer may take: what the slowest allowed server needs."""
        return self._limits.document + (transfer.size - transfer.at) / max(self._limits.rate, 1)

    def _request(
        self, url: str, offset: int
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a GET and return the response's headers, over a kept connection if one still stands."""
        split, proxy = urlsplit(url), self._proxy(url)
        whole = proxy and split.scheme == "http"
        headers = {**HEADERS, "Range": f"bytes={offset}-"} if offset else HEADERS
        while True:
            kept = self._kept(url)
            connection = kept or self._connection(split, proxy)
            try:
                self._pace.begin(self._limits, self._limits.headers)
                asked = urlunsplit(("", "", split.path or "/", split.query, ""))
                connection.request("GET", url if whole else asked, headers=headers)
                return connection, connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if kept is None:
                    raise
            except BaseException:
                connection.close()
                raise

    def _connection(self, split: SplitResult, proxy: str) -> http.client.HTTPConnection:
        """Return a new connection to a server, or to the proxy before it."""
        peer = urlsplit(proxy) if proxy else split
        host, port = peer.hostname or "", port_of(peer)
        connection: http.client.HTTPConnection
        if split.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, context=tls_context())
        else:
            connection = http.client.HTTPConnection(host, port)
        if proxy and split.scheme == "https":
            connection.set_tunnel(split.hostname or "", port_of(split))

        def connect(address: tuple[str, int], *_: object) -> PacedSocket:
            return open_socket(*address, self._resolver, self._limits, self._pace)

        connection._create_connection = connect  # type: ignore[attr-defined]  # the one place for a socket of ours
        self._pace.begin(self._limits, self._limits.headers)
        connection.connect()
        connection.sock.pace = self._pace  # type: ignore[union-attr]  # a PacedSocket or PacedTls
        return connection

    def _kept(self, url: str) -> http.client.HTTPConnection | None:
        with self._lock:
            kept = self._idle.get(urlsplit(url)[:2])
            return kept.pop() if kept else None

    def _keep(self, url: str, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.setdefault(urlsplit(url)[:2], []).append(connection)

    def __enter__(self) -> HttpFetch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept alive."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()


def _bad_redirect(url: str, detail: str) -> DownloadFailed:
    return DownloadFailed(
        "E_NET_REDIRECT", url, detail, hints=("name the mirror itself with --mirror",)
    )


def _variable(environ: Mapping[str, str], name: str) -> str:
    """Return a proxy variable; HTTP_PROXY does not count, as a CGI client can set it (CVE-2016-5385)."""
    upper = "" if name == "http_proxy" else environ.get(name.upper(), "")
    return environ.get(name, "") or upper


def _is_exempt(host: str, no_proxy: str) -> bool:
    for word in no_proxy.replace(",", " ").split():
        name = word.lstrip(".").lower()
        if name in {"*", host} or host.endswith(f".{name}"):
            return True
    return False
