"""Calls as the records that the start program's interpreter walks, and the data that they point to.

A Call becomes what prepares its memory, the call itself, and what looks at the answer. Beside calls there are the
interpreter's own operations (ADD … FIND; what they do stands in performer/x86_64.S), with which startprogram.py
writes what is not a list: forks, waiting, the words of a failure.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.elf import DATA, PASSING
from runtime.kernel.syscall_names import numbers
from runtime.program import Argument, Call, Expect, Out, Pointer, Slot, Step, Struct, Text
from valuetypes import dataclass, field

ADD, BRANCH, CLEAR, STORE, LOAD, EXPECT, TEXT, FIELD, CUT, FIND = range(0x1000, 0x100A)
NOWHERE, START, HANDLER, FAILED, ERRNO, STACK, RECORD = (
    "",
    "(start)",
    "(handler)",
    "(failed)",
    "(errno)",
    "(stack)",
    "(record)",
)
_FIXED = (NOWHERE, START, HANDLER, FAILED, ERRNO, STACK, RECORD)
_SLOTS, _SCRATCH, _POOL = DATA, DATA + 0x400, DATA + 0x800
_MAX_SLOTS = (_SCRATCH - _SLOTS) // 8
_RECORD = struct.Struct("=HHHHBB6s6Q")
_NUMBERS = numbers("x86_64")
_ANY = (0xFF,)  # as the only errno to ignore: all of them
_WORD = (1 << 64) - 1
_MAX_SKIP = 0xFFFF
_MAX_IGNORED, _MAX_TEXT = 6, 4
_DIGITS = 20  # of 2**64


@dataclass(frozen=True, slots=True)
class Label:
    """The address of the record that `mark` named so."""

    name: str


Value = int | Slot | Label


@dataclass(slots=True, kw_only=True)
class Record:
    """One record; a call where `operation` is below ADD."""

    operation: int
    values: tuple[Value, ...]
    result: str = NOWHERE
    skip: int = 0
    number: int = 0
    ignore: tuple[int, ...] = ()
    width: int = 0


@dataclass(slots=True)
class _Scratch:
    """Memory that a call needs no longer than it takes: of the common one, else of its own."""

    table: Table
    used: int = 0

    def take(self, size: int) -> int:
        start, self.used = self.used, self.used + size
        if self.used > _POOL - _SCRATCH:
            return self.table.room(size)
        return _SCRATCH + start


@dataclass(slots=True)
class _Part:
    """Constants, and behind them records, from the address `base`."""

    base: int
    pool: bytearray = field(default_factory=bytearray)
    placed: dict[bytes, int] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def append(self, data: bytes) -> int:
        self.pool += bytes(-len(self.pool) % 8)
        start = len(self.pool)
        self.pool += data
        return self.base + start

    @property
    def first(self) -> int:
        """The address of its first record, once no constant is to come."""
        return self.base + len(self.pool) + -len(self.pool) % _RECORD.size


class Table:
    """Records and data under construction; `numbered` holds each Call.

    The failure of the n-th Call reports 2 n, its unexpected answer 2 n + 1, or what `reported` has at these places.
    """

    def __init__(self) -> None:
        """Begin with nothing in it."""
        self.numbered: list[Call] = []
        self.reported: list[int] = []  # what to report instead of a number
        self._slots = {name: number for number, name in enumerate(_FIXED)}
        self._kept = _Part(_POOL)
        self._passing = self._part = _Part(PASSING)
        self._labels: dict[str, tuple[_Part, int]] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let what is appended in this block be part of what the program never unmaps."""
        before, self._part = self._part, self._kept
        try:
            yield
        finally:
            self._part = before

    def place(self, data: bytes) -> int:
        """Return the address of a constant."""
        placed = self._part.placed
        if data not in placed:
            placed[data] = self._part.append(data)
        return placed[data]

    def room(self, size: int) -> int:
        """Return the address of `size` zeroed bytes of one's own."""
        return self._part.append(bytes(size))

    def slot(self, name: str) -> int:
        """Return the number of slot `name`, a new one where there is none yet."""
        number = self._slots.setdefault(name, len(self._slots))
        if number >= _MAX_SLOTS:
            raise ValueError(f"more than {_MAX_SLOTS} slots")
        return number

    def address(self, slot: str) -> int:
        """Return where the value of slot `slot` lies."""
        return _SLOTS + 8 * self.slot(slot)

    def mark(self, name: str) -> None:
        """Let Label(`name`) be the next record."""
        if name in self._labels:
            raise ValueError(f"label {name} is there twice")
        self._labels[name] = (self._part, len(self._part.records))

    def do(
        self, operation: int | str, *values: Value, result: str = NOWHERE, width: int = 8
    ) -> None:
        """Append an operation of the interpreter, or by its name a call whose result is -1 when it fails."""
        number = _NUMBERS[operation] if isinstance(operation, str) else operation
        self.slot(result)
        self._part.records.append(
            Record(operation=number, values=values, result=result, width=width, ignore=_ANY)
        )

    def calls(self, steps: Sequence[Step]) -> None:
        """Append `steps`, as `perform` does them. ValueError where one runs a program: that is Python's."""
        calls = [step for step in steps if isinstance(step, Call)]
        if len(calls) != len(steps):
            raise ValueError("only Python runs programs on the way")
        compiled = [self._call(call) for call in calls]
        for index, (call, (before, record, after)) in enumerate(zip(calls, compiled, strict=True)):
            left_out = compiled[index + 1 : index + 1 + call.skip]
            record.skip = len(after) + sum(len(b) + 1 + len(a) for b, _, a in left_out)
            self._part.records += (*before, record, *after)

    def _call(self, call: Call) -> tuple[list[Record], Record, list[Record]]:
        number = 2 * len(self.numbered)
        self.numbered.append(call)
        scratch = _Scratch(self)
        before: list[Record] = []
        values = tuple(self._argument(argument, scratch, before) for argument in call.args)
        after: list[Record] = []
        if call.expect:
            if not (outs := _outs(call, values)):
                raise ValueError(f"{call.name}: expects an answer, but has no Out")
            out, size = outs[0]
            before.append(Record(operation=CLEAR, values=(out, size)))
            after = [_expect(want, out, size, number + 1) for want in call.expect]
        self.slot(call.result)
        return (
            before,
            Record(
                operation=_NUMBERS[call.name],
                values=values,
                result=call.result,
                number=number,
                ignore=_ignored(call),
            ),
            after,
        )

    def _argument(self, argument: Argument, scratch: _Scratch, before: list[Record]) -> Value:
        """Return what stands in the record; what makes its memory when the time comes goes to `before`."""
        match argument:
            case bytes():
                return self.place(argument)
            case Slot(name):
                self._known(name)
                return argument
            case Struct(layout, values):
                return self._struct(layout, values, before)
            case Text(form, names):
                start = scratch.take(len(form.encode()) + _DIGITS * len(names) + 1)
                before.append(self._text(form, names, start))
                return start
            case Out(size):
                return scratch.take(size)
        return argument or 0

    def _known(self, name: str) -> None:
        if name not in self._slots:
            raise ValueError(f"nothing is ever put into slot {name}")

    def _struct(
        self, layout: str, values: tuple[int | Slot | Pointer, ...], before: list[Record]
    ) -> int:
        places = _places(layout)
        fixed = [self._fixed(value, before) for value in values]
        data = struct.pack(layout, *fixed)
        changing = [
            (place, value)
            for place, value in zip(places, values, strict=True)
            if isinstance(value, Slot)
        ]
        if not changing:
            return self.place(data)
        start = self._part.append(data)
        for (offset, width), slot in changing:
            self._known(slot.name)
            before.append(Record(operation=STORE, values=(start + offset, slot), width=width))
        return start

    def _fixed(self, value: int | Slot | Pointer, before: list[Record]) -> int:
        """Return what stands in a structure before the call is made: nothing yet where it is a result."""
        if isinstance(value, Slot):
            return 0
        if isinstance(value, int):
            return value
        if isinstance(value.data, bytes):
            return self.place(value.data)
        return self._struct(value.data.layout, value.data.values, before)

    def _text(self, form: str, names: tuple[Slot, ...], start: int) -> Record:
        for slot in names:
            self._known(slot.name)
        if len(names) > _MAX_TEXT or len(names) != form.replace("%%", "").count("%"):
            raise ValueError(f"{form!r}: {len(names)} slots")
        return Record(operation=TEXT, values=(start, self.place(pattern(form)), *names))

    def data(self) -> tuple[bytes, bytes]:
        """Return the two data segments: slots, scratch memory and what is kept, and what passes."""
        where = {
            name: part.first + _RECORD.size * index for name, (part, index) in self._labels.items()
        }
        slots = [_WORD] * _MAX_SLOTS  # no descriptor, no process
        slots[self._slots[START]] = where.get(START, self._passing.first)
        slots[self._slots[HANDLER]] = where[HANDLER]
        head = struct.pack(f"={_MAX_SLOTS}Q", *slots) + bytes(_POOL - _SCRATCH)
        return head + self._bytes(self._kept, where), self._bytes(self._passing, where)

    def _bytes(self, part: _Part, where: dict[str, int]) -> bytes:
        pool = bytes(part.pool).ljust(part.first - part.base, b"\0")
        return pool + b"".join(self._encode(record, where) for record in part.records)

    def _encode(self, record: Record, where: dict[str, int]) -> bytes:
        mask, values = 0, [0] * 6
        for index, value in enumerate(record.values):
            if isinstance(value, Slot):
                mask |= 1 << index
                values[index] = self._slots[value.name]
            else:
                values[index] = (where[value.name] if isinstance(value, Label) else value) & _WORD
        number = self.reported[record.number] if self.reported else record.number
        return _RECORD.pack(
            *(record.operation, self._slots[record.result], record.skip, number),
            *(mask, record.width, bytes(record.ignore), *values),
        )


