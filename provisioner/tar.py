"""The one reader of tar archives: ustar, GNU long names, PAX; nothing sparse, nothing guessed.

It works on bytes that are wholly there (a memory map of a decompressed archive), so that sizes can be checked
against what exists and no stream can end early unnoticed. It makes values and touches no file system.
Python's `tarfile` is no security boundary (CVE-2025-4517, CVE-2026-11940), and drops what a distribution needs.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from provisioner.errors import BadArchive

BLOCK = 512
MEMBERS = 500_000
PATH = 4_095  # bytes, PATH_MAX without its NUL
NAME = 255  # bytes, NAME_MAX
DEPTH = 256
EXTENSION = 1 << 20  # bytes of one PAX or long-name header

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)
_KINDS = {
    b"\0": FILE,
    b"7": FILE,
    FILE: FILE,
    HARDLINK: HARDLINK,
    SYMLINK: SYMLINK,
    CHARACTER: CHARACTER,
    BLOCKDEV: BLOCKDEV,
    FIFO: FIFO,
    DIRECTORY: DIRECTORY,
}
NODES = {CHARACTER: "character device", BLOCKDEV: "block device", FIFO: "fifo"}
_REFUSED = {**NODES, b"S": "sparse file"}
_ZERO = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s82x155s12x")
_OCTAL = re.compile(rb"[0-7]{1,21}")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
# What nearly every name is, of parts that begin with no dot; 200 bytes hold fewer parts than DEPTH.
_USUAL = re.compile(
    rb"(?=.{1,200}\Z)(?:\./)?((?:[^./\n\0][^/\n\0]*/)*[^./\n\0][^/\n\0]*)(/?)", re.DOTALL
)
_MTIME = re.compile(rb"([0-9]{1,18})(?:\.[0-9]*)?")
_XATTR = b"SCHILY.xattr."


class Member(NamedTuple):
    """One entry; a NamedTuple because thousands are made and each is used once.

    `name` has no leading `./` and no trailing slash; the archive's own top directory is empty.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    offset: int  # of the data, from the start of the archive
    xattrs: tuple[tuple[str, bytes], ...]


class _Raw(NamedTuple):
    """A header as it stands in its block."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes


def members(view: memoryview, subject: str, *, nodes: bool = False) -> Iterator[Member]:
    """Yield the entries of the tar archive `view` in order; devices and fifos only where `nodes` asks for them.

    Raises BadArchive about `subject`: E_ARCHIVE_PATH, _LINK, _TYPE, _TRUNC, _LIMIT or E_DEB_FORMAT.
    """
    offset, count = 0, 0
    extra: dict[bytes, bytes] = {}
    while True:
        block = bytes(view[offset : offset + BLOCK])
        if block == _ZERO:
            return _end(view, offset, subject)
        raw = _header(block, subject)
        offset += BLOCK
        following = offset + (raw.size + BLOCK - 1) // BLOCK * BLOCK
        if raw.kind in b"xLKg":
            if raw.size > EXTENSION:
                raise BadArchive("E_ARCHIVE_LIMIT", subject, f"a header of {raw.size} bytes")
            _need(view, following, subject)
            extra.update(_extension(raw, bytes(view[offset : offset + raw.size]), subject))
        else:
            count += 1
            if count > MEMBERS:
                raise BadArchive("E_ARCHIVE_LIMIT", subject, f"more than {MEMBERS} members")
            member = _member(raw, extra, offset, subject)
            if member.kind in NODES and not nodes:
                raise _of_type(member.kind, member.name, subject)
            following = offset + (member.size + BLOCK - 1) // BLOCK * BLOCK
            _need(view, following, subject)
            yield member
            extra = {}
        offset = following


def _end(view: memoryview, offset: int, subject: str) -> None:
    """Require a second zero block, and nothing but zeros after it (T-25)."""
    rest = view[offset + BLOCK :]
    if len(rest) < BLOCK:
        raise BadArchive("E_ARCHIVE_TRUNC", subject, "no end-of-archive")
    for start in range(0, len(rest), 1 << 20):
        if bytes(rest[start : start + (1 << 20)]).strip(b"\0"):
            raise BadArchive("E_ARCHIVE_TRUNC", subject, "bytes after the end-of-archive")


def _need(view: memoryview, end: int, subject: str) -> None:
    if end > len(view):
        raise BadArchive("E_ARCHIVE_TRUNC", subject, f"ends at {len(view)}, a member at {end}")


def _header(block: bytes, subject: str) -> _Raw:
    """Return the fields of one header block whose checksum is right."""
    if len(block) < BLOCK:
        raise BadArchive("E_ARCHIVE_TRUNC", subject, "no end-of-archive")
    name, *fields, kind, link, magic, prefix = _HEADER.unpack(block)
    try:
        mode, uid, gid, size, mtime, checksum = map(_number, fields)
    except ValueError as bad:
        raise BadArchive("E_DEB_FORMAT", subject, f"{bad} is no number of a tar header") from None
    # The sum counts its own field as eight blanks. Adler-32's lower half is one more than the sum of all bytes, modulo
    # 65521 (RFC 1950, 8.2), in a tenth of the time.
    if (checksum + sum(fields[5]) - 8 * 0x20 + 1 - (zlib.adler32(block) & 0xFFFF)) % 65521:
        raise BadArchive("E_DEB_FORMAT", subject, "a tar header has a wrong checksum")
    name = name.split(b"\0", 1)[0]
    # GNU's own format ("ustar  ") has other things where ustar has the prefix.
    if magic == b"ustar\0" and prefix[0]:
        name = prefix.split(b"\0", 1)[0] + b"/" + name
    return _Raw(name, kind, mode & 0o7777, uid, gid, size, mtime, link.split(b"\0", 1)[0])


@lru_cache(maxsize=1024)
def _number(field: bytes) -> int:
    """Return the value of a numeric field: octal, or base 256 where GNU tar needed more digits.

    Modes, owners and times are the same in most members.
    """
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not text:
        return 0
    if not _OCTAL.fullmatch(text):
        raise ValueError(repr(field))
    return int(text, 8)


def _extension(raw: _Raw, data: bytes, subject: str) -> dict[bytes, bytes]:
    """Return what an extension header says of the next member, under PAX's names."""
    if raw.kind == b"L":
        return {b"path": data.rstrip(b"\0")}
    if raw.kind == b"K":
        return {b"linkpath": data.rstrip(b"\0")}
    found: dict[bytes, bytes] = {}
    while data:
        length, _, _ = data.partition(b" ")
        size = int(length) if _DECIMAL.fullmatch(length) else 0
        record, data = data[:size], data[size:]
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if size <= len(length) or not equals or not value.endswith(b"\n"):
            raise BadArchive("E_DEB_FORMAT", subject, "a PAX header is malformed")
        if key.startswith(b"GNU.sparse"):
            raise BadArchive("E_ARCHIVE_TYPE", subject, f"{raw.name!r} is a sparse file")
        found[key] = value[:-1]
    if raw.kind != b"g":
        return found
    if found.keys() != {
        b"comment"
    }:  # where git names the commit; all else would change every member
        raise BadArchive("E_ARCHIVE_TYPE", subject, "a global PAX header")
    return {}


