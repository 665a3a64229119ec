"""HTTP as registries speak it: any method, headers and bodies of ours, over the sockets and deadlines of `fetch`.

What a library of the protocol would bring was looked at (oras 0.2.43): it sets no deadlines, no sizes and checks no
digest, and follows redirects wherever they lead; with those at hand here, what is left of it is this module.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit, urlunsplit

from provisioner.connect import failures
from provisioner.errors import DownloadFailed
from provisioner.fetch import HEADERS, HttpFetch, Redirect, check_status
from valuetypes import dataclass, field, replace

_BLOCK = 1 << 20  # bytes of a body that are sent at once
_DRAIN = 64 << 10  # bytes of an answer that nobody wants, read so that its connection can be kept

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | BinaryIO | None = None
    size: int = 0  # bytes of a body that is a file

    @property
    def place(self) -> tuple[str, str]:
        """Scheme and host: who may see the headers that say who we are."""
        split = urlsplit(self.url)
        return split.scheme, split.netloc


class Wire(HttpFetch):
    """Exchanges with registries. Used by several threads at once."""

    @contextmanager
    def answer(self, ask: Ask, seconds: float) -> Iterator[http.client.HTTPResponse]:
        """Yield the response to one request, whatever its status; its body may take `seconds`."""
        with failures(ask.url):
            connection, response = self._exchange(ask)
            kept = False
            try:
                self._pace.begin(self._limits, seconds)
                yield response
                if not response.isclosed() and not response.will_close:
                    response.read(_DRAIN)
                kept = response.isclosed() and not response.will_close
            finally:
                if not kept:
                    response.close()
                    connection.close()
        if kept:
            self._keep(ask.url, connection)

    def _exchange(self, ask: Ask) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request and return the response's headers; a kept connection that was closed meanwhile is replaced."""
        split, proxy = urlsplit(ask.url), self._proxy(ask.url)
        asked = urlunsplit(("", "", split.path or "/", split.query, ""))
        headers = {**HEADERS, **ask.headers}
        if ask.body is not None:
            size = len(ask.body) if isinstance(ask.body, bytes) else ask.size
            headers["Content-Length"] = str(size)
        elif ask.method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        while True:
            kept = None if ask.body is not None else self._kept(ask.url)
            connection = kept or self._connection(split, proxy)
            connection.blocksize = _BLOCK
            try:
                self._pace.begin(self._limits, self._limits.headers)
                whole = ask.url if proxy and split.scheme == "http" else asked
                connection.request(ask.method, whole, body=ask.body, headers=headers)
                self._pace.begin(self._limits, self._limits.document)  # it hashes what it got
                return connection, connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if kept is None:
                    raise
            except BaseException:
                connection.close()
                raise

    def brought(self, ask: Ask, read: Callable[[Ask], _T | Redirect]) -> _T:
        """Return what `read` makes of a GET, following redirects; again where the network failed, not the server."""
        return self._tried(ask.url, lambda place: read(replace(ask, url=place)))

    def leads(self, first: str, place: str, location: str) -> str:
        """Return where an answer of `place` leads, if that is allowed (T-74); E_NET_REDIRECT where it is not."""
        return self._next_place(first, place, location)

    def patience(self, size: int) -> float:
        """Return how many seconds `size` bytes may take."""
        return self._limits.document + size / max(self._limits.rate, 1)


def require(ask: Ask, response: http.client.HTTPResponse, *statuses: int) -> None:
    """Raise what the status of a response means, unless it is one of `statuses`."""
    if response.status in statuses:
        return
    found = check_status(ask.url, response.status, response.getheader("Location"))
    if isinstance(found, Redirect) or found is None:
        detail = f"the server answers {response.status} where that means nothing"
        raise DownloadFailed("E_NET_HTTP", ask.url, detail)
