"""A decoded Packages file and its lookup tables as one memory-mapped file: opened in microseconds, parsed lazily.

    header   magic, sizes of the sections, adler32 of the tables, crc32 of the header
    text     the plain Packages file
    stanzas  u64[n + 1]   where each stanza begins
    names    u64[]        key(package) | stanza, sorted
    provides u64[]        key(virtual) | stanza, sorted
    mentions u64[]        key(name) | order of first mention, sorted
    special  u64[]        stanzas with `Essential: yes`

A key is 40 bits of hash above 24 bits of value. Two names with one key cost a comparison, not a wrong answer: whoever
looks up reads the stanza. The order of mention is that in which apt 3.0 numbers packages (pkgcachegen.cc,
deblistparser.cc): each stanza's own name, then the names in Pre-Depends, Depends, Conflicts, Breaks, Recommends,
Suggests, Replaces, Enhances and Provides.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import adler32, crc32

_MAGIC = b"mktemplate deb index 2\n\x00"
_HEADER = struct.Struct("<24s6QII")
_DRAFT = ".draft-"
_VALUE = (1 << 24) - 1
_FIELDS = tuple(
    b"\n" + name + b": "
    for name in (
        b"Pre-Depends",
        b"Depends",
        b"Conflicts",
        b"Breaks",
        b"Recommends",
        b"Suggests",
        b"Replaces",
        b"Enhances",
        b"Provides",
    )
)
_PROVIDES = _FIELDS[-1]


class Damaged(Exception):
    """The file is not whole; it is to be made again."""


def key(name: bytes) -> int:
    """Return the 40-bit hash of `name`, shifted above a value."""
    return (crc32(name) << 8 | len(name) & 0xFF) << 24


class Flat:
    """The mapped file of one Packages file."""

    def __init__(self, path: Path) -> None:
        """Map `path`; raise FileNotFoundError, or Damaged where it is not what `write` made."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size < _HEADER.size:
                raise Damaged(str(path))
            self._map = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        magic, text, *counts, sum_, check = _HEADER.unpack_from(self._map)
        whole = _HEADER.size + _padded(text) + 8 * sum(counts)
        if magic != _MAGIC or check != crc32(self._map[: _HEADER.size - 4]) or whole != size:
            raise Damaged(str(path))
        tables = memoryview(self._map)[_HEADER.size + _padded(text) :]
        if adler32(tables) != sum_:  # 1 ms; what the text says is checked stanza by stanza
            raise Damaged(str(path))
        words = tables.cast("Q")
        self._stanzas, rest = words[: counts[0]], words[counts[0] :]
        self._names, rest = rest[: counts[1]], rest[counts[1] :]
        self._provides, rest = rest[: counts[2]], rest[counts[2] :]
        self._mentions, rest = rest[: counts[3]], rest[counts[3] :]
        self._special = rest

    def stanza(self, number: int) -> bytes:
        """Return stanza `number`."""
        begin, end = self._stanzas[number], self._stanzas[number + 1]
        text = self._map[_HEADER.size + begin : _HEADER.size + end]
        if not text.startswith(b"Package: "):
            raise Damaged("a stanza is not where it should be")
        return text

    def named(self, name: bytes) -> list[int]:
        """Return the stanzas of the package `name`, and perhaps others."""
        return _values(self._names, name)

    def providing(self, name: bytes) -> list[int]:
        """Return the stanzas that provide `name`, and perhaps others."""
        return _values(self._provides, name)

    def mentioned(self, name: bytes) -> int:
        """Return the order of the first mention of `name`, -1 where there is none."""
        found = _values(self._mentions, name)
        return found[0] if found else -1

    def special(self) -> list[int]:
        """Return the stanzas with `Essential: yes`."""
        return self._special.tolist()

    def every_name(self) -> Iterator[bytes]:
        """Return the name of each stanza. Slow: for error messages and for listing."""
        for begin in self._stanzas[:-1]:
            start = _HEADER.size + begin + 9
            yield self._map[start : self._map.find(b"\n", start)]