def pattern(form: str) -> bytes:
    """Return what TEXT reads: `form` with 1 for each `%d` and 2 for each `%s`."""
    parts = re.split("(%[%ds])", form)
    if any(("%" in part) or re.search("[\0-\2]", part) for part in parts[::2]):
        raise ValueError(f"{form!r}: only %d and %s are known, and bytes above 2")
    parts[1::2] = [{"%d": "\1", "%s": "\2", "%%": "%"}[part] for part in parts[1::2]]
    return "".join(parts).encode() + b"\0"


def _ignored(call: Call) -> tuple[int, ...]:
    """Return the errnos to ignore as a record holds them."""
    if set(errno.errorcode) <= set(call.ignore):
        return _ANY
    if len(call.ignore) > _MAX_IGNORED:
        raise ValueError(f"{call.name}: ignores more than {_MAX_IGNORED} errnos, but not all")
    return call.ignore


def _outs(call: Call, values: tuple[Value, ...]) -> list[tuple[int, int]]:
    """Return address and size of each Out of a call."""
    return [
        (value, argument.size)
        for argument, value in zip(call.args, values, strict=True)
        if isinstance(argument, Out) and isinstance(value, int)
    ]


def _expect(want: Expect, out: int, size: int, number: int) -> Record:
    """Return the record that looks at `want.width` bytes of the Out at `out`."""
    if not 1 <= want.width <= 8 or want.offset + want.width > size:
        raise ValueError(f"{want} does not lie within {size} bytes")
    mask = want.mask & ((1 << 8 * want.width) - 1)
    return Record(
        operation=EXPECT,
        values=(out + want.offset, 0, mask, want.value),
        number=number,
        width=want.width,
    )


def _places(layout: str) -> list[tuple[int, int]]:
    """Return offset and width of each value of a `struct` format: whole numbers and pointers only."""
    if not re.fullmatch(r"[=<@]?(\d*[bBhHiIlLqQP])+", layout):
        raise ValueError(f"{layout!r}: only whole numbers and pointers are known")
    order, before = layout[0] if layout[0] in "=<" else "@", ""
    places = []
    for count, kind in re.findall(r"(\d*)([a-zA-Z])", layout):
        width = struct.calcsize(order + kind)
        for _ in range(int(count or 1)):
            before += kind
            places.append((struct.calcsize(order + before) - width, width))
    return places
