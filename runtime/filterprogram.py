"""Verdicts on system calls → classic BPF for seccomp(2): an array of struct sock_filter (linux/filter.h).

The program checks the machine, finds the number by bisection, and tests arguments where a verdict depends on
them. Jumps go forward only; one that is longer than a byte can say goes over an unconditional jump.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from runtime.errors import HostError

ALLOW = 0x7FFF0000
KILL_THREAD, KILL_PROCESS = 0x00000000, 0x80000000
TRAP = 0x00030000
AUDIT_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h

_X32_BIT = 0x40000000  # numbers from here on are x32's, under the same AUDIT_ARCH
_ENOSYS = 38
_LOAD, _AND, _JUMP, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
_MOST = 4096  # BPF_MAXINSNS

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def errno_action(number: int) -> int:
    """Return SECCOMP_RET_ERRNO with `number`."""
    return 0x00050000 | number


class Test(NamedTuple):
    """A comparison of an argument, all 64 bits of it: NE LT LE EQ GE GT, MASKED_EQ."""

    argument: int
    op: str
    value: int
    mask: int = 2**64 - 1


class Verdict(NamedTuple):
    """`action` where all `tests` hold."""

    action: int
    tests: tuple[Test, ...] = ()


def assemble(
    machine: str, verdicts: Mapping[int, Sequence[Verdict]], default: int, newest: int
) -> bytes:
    """Return the program; HostError (E_SECCOMP) where it is longer than the kernel takes."""
    unknown = errno_action(_ENOSYS) if default & 0xFFFF0000 == errno_action(0) else default
    leaves = _leaves(verdicts, default, unknown, newest)
    search = _bisect(leaves)
    foreign: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, AUDIT_ARCHES[machine]),
        (_RET, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
    ]
    if machine == "x86_64":
        foreign += [
            (_JGE, 0, 3, _X32_BIT),
            (_JEQ, 0, 1, 0xFFFFFFFF),  # what a tracer leaves of a call that it has undone
            (_RET, 0, 0, errno_action(_ENOSYS)),
            (_RET, 0, 0, KILL_PROCESS),
        ]
    program = [*foreign, *search]
    if len(program) > _MOST:
        raise HostError(
            "E_SECCOMP", "profile", f"needs {len(program)} instructions, the kernel takes {_MOST}"
        )
    return b"".join(
        struct.pack("=HBBI", code, yes, no, constant) for code, yes, no, constant in program
    )


def _leaves(
    verdicts: Mapping[int, Sequence[Verdict]], default: int, unknown: int, newest: int
) -> list[tuple[int, list[Instruction]]]:
    """Return (first number, what to do from there on), neighbours with one answer taken together."""
    leaves: list[tuple[int, list[Instruction]]] = []
    for number in range(max((newest, *verdicts)) + 2):
        usual = default if number <= newest else unknown
        body = _decide(verdicts.get(number, ()), usual)
        if not leaves or leaves[-1][1] != body:
            leaves.append((number, body))
    return leaves


def _decide(verdicts: Sequence[Verdict], default: int) -> list[Instruction]:
    """Return the instructions for one system call: a verdict without tests outweighs those with."""
    final = next((verdict.action for verdict in verdicts if not verdict.tests), None)
    if final is not None:
        return [(_RET, 0, 0, final)]
    body: list[Instruction] = []
    for verdict in verdicts:
        body += _conditional(verdict)
    return [*body, (_RET, 0, 0, default)]


def _conditional(verdict: Verdict) -> list[Instruction]:
    """Return tests one after the other; each jumps past the answer when it fails."""
    after: list[Instruction] = [(_RET, 0, 0, verdict.action)]
    for test in reversed(verdict.tests):
        after = [*_compare(test, len(after)), *after]
    return after


def _compare(test: Test, distance: int) -> list[Instruction]:
    """Return a comparison that falls through where it holds and jumps `distance` past its end where not.

    BPF compares 32 bits: high halves decide, low ones where they are equal.
    """
    low_at = _ARGS + 8 * test.argument
    value_high, value_low = test.value >> 32, test.value & 0xFFFFFFFF
    if test.op == "MASKED_EQ":
        return _masked(test, low_at, distance)
    if test.op in {"EQ", "NE"}:
        held, failed = (0, distance) if test.op == "EQ" else (distance, 0)
        unequal_high = distance + 2 if test.op == "EQ" else 2
        return [
            (_LOAD, 0, 0, low_at + 4),
            (_JEQ, 0, unequal_high, value_high),
            (_LOAD, 0, 0, low_at),
            (_JEQ, held, failed, value_low),
        ]
    # GT and GE hold where the high half is above; LE and LT are their opposites
    upward = test.op in {"GT", "GE"}
    code = _JGT if test.op in {"GT", "LE"} else _JGE
    above, below = (3, distance + 2) if upward else (distance + 3, 2)
    held, failed = (0, distance) if upward else (distance, 0)
    return [
        (_LOAD, 0, 0, low_at + 4),
        (_JGT, above, 0, value_high),
        (_JEQ, 0, below, value_high),
        (_LOAD, 0, 0, low_at),
        (code, held, failed, value_low),
    ]


def _masked(test: Test, low_at: int, distance: int) -> list[Instruction]:
    """Return (argument & mask) == value, leaving out halves that the mask does not see."""
    body: list[Instruction] = []
    for offset, shift in ((low_at, 0), (low_at + 4, 32)):
        mask, value = test.mask >> shift & 0xFFFFFFFF, test.value >> shift & 0xFFFFFFFF
        if not mask and not value:
            continue
        half: list[Instruction] = [(_LOAD, 0, 0, offset)]
        half += [(_AND, 0, 0, mask)] if mask != 0xFFFFFFFF else []
        body = [*half, (_JEQ, 0, distance + len(body), value), *body]
    return body


def _bisect(leaves: Sequence[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Return a binary search for the last leaf that begins at or below the number."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    low, high = _bisect(leaves[:middle]), _bisect(leaves[middle:])
    first = leaves[middle][0]
    if len(low) <= 255:
        return [(_JGE, len(low), 0, first), *low, *high]
    return [(_JGE, 0, 1, first), (_JUMP, 0, 0, len(low)), *low, *high]