def write(path: Path, text: bytes) -> None:
    """Make the file for `text` at `path`: whole or not at all, whoever else makes it meanwhile."""
    _sweep(path.parent)
    text = _package_first(text)
    tables = _tables(text)
    packed = b"".join(table.tobytes() for table in tables)
    head = _HEADER.pack(_MAGIC, len(text), *map(len, tables), adler32(packed), 0)[:-4]
    descriptor, draft = tempfile.mkstemp(prefix=_DRAFT, dir=path.parent)
    try:
        with open(descriptor, "wb") as out:
            out.write(head + crc32(head).to_bytes(4, "little"))
            out.write(text)
            out.write(bytes(_padded(len(text)) - len(text)))
            out.write(packed)
            os.fchmod(out.fileno(), 0o644)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _sweep(folder: Path) -> None:
    """Remove what builders left that were killed more than an hour ago."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_DRAFT):
                with suppress(FileNotFoundError):  # somebody else sweeps too
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > 3600:
                        os.unlink(entry.path)


def _package_first(text: bytes) -> bytes:
    """Return `text` with one blank line between stanzas and Package at the head of each, as Debian has it."""
    stanzas = text.split(b"\n\n")
    if all(stanza.startswith(b"Package: ") for stanza in stanzas[:-1]):
        return text
    moved = []
    for stanza in stanzas:
        before, found, after = (b"\n" + stanza.strip(b"\n")).partition(b"\nPackage: ")
        if found:
            name, _, rest = after.partition(b"\n")
            moved.append(b"Package: " + name + before + (b"\n" + rest if rest else b""))
    return b"\n\n".join(moved) + b"\n"


def _padded(size: int) -> int:
    return (size + 7) & ~7


def _values(table: memoryview[int], name: bytes) -> list[int]:
    wanted = key(name)
    at = bisect_left(table, wanted)
    found = []
    while at < len(table) and table[at] & ~_VALUE == wanted:
        found.append(table[at] & _VALUE)
        at += 1
    return found


def _tables(text: bytes) -> tuple[array[int], ...]:
    """Return stanzas, names, provides, mentions, special."""
    starts, names, special = array("Q"), array("Q"), array("Q")
    provides: list[int] = []
    mentions: dict[bytes, int] = {}
    seen: set[bytes] = set()
    begin = 0
    for number, stanza in enumerate(text.rstrip(b"\n").split(b"\n\n")):
        starts.append(begin)
        begin += len(stanza) + 2
        name = stanza[9 : stanza.find(b"\n")]
        names.append(key(name) | number)
        mentions.setdefault(name, len(mentions))
        if b"\nEssential: yes" in stanza:
            special.append(number)
        for field in _FIELDS:
            at = stanza.find(field)
            if at > 0:
                atoms = _atoms(stanza, at + len(field))
                if field is _PROVIDES:
                    provides.extend(key(_bare(atom)) | number for atom in atoms)
                _mention(mentions, seen, atoms)
    starts.append(len(text))
    mentioned = sorted(key(name) | order for name, order in mentions.items())
    tables = (sorted(names), sorted(set(provides)), mentioned)
    return starts, *(array("Q", table) for table in tables), special


def _mention(mentions: dict[bytes, int], seen: set[bytes], atoms: list[bytes]) -> None:
    """Give the names in `atoms` that were not met before their numbers."""
    if seen.issuperset(atoms):
        return
    for atom in atoms:
        if atom not in seen:
            seen.add(atom)
            for relation in atom.split(b"|"):
                mentions.setdefault(_bare(relation), len(mentions))


def _atoms(stanza: bytes, at: int) -> list[bytes]:
    """Return the comma-separated parts of the field whose value begins at `at`."""
    end = stanza.find(b"\n", at)
    while end >= 0 and stanza[end + 1 : end + 2] in (b" ", b"\t"):  # a continued field
        end = stanza.find(b"\n", end + 1)
    return stanza[at : end if end >= 0 else None].split(b", ")


def _bare(relation: bytes) -> bytes:
    """Return the name in ` name:any (>= 1)` without qualifier."""
    return relation.strip().partition(b" ")[0].partition(b"(")[0].partition(b":")[0]
