"""A static ELF of code that cannot be written and of data that cannot be executed (elf(5))."""

from __future__ import annotations

import struct

CODE = 0x400000
DATA = 0x500000
PASSING = 0x600000  # data that a program may unmap when it has had its use
ENTRY = CODE + 0x140
_PAGE = 0x1000
_X86_64 = 62
_EXECUTABLE, _LOAD, _STACK = 2, 1, 0x6474E551  # ET_EXEC, PT_LOAD, PT_GNU_STACK
_R, _W, _X = 4, 2, 1
_HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("=IIQQQQQQ")
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little endian, version 1


def executable(code: bytes, data: bytes, passing: bytes) -> bytes:
    """Return the x86-64 program of `code`, which starts at ENTRY, with `data` at DATA, `passing` at PASSING."""
    if ENTRY - CODE + len(code) > _PAGE:
        raise ValueError(f"{len(code)} bytes of code do not fit a page")
    data += bytes(-len(data) % _PAGE)
    segments = (
        _segment(_LOAD, _R | _X, 0, CODE, ENTRY - CODE + len(code)),
        _segment(_LOAD, _R | _W, _PAGE, DATA, len(data)),
        _segment(_LOAD, _R | _W, _PAGE + len(data), PASSING, len(passing)),
        _segment(_STACK, _R | _W, 0, 0, 0),
    )
    header = _HEADER.pack(
        *(_IDENT, _EXECUTABLE, _X86_64, 1, ENTRY, _HEADER.size, 0, 0),
        *(_HEADER.size, _SEGMENT.size, len(segments), 0, 0, 0),
    )
    head = (header + b"".join(segments)).ljust(ENTRY - CODE, b"\0")
    return (head + code).ljust(_PAGE, b"\0") + data + passing


def _segment(kind: int, flags: int, offset: int, address: int, size: int) -> bytes:
    return _SEGMENT.pack(kind, flags, offset, address, address, size, size, _PAGE)
