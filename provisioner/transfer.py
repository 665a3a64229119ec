"""One body on its way from a server: neither a byte more nor a byte less than it may have."""

from __future__ import annotations

import http.client
import re
from typing import Protocol

from provisioner.connect import Transient
from provisioner.errors import DownloadFailed
from provisioner.progress import Advance

_CHUNK = 256 << 10  # bytes
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})", re.ASCII)


class Sink(Protocol):
    """Where a download goes. A file opened in binary mode is one."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append all of `data`."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go back to the start, to begin anew."""
        ...

    def truncate(self) -> int:
        """Drop what lies behind the position."""
        ...


class Transfer:
    """One file on its way: how much of it has come, and where it goes."""

    def __init__(self, out: Sink, at: int, size: int, advance: Advance) -> None:
        """Stand at byte `at` of `size`; `advance` is told every byte that comes."""
        self.at = at
        self.size = size
        self._out = out
        self._advance = advance

    def accept(self, url: str, response: http.client.HTTPResponse) -> None:
        """Check what the headers promise; begin anew where the server sends the file from its start."""
        length = response.getheader("Content-Length")
        promised = int(length) if length and re.fullmatch("[0-9]{1,15}", length, re.ASCII) else None
        if response.status == 200 and self.at:
            self._out.seek(0)
            self._out.truncate()
            self._advance(-self.at)
            self.at = 0
        elif response.status == 206:
            found = _RANGE.fullmatch(response.getheader("Content-Range") or "")
            if found is None or int(found[1]) != self.at:
                raise DownloadFailed("E_NET_HTTP", url, "the server sends another range than asked")
        if promised is not None and promised > self.size - self.at:
            raise _too_big(url, self.size)
        if promised is not None and promised < self.size - self.at:
            raise _truncated(
                DownloadFailed, url, self.at + promised, self.size
            )  # the file is another

    def fill(self, url: str, response: http.client.HTTPResponse) -> None:
        """Pour the body out, neither a byte less nor a byte more than the size that is signed."""
        buffer = memoryview(bytearray(min(_CHUNK, max(self.size - self.at, 1))))
        while self.at < self.size:
            count = response.readinto(buffer[: self.size - self.at])
            if not count:
                raise _truncated(Transient, url, self.at, self.size)
            self._out.write(buffer[:count])
            self.at += count
            self._advance(count)
        if response.read(1):
            raise _too_big(url, self.size)


def body(url: str, response: http.client.HTTPResponse, limit: int) -> bytes:
    """Return the body of a document, whole, or raise what is wrong with its length."""
    promised = response.length
    parts: list[bytes] = []
    left = limit + 1
    while left > 0 and (part := response.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    got = limit + 1 - left
    if left <= 0 or (promised or 0) > limit:
        raise _too_big(url, limit)
    if promised is not None and got < promised:
        raise _truncated(Transient, url, got, promised)
    return b"".join(parts)


def _truncated(kind: type[DownloadFailed], url: str, got: int, size: int) -> DownloadFailed:
    detail = f"ends after {got} of {size} bytes"
    return kind("E_NET_TRUNCATED", url, detail, hints=("try another mirror",))


def _too_big(url: str, size: int) -> DownloadFailed:
    return DownloadFailed(
        "E_NET_TOOBIG", url, f"is longer than {size} bytes", hints=("try another mirror",)
    )
