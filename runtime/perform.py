"""The Python performer: walks a list of Calls. It imports nothing on the way, as it may have pivoted into a rootfs."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence

from runtime.kernel.libc import NUMBERS, Buffer, address, raw
from runtime.program import Argument, Call, Out, Pointer, Run, Slot, Step, Struct, Text

_Native = int | bytes | Buffer | None
UNEXPECTED = 0  # the errno of a call that succeeded, yet answered what must not be


class Failed(Exception):
    """Step number `index` of the list failed with `number`: errno, UNEXPECTED, or a negated exit status."""

    def __init__(self, index: int, number: int) -> None:
        """Keep the two."""
        super().__init__(index, number)
        self.index = index
        self.number = number


def perform(steps: Sequence[Step], slots: dict[str, int]) -> None:
    """Do `steps` in order; results go to `slots`, which may hold some already. Raises Failed."""
    index = 0
    while index < len(steps):
        call = steps[index]
        if isinstance(call, Run):
            _run(call, slots, index)
            index += 1
            continue
        held: list[bytes] = []  # what structures point to, until the call is made
        native = [_resolve(argument, slots, held) for argument in call.args]
        result = raw(NUMBERS[call.name], *native)
        if result < 0:
            if -result not in call.ignore:
                raise Failed(index, -result)
            if call.result:
                slots[call.result] = -1  # no descriptor: what uses it says EBADF
            index += call.skip
        else:
            _check(call, native, index)
            if call.result:
                slots[call.result] = result
        index += 1


def _run(program: Run, slots: dict[str, int], index: int) -> None:
    streams: list[tuple[int, ...]] = []
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        own = slots[name] if slots[name] >= 0 else slots.get("console", slots["null"])
        streams.append((os.POSIX_SPAWN_DUP2, own, number))
    try:
        child = os.posix_spawn(
            program.argv[0], program.argv, dict(program.environment), file_actions=streams
        )
    except OSError as error:
        raise Failed(index, error.errno or UNEXPECTED) from None
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise Failed(index, -status if status > 0 else status - 128)


def _resolve(argument: Argument, slots: dict[str, int], held: list[bytes]) -> _Native:
    match argument:
        case Slot(name):
            return slots[name]
        case Struct():
            return _packed(argument, slots, held)
        case Text(form, names):
            return (form % tuple(slots[slot.name] for slot in names)).encode() + b"\0"
        case Out(size):
            return Buffer(size)
    return argument


def _packed(made: Struct, slots: dict[str, int], held: list[bytes]) -> bytes:
    return struct.pack(made.layout, *(_value(value, slots, held) for value in made.values))


def _value(value: int | Slot | Pointer, slots: dict[str, int], held: list[bytes]) -> int:
    if isinstance(value, Slot):
        return slots[value.name]
    if isinstance(value, int):
        return value
    data = value.data if isinstance(value.data, bytes) else _packed(value.data, slots, held)
    held.append(data)
    return address(data)


def _check(call: Call, native: list[_Native], index: int) -> None:
    if not call.expect:
        return
    data = next(bytes(item) for item in native if isinstance(item, Buffer))
    for want in call.expect:
        field = data[want.offset : want.offset + want.width]
        if int.from_bytes(field, sys.byteorder) & want.mask != want.value:
            raise Failed(index, UNEXPECTED)
