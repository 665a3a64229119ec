"""Documents over requests: one Session a server, on our own sockets, so that the deadlines of `connect` hold."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from provisioner.connect import Limits, Pace, Resolver, failure, open_socket, tls_context
from provisioner.errors import DownloadFailed
from provisioner.fetch import HEADERS, Redirect, check_status

_CHUNK = 64 << 10  # bytes


class Documents:
    """Small files, whole or not at all. Used by several threads at once."""

    def __init__(self, limits: Limits, resolver: Resolver, pace: Pace) -> None:
        """Share the resolver and the deadlines of the Fetch that this belongs to."""
        self._limits = limits
        self._pace = pace
        self._sessions: dict[str, requests.Session] = {}
        self._lock = threading.Lock()
        self._adapter = _adapter(limits, resolver, pace)

    def get(self, url: str, proxy: str, limit: int) -> bytes | Redirect:
        """Return the body at `url`, at most `limit` bytes, or where it is instead."""
        self._pace.begin(self._limits, self._limits.headers)
        proxies = {"http": proxy, "https": proxy} if proxy else {}
        with (
            _failures(url),
            self._session(url).get(
                url,
                headers=HEADERS,
                proxies=proxies,
                stream=True,
                allow_redirects=False,
                timeout=(self._limits.connect, self._limits.stall),
            ) as response,
        ):
            redirect = check_status(url, response.status_code, response.headers.get("Location"))
            if redirect is not None:
                return redirect
            self._pace.begin(self._limits, self._limits.document)
            return _body(url, response, limit)

    def close(self) -> None:
        """Close what is kept alive."""
        for session in self._sessions.values():
            session.close()

    def _session(self, url: str) -> requests.Session:
        """Return the Session of a server; it reads no .netrc and no variable of the environment."""
        key = "//".join(urlsplit(url)[:2])
        with self._lock:
            if key not in self._sessions:
                session = self._sessions[key] = requests.Session()
                session.trust_env = False
                session.mount("http://", self._adapter)
                session.mount("https://", self._adapter)
            return self._sessions[key]


def _body(url: str, response: requests.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit + 1
    while left > 0:
        part: bytes = response.raw.read(min(left, _CHUNK), decode_content=False)
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
    raise DownloadFailed(
        "E_NET_TOOBIG", url, f"is longer than {limit} bytes", hints=("try another mirror",)
    )


def _adapter(limits: Limits, resolver: Resolver, pace: Pace) -> HTTPAdapter:
    """Return the transport of requests, over sockets that keep to `pace`."""

    class Http(HTTPConnection):
        def _new_conn(self) -> Any:  # noqa: ANN401 - as urllib3 has it
            return open_socket(self._dns_host, self.port, resolver, limits, pace)

    class Https(HTTPSConnection):
        def _new_conn(self) -> Any:  # noqa: ANN401 - as urllib3 has it
            return open_socket(self._dns_host, self.port, resolver, limits, pace)

        def connect(self) -> None:
            super().connect()
            self.sock.pace = pace  # type: ignore[union-attr]  # made by `tls_context`

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the base
            super().init_poolmanager(*args, ssl_context=tls_context(), **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - as the base
            manager = super().proxy_manager_for(proxy, ssl_context=tls_context(), **kwargs)
            manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
            return manager

    return Adapter(max_retries=0)


@contextmanager
def _failures(url: str) -> Iterator[None]:
    """Turn what requests throws into DownloadFailed, by the exception at its root."""
    try:
        yield
    except (requests.RequestException, exceptions.HTTPError, OSError) as problem:
        raise failure(url, _root(problem)) from problem


def _root(problem: BaseException) -> Exception:
    """Return the network's own exception below the wrappers of requests and urllib3."""
    found: BaseException = problem
    seen: list[BaseException] = []
    while found not in seen:
        seen.append(found)
        inner = getattr(found, "reason", None) or found.__cause__ or found.__context__
        inside = [arg for arg in found.args if isinstance(arg, BaseException)]
        found = next((each for each in (*inside, inner) if isinstance(each, BaseException)), found)
    for each in reversed(seen):
        if isinstance(each, OSError) and not isinstance(each, requests.RequestException):
            return each
    if any(isinstance(each, exceptions.IncompleteRead) for each in seen):
        return http.client.IncompleteRead(b"")
    return http.client.HTTPException(str(problem))
