"""Compressed index files → plain bytes, bounded by the size that the signed Release names.

An .xz of several blocks (https://tukaani.org/xz/xz-file-format.txt) is decoded block by block in two threads: lzma
gives up the interpreter lock, and the file's own SHA256 was checked before, so its CRC64s are not needed.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate
from typing import NamedTuple

from provisioner.errors import UntrustedIndex

_XZ = b"\xfd7zXZ\x00"
_GZIP = b"\x1f\x8b"
_LZMA2 = 0x21
_PIECE = 1 << 20  # bytes


class _Malformed(Exception):
    """The container format is not what we decode in threads, or is broken."""


class _Block(NamedTuple):
    """One block of an .xz file."""

    offset: int
    unpadded: int  # bytes, with its header and its check
    plain: int
    check: int  # bytes


def decode(packed: bytes, limit: int, subject: str) -> bytes:
    """Return the plain bytes of `packed` (.xz, .gz or plain by its first bytes), at most `limit` of them."""
    try:
        plain = _decode(packed, limit)
    except (lzma.LZMAError, zlib.error, EOFError, _Malformed) as error:
        raise UntrustedIndex("E_TRUST_HASH", subject, f"does not decompress: {error}") from error
    if len(plain) > limit:
        raise UntrustedIndex(
            "E_TRUST_SIZE", subject, f"decompresses to more than the {limit} signed bytes"
        )
    return plain


def _decode(packed: bytes, limit: int) -> bytes:
    if packed.startswith(_XZ):
        try:
            blocks = _xz_blocks(packed)
        except _Malformed:
            blocks = []
        if len(blocks) > 1 and 0 < sum(block.plain for block in blocks) <= limit:
            return _in_threads(packed, blocks)
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed, limit + 1)
    if packed.startswith(_GZIP):
        return zlib.decompressobj(31).decompress(packed, limit + 1)
    return packed


def _in_threads(packed: bytes, blocks: Sequence[_Block]) -> bytes:
    """Decode `blocks` into one buffer, each into its place: what is whole is never copied."""
    from concurrent.futures import ThreadPoolExecutor

    ends = tuple(accumulate(block.plain for block in blocks))
    out = BytesIO()
    out.seek(ends[-1] - 1)
    out.write(b"\0")
    with out.getbuffer() as whole, ThreadPoolExecutor(2) as threads:

        def fill(block: _Block, end: int) -> None:
            with whole[end - block.plain : end] as place:
                _xz_block(packed, block, place)

        tuple(threads.map(fill, blocks, ends))
    return out.getvalue()


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at `at` (1.2 of the format) and where it ends."""
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise _Malformed("a bad integer")


def _xz_blocks(packed: bytes) -> list[_Block]:
    """Return each block, from footer and index (2.1.2, 4)."""
    footer = packed[-12:]
    if footer[10:] != b"YZ":
        raise _Malformed("no stream footer")
    check = (0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64)[footer[9] & 0x0F]
    backward = (int.from_bytes(footer[4:8], "little") + 1) * 4
    at = len(packed) - 12 - backward
    if at < 12 or packed[at] != 0:
        raise _Malformed("no index")
    count, at = _number(packed, at + 1)
    blocks = []
    offset = 12
    for _ in range(min(count, 1 << 16)):
        unpadded, at = _number(packed, at)
        plain, at = _number(packed, at)
        blocks.append(_Block(offset, unpadded, plain, check))
        offset += (unpadded + 3) & ~3
    if offset != len(packed) - 12 - backward:
        raise _Malformed("several streams")
    return blocks


def _xz_block(packed: bytes, block: _Block, place: memoryview) -> None:
    """Decode one block of a single LZMA2 filter (3.1, 5.3.1) into `place`, a piece at a time."""
    begin = block.offset
    head = (packed[begin] + 1) * 4
    flags = packed[begin + 1]
    at = begin + 2
    for present in (flags & 0x40, flags & 0x80):  # compressed size, uncompressed size
        if present:
            _, at = _number(packed, at)
    if flags & 0x03 or packed[at : at + 2] != bytes((_LZMA2, 1)):
        raise _Malformed("not a single LZMA2 filter")
    bits = packed[at + 2]
    if bits > 30:  # 1 GiB would be 37; Debian's are 8 to 64 MiB
        raise _Malformed("a dictionary too large")
    size = (2 | (bits & 1)) << (bits // 2 + 11)
    raw = lzma.LZMADecompressor(
        lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": max(size, 4096)}]
    )
    rest = memoryview(packed)[begin + head : begin + block.unpadded - block.check]
    done = 0
    while not raw.eof and (piece := raw.decompress(rest, _PIECE)):
        rest = rest[:0]  # it keeps what it has not used
        if done + len(piece) > block.plain:
            raise _Malformed("a block longer than its index says")
        place[done : done + len(piece)] = piece
        done += len(piece)
    if done != block.plain or not raw.eof:
        raise _Malformed("a block shorter than its index says")
