"""A Program as text, in strace's notation with the reasons beside it: what `start --print` prints."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping

from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.program import Argument, Call, Out, Pointer, Program, Slot, Step, Struct, Text

_TITLES = (
    ("stage", "on the host's side, until init is cloned"),
    ("host", "on the host's side, for init"),
    ("init", "inside"),
)


def _names(module: object, prefix: str) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(module).items()
        if name.startswith(prefix) and isinstance(value, int) and value
    }


_OPEN = {
    getattr(os, name): name
    for name in (
        "O_PATH",
        "O_DIRECTORY",
        "O_CLOEXEC",
        "O_NOFOLLOW",
        "O_NONBLOCK",
        "O_WRONLY",
        "O_RDWR",
        "O_CREAT",
    )
}
_ATTRIBUTES = _names(m, "MOUNT_ATTR_")
_PROPAGATION = _names(m, "MS_")
_RESOLVE = _names(m, "RESOLVE_")
_CLONE = _names(ns, "CLONE_")
_AT = {m.AT_EMPTY_PATH: "AT_EMPTY_PATH", m.AT_RECURSIVE: "AT_RECURSIVE"}
_TREE = {
    **_AT,
    m.OPEN_TREE_CLONE: "OPEN_TREE_CLONE",
    os.O_CLOEXEC: "OPEN_TREE_CLOEXEC",
    m.AT_SYMLINK_NOFOLLOW: "AT_SYMLINK_NOFOLLOW",
}
_MOVE = {
    m.MOVE_MOUNT_F_EMPTY_PATH: "MOVE_MOUNT_F_EMPTY_PATH",
    m.MOVE_MOUNT_T_EMPTY_PATH: "MOVE_MOUNT_T_EMPTY_PATH",
}
_FSCONFIG = {0: "FSCONFIG_SET_FLAG", 1: "FSCONFIG_SET_STRING", 6: "FSCONFIG_CMD_CREATE"}
_PRCTL = _names(process, "PR_")
_MANY = 8  # members of a structure: no more of them are shown where the rest is zeros

# call: {argument's index: names of its bits}
_BITS: dict[str, dict[int, Mapping[int, str]]] = {
    "clone": {0: _CLONE},
    "unshare": {0: _CLONE},
    "setns": {1: _CLONE},
    "openat": {2: _OPEN},
    "open_tree": {2: _TREE},
    "move_mount": {4: _MOVE},
    "mount_setattr": {2: _AT},
    "fsmount": {2: _ATTRIBUTES},
    "umount2": {1: {m.MNT_DETACH: "MNT_DETACH"}},
    "dup3": {2: {os.O_CLOEXEC: "O_CLOEXEC"}},
    "close_range": {2: {process.CLOSE_RANGE_CLOEXEC: "CLOSE_RANGE_CLOEXEC"}},
}
_WORDS: dict[str, dict[int, Mapping[int, str]]] = {
    "fsconfig": {1: _FSCONFIG},
    "prctl": {0: _PRCTL},
}


def show(program: Program) -> str:
    """Return every call of `program`, one a line, with `name = ` before a result that later calls use."""
    lines: list[str] = []
    for name, title in _TITLES:
        lines += [f"# {name}: {title}", *map(step, getattr(program, name)), ""]
    return "\n".join([*lines, *(f"# note: {note}" for note in program.notes)]).rstrip() + "\n"


def step(value: Step) -> str:
    """Return one step as a line."""
    if isinstance(value, Call):
        return call(value)
    return f"run({', '.join(map(json.dumps, value.argv))})  # {value.why}"


def call(value: Call) -> str:
    """Return one call as a line."""
    shown = [_argument(value, index, argument) for index, argument in enumerate(value.args)]
    text = f"{value.name}({', '.join(shown)})"
    if value.result:
        text = f"{value.result} = {text}"
    ignored = " ".join(os.strerror(number) for number in value.ignore[:3])
    if len(value.ignore) > 3:
        ignored = "any failure"
    reasons = [value.why] if value.why else []
    if ignored:
        reasons.append(
            f"{ignored} is ignored" + (f", the next {value.skip} left out" if value.skip else "")
        )
    return f"{text}  # {'; '.join(reasons)}" if reasons else text


def _argument(value: Call, index: int, argument: Argument) -> str:
    if isinstance(argument, int):
        is_here = argument == m.AT_FDCWD and index in {0, 2} and value.name != "dup3"
        return "AT_FDCWD" if is_here else _number(value, index, argument)
    if isinstance(argument, bytes):
        return _bytes(value, index, argument)
    return _made(argument)


def _made(argument: Slot | Struct | Text | Out | None) -> str:
    """Show what is made when the call is made."""
    match argument:
        case Slot(name):
            return name
        case Text(form, slots):
            return _text(form, slots)
        case Struct():
            return _struct(argument)
        case Out(size):
            return f"<{size} bytes>"
    return "NULL"


def _struct(argument: Struct) -> str:
    null = "NULL" if "P" in argument.layout else "0"
    shown = [_member(value, null) for value in argument.values]
    while len(shown) > _MANY and shown[-2:] == [null, null]:
        shown.pop()
    return "{" + ", ".join(shown) + (", …}" if len(shown) < len(argument.values) else "}")


def _text(form: str, slots: tuple[Slot, ...]) -> str:
    for slot in slots:
        form = form.replace("%d", f"<{slot.name}>", 1)
    return f'"{form.strip()}"'


def _member(value: int | Slot | Pointer, null: str) -> str:
    if isinstance(value, Slot):
        return value.name
    if isinstance(value, Pointer):
        return _string(value.data) if isinstance(value.data, bytes) else _struct(value.data)
    return null if value == 0 else str(value)


def _number(value: Call, index: int, number: int) -> str:
    word = _WORDS.get(value.name, {}).get(index, {}).get(number)
    if word:
        return word
    table = _BITS.get(value.name, {}).get(index)
    if table is not None:
        return _bits(number, table)
    return (
        f"0{number:o}" if value.name in {"mkdirat", "mknodat", "umask"} and number else str(number)
    )


def _bits(number: int, table: Mapping[int, str]) -> str:
    found = [name for bit, name in sorted(table.items()) if number & bit == bit]
    rest = number & ~sum(bit for bit, name in table.items() if name in found)
    return "|".join([*found, *([str(rest)] if rest else [])]) or "0"


def _bytes(value: Call, index: int, data: bytes) -> str:
    if value.name == "openat2" and index == 2:
        flags, mode, resolve = struct.unpack("=QQQ", data)
        return (
            f"{{flags={_bits(flags, _OPEN)}, mode=0{mode:o}, resolve={_bits(resolve, _RESOLVE)}}}"
        )
    if value.name == "mount_setattr" and index == 3:
        added, cleared, propagation, _ = struct.unpack("=QQQQ", data)
        members = (
            ("attr_set", added, _ATTRIBUTES),
            ("attr_clr", cleared, _ATTRIBUTES),
            ("propagation", propagation, _PROPAGATION),
        )
        return "{" + ", ".join(_members(members)) + "}"
    return _string(data)


def _members(members: Iterable[tuple[str, int, Mapping[int, str]]]) -> Iterable[str]:
    return (f"{name}={_bits(number, table)}" for name, number, table in members if number)


def _string(data: bytes) -> str:
    text = data.removesuffix(b"\0")
    if len(text) < 256 and all(32 <= byte < 127 or byte >= 160 or byte == 10 for byte in text):
        return '"' + text.decode(errors="backslashreplace").replace("\n", "\\n") + '"'
    return f"<{len(data)} bytes>"
