"""A device policy as a BPF_PROG_TYPE_CGROUP_DEVICE program: what cgroup v2 has instead of devices.allow and .deny.

The kernel hands over struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor (linux/bpf.h); the answer is
1 to allow, 0 to deny.
"""

from __future__ import annotations

import struct

from runtime.limits import Device, DevicePolicy

_ACCESS = {"m": 1, "r": 2, "w": 4}
_KIND = {"b": 1, "c": 2}
# opcodes: class | size or operation | source, linux/bpf_common.h
_LOAD32 = 0x61
_AND32, _RSH32, _MOV32_REG, _MOV64 = 0x54, 0x74, 0xBC, 0xB7
_JUMP_NE32, _JUMP_EQ32 = 0x56, 0x16
_EXIT = 0x95
_RESULT, _CONTEXT, _TYPE, _WANT, _MAJOR, _MINOR, _SCRATCH = 0, 1, 2, 3, 4, 5, 6


def program(policy: DevicePolicy) -> bytes:
    """Return the instructions that decide by `policy`."""
    head = [
        _one(_LOAD32, _TYPE, _CONTEXT, 0),
        _one(_AND32, _TYPE, imm=0xFFFF),
        _one(_LOAD32, _WANT, _CONTEXT, 0),
        _one(_RSH32, _WANT, imm=16),
        _one(_LOAD32, _MAJOR, _CONTEXT, 4),
        _one(_LOAD32, _MINOR, _CONTEXT, 8),
    ]
    body = [part for device in policy.exceptions for part in _exception(device, opened=policy.open)]
    return b"".join((*head, *body, *_answer(allowed=policy.open)))


def _one(code: int, target: int = 0, source: int = 0, offset: int = 0, *, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, imm)


def _answer(*, allowed: bool) -> list[bytes]:
    return [_one(_MOV64, _RESULT, imm=int(allowed)), _one(_EXIT)]


def _exception(device: Device, *, opened: bool) -> list[bytes]:
    """Return the instructions that answer where `device` matches, and fall through where it does not.

    Where all else is open, one forbidden access is enough; where all else is closed, every access asked for
    must be allowed.
    """
    mask = sum(_ACCESS[letter] for letter in device.access)
    tests: list[tuple[int, int, int]] = []  # jump past the answer if: opcode, register, value
    if device.kind in _KIND:
        tests.append((_JUMP_NE32, _TYPE, _KIND[device.kind]))
    tests += [(_JUMP_NE32, _MAJOR, device.major)] if device.major >= 0 else []
    tests += [(_JUMP_NE32, _MINOR, device.minor)] if device.minor >= 0 else []
    access = [
        _one(_MOV32_REG, _SCRATCH, _WANT),
        _one(_AND32, _SCRATCH, imm=mask if opened else ~mask & 7),
    ]
    tail = _answer(allowed=not opened)
    jump = _one(_JUMP_EQ32 if opened else _JUMP_NE32, _SCRATCH, offset=len(tail), imm=0)
    rest = len(access) + 1 + len(tail)
    checks = [
        _one(code, register, offset=rest + len(tests) - number - 1, imm=value)
        for number, (code, register, value) in enumerate(tests)
    ]
    return [*checks, *access, jump, *tail]
