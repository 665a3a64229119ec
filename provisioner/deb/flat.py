"""A decoded Packages file and its lookup tables as one memory-mapped file: opened in microseconds, parsed lazily.

    header   magic, sizes of the sections, adler32 of the tables, crc32 of the header
    text     the plain Packages file
    stanzas  u64[n + 1]   where each stanza begins
    names    u64[]        key(package) | stanza, sorted
    provides u64[]        key(virtual) | stanza, sorted
    special  u64[]        stanzas with `Essential: yes`
    orders   u64[]        the first mention of each of these

A key is 40 bits of hash above 24 bits of value. Two names with one key cost a comparison, not a wrong answer: whoever
looks up reads the stanza.

The order in which names are first mentioned breaks a few ties in a whole plan. It is searched for when one is met (1 to
20 ms a name), not kept: to number all of them took as long as everything else together.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from zlib import adler32, crc32

from provisioner.apart import apart

_MAGIC = b"mktemplate deb index 4\n\x00"
_HEADER = struct.Struct("<24s6QII")
_DRAFT = ".draft-"
_VALUE = (1 << 24) - 1
# The order in which apt 3.0 numbers the names that a stanza mentions, after its own (pkgcachegen.cc, deblistparser.cc).
_FIELDS = {
    name: number
    for number, name in enumerate(
        (
            b"Package",
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
}
_BEFORE, _AFTER = frozenset(b" \t,|"), frozenset(b" \t,|(:\n")
_STANZA = re.compile(rb"\n\n(?:Package: (.*))?")
_BARE = re.compile(rb"(?:\A|[,|])\s*([^\s,|(:]+)")


def place(lists: Path, sha256: str) -> Path:
    """Return where the file for the compressed Packages file of that hash lies."""
    return lists / f"{sha256}.index"


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
        self._special, self._orders = rest[: counts[3]], rest[counts[3] :]

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
        """Return a number that grows with the first mention of `name` in apt's order, -1 where there is none."""
        own = [number for number in self.named(name) if self._name(number) == name]
        if own and own[0] in self._special:
            return self._orders[self._special.tolist().index(own[0])]
        return _mention(self._map, _HEADER.size, self._stanzas, name, own)

    def _name(self, number: int) -> bytes:
        begin = _HEADER.size + self._stanzas[number] + 9
        return self._map[begin : self._map.find(b"\n", begin)]

    def special(self) -> list[int]:
        """Return the stanzas with `Essential: yes`."""
        return self._special.tolist()

    def every_name(self) -> Iterable[bytes]:
        """Return the name of each stanza. Slow: for error messages and for listing."""
        return map(self._name, range(len(self._stanzas) - 1))


def write(path: Path, text: bytes, check: Callable[[], None] = lambda: None) -> None:
    """Make the file for `text` at `path`: whole or not at all, whoever else makes it meanwhile.

    `check` raises where `text` is not what it should be; hashing and writing need no interpreter, so a thread does both
    while the tables are made.
    """
    from concurrent.futures import ThreadPoolExecutor

    _sweep(path.parent)
    text, starts, names = _in_order(text)
    descriptor, draft = tempfile.mkstemp(prefix=_DRAFT, dir=path.parent)
    try:
        with (
            apart(lambda: _provides(text, starts)) as provided,  # before there are threads
            open(descriptor, "wb") as out,
            ThreadPoolExecutor(1) as beside,
        ):
            checked = beside.submit(check)
            beside.submit(_put, out, text)
            named, special, orders = _tables(text, starts, names)
            tables = (starts, named, array("Q", provided()), special, orders)
            packed = b"".join(table.tobytes() for table in tables)
            head = _HEADER.pack(_MAGIC, len(text), *map(len, tables), adler32(packed), 0)[:-4]
            checked.result()
            beside.submit(_finish, out, head + crc32(head).to_bytes(4, "little"), packed).result()
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _mention(
    text: bytes | mmap.mmap, zero: int, starts: Sequence[int], name: bytes, own: Sequence[int]
) -> int:
    """Return the order of the first mention of `name` in `text`, whose stanzas begin at `zero` + `starts`."""
    at, end = zero, zero + starts[own[0] if own else -1]
    found: list[int] = []
    while (at := text.find(name, at, end)) >= 0:
        field = _field(text, at, len(name))
        if field:
            number = bisect_right(starts, at - zero) - 1
            found.append(number << 40 | field << 36 | at - zero)
            end = zero + starts[number + 1]  # another field may come first
        at += len(name)
    return min(found) if found else own[0] << 40 if own else -1


