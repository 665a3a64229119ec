"""A stream → gzip, zstd or as it is, by the end of a file's name; with its digests. The same bytes for the same stream.

gzip is cut into pieces that all processors compress at once, as pigz does: each piece begins with the last 32 KiB of
the one before as its dictionary, so the result is one ordinary stream and depends on no number of processors.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from provisioner.errors import StoreFailed

_PIECE = 1 << 20  # bytes
_WINDOW = 32 << 10  # bytes that deflate looks back
_LEVEL = 4  # 2 % more than level 6 in half its time
_ZSTD_LEVEL = 6
_HEAD = bytes.fromhex("1f8b08000000000000ff")  # RFC 1952: deflate, no name, no time, unknown system


class Stream(Protocol):
    """Takes bytes until it is closed; `close` writes what is left and closes nothing below it."""

    def write(self, data: bytes, /) -> object:
        """Take `data`."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Counted:
    """Passes bytes on, hashed and counted."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Pass on to `write`."""
        self._write = write
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Pass `data` on."""
        self._hash.update(data)
        self.size += len(data)
        self._write(data)

    @property
    def digest(self) -> str:
        """What went through, as OCI names it."""
        return f"sha256:{self._hash.hexdigest()}"


class Plain:
    """As it is."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Pass on to `write`."""
        self.write = write

    def close(self) -> None:
        """Do nothing: nothing is held back."""


class Gzip:
    """Into one gzip member (RFC 1952)."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Compress on the way to `write`."""
        self._write = write
        self._held = bytearray()
        self._window = b""
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count())
        self._most = 2 * (os.cpu_count() or 1)
        self._waiting: deque[Future[bytes]] = deque()
        self._check = self._size = 0
        write(_HEAD)

    def write(self, data: bytes) -> None:
        """Take `data`."""
        self._check = zlib.crc32(data, self._check)
        self._size += len(data)
        self._held += data
        while len(self._held) >= _PIECE:
            piece = bytes(self._held[:_PIECE])
            del self._held[:_PIECE]
            self._submit(piece, zlib.Z_SYNC_FLUSH)

    def _submit(self, piece: bytes, flush: int) -> None:
        self._waiting.append(self._pool.submit(_deflate, piece, self._window, flush))
        self._window = piece[-_WINDOW:]
        if len(self._waiting) > self._most:
            self._write(self._waiting.popleft().result())

    def close(self) -> None:
        """Write what is left and the trailer."""
        self._submit(bytes(self._held), zlib.Z_FINISH)
        for each in self._waiting:
            self._write(each.result())
        self._pool.shutdown()
        self._write(
            self._check.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        )


def _deflate(piece: bytes, window: bytes, flush: int) -> bytes:
    deflate = zlib.compressobj(
        _LEVEL, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, window
    )
    return deflate.compress(piece) + deflate.flush(flush)


class Zstd:
    """Into one zstd frame (RFC 8878)."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Compress on the way to `write`."""
        self._write = write
        self._compressor = _zstd()

    def write(self, data: bytes) -> None:
        """Take `data`."""
        if packed := self._compressor.compress(data):
            self._write(packed)

    def close(self) -> None:
        """Write what is left."""
        self._write(self._compressor.flush())


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


def _zstd() -> _Compressor:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore] # from 3.14 on
    except ImportError:
        from backports import zstd  # type: ignore[no-redef,import-not-found,import-untyped,unused-ignore] # the same
    options = {
        zstd.CompressionParameter.compression_level: _ZSTD_LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    made: _Compressor = zstd.ZstdCompressor(options=options)
    return made


_BY_SUFFIX: dict[str, Callable[[Callable[[bytes], object]], Stream]] = {
    ".tar": Plain,
    ".gz": Gzip,
    ".tgz": Gzip,
    ".zst": Zstd,
    ".tzst": Zstd,
}


def by_name(name: str) -> Callable[[Callable[[bytes], object]], Stream]:
    """Return what compresses as the file name `name` promises: .tar, .tar.gz, .tgz, .tar.zst; E_PARAM for another."""
    for suffix, kind in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return kind
    detail = "the end of its name says how it is packed: .tar, .tar.gz or .tar.zst"
    raise StoreFailed("E_PARAM", name, detail)