def _member(raw: _Raw, extra: dict[bytes, bytes], offset: int, subject: str) -> Member:
    """Return the entry that `raw` and the extension headers before it describe."""
    name = extra.get(b"path", raw.name)
    kind = _KINDS.get(raw.kind)
    if kind is None:
        raise _of_type(raw.kind, name, subject)
    clean = clean_name(name, subject, directory=kind == DIRECTORY)
    link = extra.get(b"linkpath", raw.link)
    if len(link) > PATH or b"\0" in link or (kind == SYMLINK and not link):
        raise BadArchive("E_ARCHIVE_LINK", subject, f'"{printable(name)}": bad link target')
    if not extra:
        size = raw.size if kind == FILE else 0
        return Member(clean, kind, raw.mode, raw.uid, raw.gid, size, raw.mtime, link, offset, ())
    size, uid, gid = (_pax(extra, key, raw, subject) for key in ("size", "uid", "gid"))
    mtime = _MTIME.fullmatch(extra.get(b"mtime", b""))
    xattrs = tuple(
        (key[len(_XATTR) :].decode("utf-8", "surrogateescape"), value)
        for key, value in extra.items()
        if key.startswith(_XATTR)
    )
    seconds = int(mtime.group(1)) if mtime else raw.mtime
    size = size if kind == FILE else 0
    return Member(clean, kind, raw.mode, uid, gid, size, seconds, link, offset, xattrs)


def _of_type(kind: bytes, name: bytes, subject: str) -> BadArchive:
    what = _REFUSED.get(kind, f"member of type {kind!r}")
    return BadArchive("E_ARCHIVE_TYPE", subject, f'"{printable(name)}" is a {what}')


def _pax(extra: dict[bytes, bytes], key: str, raw: _Raw, subject: str) -> int:
    """Return the number `key`; where PAX and ustar differ, PAX is right (CVE-2025-62518)."""
    value = extra.get(key.encode())
    if value is None:
        number: int = getattr(raw, key)
        return number
    if not _DECIMAL.fullmatch(value):
        raise BadArchive("E_DEB_FORMAT", subject, f"PAX {key} {value!r} is no number")
    return int(value)


def clean_name(name: bytes, subject: str, *, directory: bool = False) -> bytes:
    """Return `name` relative to the archive's top, refusing what is no place below it (T-20)."""
    usual = _USUAL.fullmatch(name)
    if usual and (directory or not usual[2]):
        return usual[1]
    clean = name.rstrip(b"/") if directory else name
    clean = clean.removeprefix(b"./")
    if directory and clean in (b"", b".") and name[:1] == b".":
        return b""
    parts = clean.split(b"/")
    kept = [part for part in parts if part not in (b"", b".")]
    if not (parts[0] and parts[-1] and kept) or b".." in parts or {0, 10} & set(name):
        raise BadArchive(
            "E_ARCHIVE_PATH", subject, f'"{printable(name)}" is no path below the root'
        )
    if len(clean) > PATH or len(kept) > DEPTH or max(map(len, kept)) > NAME:
        shown = printable(name[:80])
        raise BadArchive("E_ARCHIVE_LIMIT", subject, f'"{shown}" is too deep or too long')
    return b"/".join(kept)


def printable(name: bytes) -> str:
    r"""Return `name` for a person, foreign bytes as \xNN (I-22)."""
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in name)