def _field(text: bytes | mmap.mmap, at: int, size: int) -> int:
    """Return the number of the field that mentions the name at `at`; 0 where that is no mention."""
    if text[at - 1] not in _BEFORE or text[at + size] not in _AFTER:
        return 0
    begin = text.rfind(b"\n", 0, at) + 1
    while text[begin] in b" \t":  # a continued field
        begin = text.rfind(b"\n", 0, begin - 1) + 1
    field, _, before = text[begin:at].partition(b":")
    return _FIELDS.get(field, 0) if before.rstrip()[-1:] in (b"", b",", b"|") else 0


def _put(out: BinaryIO, text: bytes) -> None:
    out.write(bytes(_HEADER.size))
    out.write(text)
    out.write(bytes(_padded(len(text)) - len(text)))


def _finish(out: BinaryIO, head: bytes, tables: bytes) -> None:
    out.write(tables)
    out.seek(0)
    out.write(head)
    os.fchmod(out.fileno(), 0o644)


def _sweep(folder: Path) -> None:
    """Remove what builders left that were killed more than an hour ago."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_DRAFT):
                with suppress(FileNotFoundError):  # somebody else sweeps too
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > 3600:
                        os.unlink(entry.path)


def _in_order(text: bytes) -> tuple[bytes, array[int], list[bytes]]:
    """Return `text` as Debian has it, one blank line between stanzas and Package at the head of each, and both."""
    starts, names = _stanzas(text)
    if b"" not in names:
        return text, starts, names
    moved = []
    for stanza in text.split(b"\n\n"):
        before, found, after = (b"\n" + stanza.strip(b"\n")).partition(b"\nPackage: ")
        if found:
            name, _, rest = after.partition(b"\n")
            moved.append(b"Package: " + name + before + (b"\n" + rest if rest else b""))
    text = b"\n\n".join(moved) + b"\n"
    return (text, *(_stanzas(text) if moved else (array("Q"), [])))


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


def _stanzas(text: bytes) -> tuple[array[int], list[bytes]]:
    """Return where stanzas begin, and the package of each: nothing for one that does not begin with it."""
    begins, names = [0], [text[9 : text.find(b"\n")] if text.startswith(b"Package: ") else b""]
    for found in _STANZA.finditer(text, 0, max(len(text) - 1, 0)):
        begins.append(found.start() + 2)
        names.append(found[1] or b"")
    return array("Q", begins), names


def _tables(
    text: bytes, starts: array[int], names: Sequence[bytes]
) -> tuple[array[int], array[int], array[int]]:
    """Return names, special, orders; the end of the last stanza is added to `starts`."""
    named = sorted([key(name) | number for number, name in enumerate(names)])
    special = [bisect_right(starts, at) - 1 for at in _places(text, b"\nEssential: yes\n")]
    starts.append(len(text))
    orders = [_mention(text, 0, starts, names[number], (number,)) for number in special]
    return array("Q", named), array("Q", special), array("Q", orders)


def _provides(text: bytes, starts: Sequence[int]) -> bytes:
    """Return the table of what is provided, packed; it takes as long as all others together."""
    found: set[int] = set()
    for at in _places(text, b"\nProvides: "):
        number = bisect_right(starts, at) - 1
        found.update([key(name) | number for name in _BARE.findall(_value(text, at + 11))])
    return array("Q", sorted(found)).tobytes()


def _places(text: bytes, word: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def _value(text: bytes, at: int) -> bytes:
    """Return the value that begins at `at`, with its continued lines."""
    end = text.find(b"\n", at)
    while end >= 0 and text[end + 1 : end + 2] in (b" ", b"\t"):
        end = text.find(b"\n", end + 1)
    return text[at : end if end >= 0 else None]
