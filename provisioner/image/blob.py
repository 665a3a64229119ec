"""Bytes of an image where they lie: verified against their digest, decompressed under limits. Runs in the sandbox."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from provisioner.deb import archive
from provisioner.errors import BadArchive, UntrustedIndex
from provisioner.image.config import ImageConfig
from provisioner.image.manifest import Descriptor
from provisioner.inside import write_all
from valuetypes import dataclass

_MAGIC = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ\x00": "xz"}
_SKIPPABLE = (
    b"\x2a\x4d\x18"  # with 0x50…0x5f before it: a zstd frame without content (RFC 8878, 3.1.2)
)
LARGEST = 8 << 30  # bytes of one layer, decompressed
_RATIO = 200  # decompressed to compressed; measured of honest layers: at most 20
_FLOOR = 64 << 20  # bytes that any layer may have
_SECONDS = 600.0  # for one layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of an open file."""

    fd: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One layer, wherever it is; `opened` brings it here."""

    diff_id: str  # sha256:HEX of what it is uncompressed
    digest: str = ""  # sha256:HEX of what it is as it lies there; "" where nobody says it
    opened: Callable[[], AbstractContextManager[Piece]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that was found and understood; its layers are not yet looked into."""

    subject: str  # how messages call it
    digest: str  # of its manifest; "" where it has none
    config: ImageConfig
    layers: tuple[Blob, ...]


def verified(body: bytes, wanted: Descriptor, subject: str) -> bytes:
    """Return `body` if it is what `wanted` says; UntrustedIndex E_TRUST_SIZE, E_TRUST_HASH."""
    if len(body) != wanted.size:
        detail = f"{wanted.digest[:19]}… has {len(body)} bytes, promised are {wanted.size}"
        raise UntrustedIndex("E_TRUST_SIZE", subject, detail)
    found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if found != wanted.digest:
        raise wrong_hash(subject, found, wanted.digest)
    return body


def wrong_hash(subject: str, found: str, wanted: str) -> UntrustedIndex:
    """Return the error for bytes that are not those that were named."""
    detail = f"its SHA-256 is {found[7:23]}…, promised is {wanted[7:23]}…"
    hints = ("the image is damaged, or somebody changed it on its way",)
    return UntrustedIndex("E_TRUST_HASH", subject, detail, hints=hints)


def suffix(piece: Piece) -> str:
    """Return how the piece is compressed: "gz", "zst", "xz", or "" where it is not. Its own first bytes say it."""
    head = os.pread(piece.fd, min(6, piece.size), piece.offset)
    if head[1:4] == _SKIPPABLE and head[0] >> 4 == 5:
        return "zst"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def unfold(piece: Piece, digest: str, out: int, subject: str) -> str:
    """Write what `piece` is uncompressed to the file `out`; return the sha256 of that, as `sha256:HEX`.

    Nothing is decompressed before the piece has its `digest` (I-12). Raises UntrustedIndex E_TRUST_HASH and
    BadArchive E_ARCHIVE_BOMB, _TRUNC, _LIMIT, E_IMAGE_FORMAT.
    """
    if digest:
        whole = hashlib.sha256()
        for data in _read(piece):
            whole.update(data)
        if f"sha256:{whole.hexdigest()}" != digest:
            raise wrong_hash(subject, f"sha256:{whole.hexdigest()}", digest)
    plain = hashlib.sha256()
    for data in _inflated(piece, subject):
        plain.update(data)
        write_all(out, data)
    return f"sha256:{plain.hexdigest()}"


def _read(piece: Piece) -> Iterator[bytes]:
    offset, end = piece.offset, piece.offset + piece.size
    while offset < end:
        data = os.pread(piece.fd, min(archive.CHUNK, end - offset), offset)
        if not data:
            return  # whoever reads it sees that something is missing
        offset += len(data)
        yield data


def _inflated(piece: Piece, subject: str) -> Iterator[bytes]:
    """Yield the bytes that `piece` is compressed from; several streams in a row are one (eStargz, zstd:chunked)."""
    limit = min(LARGEST, _FLOOR + _RATIO * piece.size)
    deadline = time.monotonic() + _SECONDS
    total = 0
    for data in _streams(piece, suffix(piece), subject):
        total += len(data)
        if total > limit:
            raise BadArchive("E_ARCHIVE_BOMB", subject, f"more than {limit} bytes, decompressed")
        if time.monotonic() > deadline:
            raise BadArchive(
                "E_ARCHIVE_LIMIT", subject, f"more than {_SECONDS:.0f} s to decompress"
            )
        yield data


def _streams(piece: Piece, kind: str, subject: str) -> Iterator[bytes]:
    if not kind:
        yield from _read(piece)
        return
    stream = archive.decoder(kind)
    for data in _read(piece):
        if stream.eof:
            stream = archive.decoder(kind)
        rest = data
        while rest or not (stream.eof or stream.needs_input):
            yield _step(stream, rest, subject)
            rest = b""
            if stream.eof and stream.unused_data:
                rest, stream = stream.unused_data, archive.decoder(kind)
    if not stream.eof:
        raise BadArchive("E_ARCHIVE_TRUNC", subject, "the compressed stream has no proper end")


def _step(stream: archive.Decoder, data: bytes, subject: str) -> bytes:
    try:
        return archive.step(stream, data, subject)
    except BadArchive as refused:
        if refused.code != "E_DEB_FORMAT":
            raise
        raise BadArchive("E_IMAGE_FORMAT", subject, refused.detail) from None
