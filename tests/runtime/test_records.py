"""Each feature of a Call means the same to the Python performer and to the start program's interpreter."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import elf
from runtime.kernel.libc import NUMBERS
from runtime.perform import Failed, perform
from runtime.performer.x86_64 import CODE
from runtime.program import Call, Expect, Out, Pointer, Slot, Struct, Text
from runtime.records import (
    ADD,
    BRANCH,
    CUT,
    ERRNO,
    FAILED,
    FIELD,
    FIND,
    HANDLER,
    LOAD,
    STORE,
    TEXT,
    Label,
    Table,
    pattern,
)

# calls that launching never makes, yet that show much of what a Call can say
for _name, _number in {
    "writev": 20,
    "fstat": 5,
    "readlinkat": 267,
    "copy_file_range": 326,
    "sendfile": 40,
}.items():
    NUMBERS.setdefault(_name, _number)
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="this machine lacks an x86-64 processor"
)

AT_FDCWD = -100
NOT_THERE = b"/nonexistent/\xff\0"


@dataclass(frozen=True)
class Result:
    """What a list came to: the failed call and its errno, and the slots."""

    failed: tuple[int, int] | None
    slots: dict[str, int]
    output: bytes = b""


def run(table: Table, names: Sequence[str], tmp_path: Path) -> Result:
    """Let the interpreter walk `table`, then write its slots to a file of its own."""
    dump = tmp_path / "slots"
    table.mark("end")
    size = 8 * 128
    table.do("openat", AT_FDCWD, table.place(os.fsencode(dump) + b"\0"), 0o1101, 0o600, result="D")
    table.do("write", Slot("D"), elf.DATA, size)
    table.do("exit_group", 0)
    table.mark(HANDLER)
    table.do(BRANCH, 0, 0, Label("end"))
    program = tmp_path / "program"
    program.write_bytes(elf.executable(CODE, *table.data()))
    program.chmod(0o755)

    done = subprocess.run([program], capture_output=True, timeout=10, cwd=tmp_path)

    assert done.returncode == 0, done
    memory = dump.read_bytes()
    values = {
        name: struct.unpack_from("=q", memory, table.address(name) - elf.DATA)[0]
        for name in [*names, FAILED, ERRNO]
    }
    number, why = values.pop(FAILED), values.pop(ERRNO)
    return Result((number // 2, why) if why >= 0 else None, values, done.stdout)


def by_interpreter(calls: Sequence[Call], names: Sequence[str], tmp_path: Path) -> Result:
    """Have the start program's interpreter make `calls`."""
    table = Table()
    table.calls(calls)
    return run(table, names, tmp_path)


def by_python(calls: Sequence[Call], names: Sequence[str], tmp_path: Path) -> Result:
    """Have the Python performer make `calls`, in a child with the same three descriptors."""
    answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.chdir(tmp_path)
            os.dup2(out_write, 1)
            kept = os.dup2(answer_write, 200, inheritable=False)
            os.closerange(3, 200)
            slots: dict[str, int] = {}
            failed = (-1, -1)
            try:
                perform(calls, slots)
            except Failed as failure:
                failed = (failure.index, failure.number)
            values = [slots.get(name, -1) for name in names]
            os.write(kept, struct.pack(f"={2 + len(values)}q", *failed, *values))
        finally:
            os._exit(0)
    for descriptor in (answer_write, out_write):
        os.close(descriptor)
    with os.fdopen(answer_read, "rb") as file, os.fdopen(out_read, "rb") as out:
        numbers = struct.unpack(f"={2 + len(names)}q", file.read())
        output = out.read()
    os.waitpid(child, 0)
    failed_at = numbers[:2] if numbers[0] >= 0 else None
    return Result(failed_at, dict(zip(names, numbers[2:], strict=True)), output)


def opened(path: bytes, result: str, flags: int = os.O_RDONLY, **more: object) -> Call:
    return Call(
        name="openat",
        args=(AT_FDCWD, path, flags, 0o600),
        result=result,
        **more,  # type: ignore[arg-type]
    )


def said(text: bytes) -> Call:
    return Call(name="write", args=(1, text, len(text)), result="said")


IOVEC = Struct("=QQQQ", (Pointer(b"two "), 4, Pointer(b"parts"), 5))
LISTS: dict[str, tuple[Call, ...]] = {
    "a constant string is written": (said(b"hello"),),
    "a result is an argument of a later call": (
        opened(b"/dev/null\0", "null"),
        Call(name="dup3", args=(Slot("null"), 50, os.O_CLOEXEC), result="copy"),
        Call(name="write", args=(Slot("copy"), b"x", 1), result="written"),
    ),
    "a failure ends the list and names the call": (
        said(b"a"),
        opened(NOT_THERE, "no"),
        said(b"b"),
    ),
    "a negative constant is one": (Call(name="close", args=(-1,)),),
    "an ignored errno goes on": (opened(NOT_THERE, "no", ignore=(errno.ENOENT,)), said(b"on")),
    "any of six ignored errnos goes on": (
        opened(NOT_THERE, "no", ignore=(1, 5, 11, 30, errno.EDQUOT, errno.ENOENT)),
        said(b"on"),
    ),
    "another errno than the ignored ends": (opened(NOT_THERE, "no", ignore=(errno.EIO,)),),
    "an ignored errno skips the next calls with all that they need": (
        opened(NOT_THERE, "no", ignore=(errno.ENOENT,), skip=3),
        Call(name="openat", args=(-1, Text("%d", (Slot("no"),)), 0)),
        Call(name="read", args=(0, Out(8), 8), expect=(Expect(0, 1, 1), Expect(1, 1, 1))),
        Call(name="writev", args=(1, Struct("=QQ", (Pointer(b"x"), Slot("no"))), 1)),
        said(b"behind"),
    ),
    "an ignored errno skips its own expectation": (
        Call(
            name="read",
            args=(-1, Out(8), 8),
            ignore=(errno.EBADF,),
            expect=(Expect(0, 1, 7),),
        ),
        said(b"behind"),
    ),
    "a skip beyond the end ends": (opened(NOT_THERE, "no", ignore=(errno.ENOENT,), skip=9),),
    "a skip is not made where the call succeeds": (
        opened(b"/dev/null\0", "null", ignore=(errno.ENOENT,), skip=1),
        said(b"said"),
    ),
    "a decimal in a path": (
        opened(b"/dev/null\0", "null"),
        opened(b"f3g\0", "x", os.O_RDWR | os.O_CREAT),
        Call(name="openat", args=(AT_FDCWD, Text("f%dg", (Slot("null"),)), 0), result="again"),
    ),
    "two decimals, a per cent sign and letters of other scripts": (
        opened(b"/dev/null\0", "a"),
        Call(name="dup3", args=(Slot("a"), 123, os.O_CLOEXEC), result="b"),
        Call(name="memfd_create", args=(Text("é%d%%%d", (Slot("a"), Slot("b"))), 1), result="m"),
        Call(
            name="readlinkat",
            args=(AT_FDCWD, Text("/proc/self/fd/%d", (Slot("m"),)), Out(40), 40),
            result="length",
            expect=(
                Expect(0, 8, int.from_bytes(b"/memfd:\xc3", "little")),
                Expect(8, 8, int.from_bytes(b"\xa93%123 (", "little")),
            ),
        ),
    ),
    "a structure with pointers": (Call(name="writev", args=(1, IOVEC, 2), result="n"),),
    "a structure with a slot": (
        opened(b"/dev/null\0", "length"),
        Call(
            name="writev",
            args=(1, Struct("=QQ", (Pointer(b"abcdef"), Slot("length"))), 1),
            result="written",
        ),
    ),
    "a slot in a narrow field leaves its neighbours alone": (
        opened(b"/dev/null\0", "three"),
        Call(
            name="write",
            args=(1, Struct("=2BHIQ", (255, Slot("three"), 0xABCD, Slot("three"), 1 << 63)), 16),
        ),
    ),
    "a structure with the gaps that C leaves": (
        opened(b"/dev/null\0", "three"),
        Call(name="write", args=(1, Struct("@HPB2I", (1, Slot("three"), 2, 3, Slot("three"))), 28)),
        Call(name="writev", args=(1, Struct("@2P", (Pointer(b"abcdef"), Slot("three"))), 1)),
    ),
    "the result of a call whose failure is ignored is no descriptor": (
        opened(b"/dev/null\0", "fd"),
        opened(NOT_THERE, "fd", ignore=(errno.ENOENT,)),
        Call(name="write", args=(Slot("fd"), b"x", 1)),
    ),
    "an expectation that holds": (
        Call(name="fstat", args=(0, Out(144)), expect=(Expect(24, 4, 0o020000, 0o170000),)),
        said(b"a character device"),
    ),
    "an expectation that does not hold": (
        said(b"before"),
        Call(name="fstat", args=(0, Out(144)), expect=(Expect(24, 4, 0o040000, 0o170000),)),
        said(b"never"),
    ),
    "the second of two expectations does not hold": (
        Call(
            name="fstat",
            args=(0, Out(144)),
            expect=(Expect(24, 4, 0o020000, 0o170000), Expect(28, 4, 12345)),
        ),
    ),
    "what an earlier call answered is not taken for this one's answer": (
        opened(b"/proc/self/comm\0", "file"),
        Call(name="read", args=(Slot("file"), Out(4), 4), expect=(Expect(0, 1, 0, 0),)),
        Call(name="read", args=(0, Out(4), 4), expect=(Expect(0, 4, 0),)),
        said(b"nothing"),
    ),
    "an expectation of eight bytes compares all": (
        Call(name="read", args=(0, Out(8), 8), expect=(Expect(0, 8, 1 << 63),)),
    ),
    "no argument is a null pointer": (Call(name="memfd_create", args=(None, 0)),),
    "six arguments arrive in their order": (
        opened(b"f\0", "file", os.O_RDWR | os.O_CREAT),
        Call(name="write", args=(Slot("file"), b"0123456789", 10)),
        opened(b"g\0", "other", os.O_RDWR | os.O_CREAT),
        Call(
            name="copy_file_range",
            args=(Slot("file"), Struct("=Q", (2,)), Slot("other"), None, 5, 0),
            result="copied",
        ),
        Call(name="sendfile", args=(1, Slot("other"), Struct("=Q", (1,)), 3), result="sent"),
    ),
}


@pytest.mark.parametrize("calls", LISTS.values(), ids=LISTS.keys())
def test_interpreter_and_python_come_to_the_same(calls: tuple[Call, ...], tmp_path: Path) -> None:
    names = sorted({call.result for call in calls if call.result})
    (tmp_path / "python").mkdir()
    (tmp_path / "program").mkdir()

    expected = by_python(calls, names, tmp_path / "python")

    assert by_interpreter(calls, names, tmp_path / "program") == expected


def test_text_puts_strings_and_decimals_into_a_form_and_returns_its_length(tmp_path: Path) -> None:
    table = Table()
    to = table.room(128)
    table.do(ADD, 0, 1234567890123456789, result="big")
    form = table.place(pattern("%s|%d|%d|%s%%"))
    word = table.place(b"word\0")
    table.do(TEXT, to, form, word, Slot("big"), 0, table.place(b"\0"), result="length")
    table.do("write", 1, to, Slot("length"))

    assert run(table, ["length"], tmp_path).output == b"word|1234567890123456789|0|%"


def test_load_takes_the_width_and_the_index_that_it_is_told(tmp_path: Path) -> None:
    table = Table()
    numbers = table.place(struct.pack("=3Q", 5, 6, 0x0102030405060708))
    table.do(LOAD, numbers, 2, result="eight", width=8)
    table.do(LOAD, numbers + 16, 0, result="two", width=2)
    table.do(LOAD, numbers, 1, result="one", width=1)

    slots = run(table, ["eight", "two", "one"], tmp_path).slots

    assert slots == {"eight": 0x0102030405060708, "two": 0x0708, "one": 6}


def test_store_changes_only_its_width(tmp_path: Path) -> None:
    table = Table()
    room = table.room(8)
    table.do(STORE, room, 0x1122334455667788, width=8)
    table.do(STORE, room + 1, 0xFFFFAA, width=2)
    table.do(LOAD, room, 0, result="all")

    assert run(table, ["all"], tmp_path).slots == {"all": 0x1122334455FFAA88}


def test_whatever_makes_a_call_of_the_programs_own_fail_it_goes_on(tmp_path: Path) -> None:
    table = Table()
    table.do("close", 12345, result="closed")
    table.do("execve", 1, 1, 1, result="run")
    table.do("write", 1, table.place(b"on"), 2)

    result = run(table, ["closed", "run"], tmp_path)

    assert result == Result(None, {"closed": -1, "run": -1}, b"on")


def test_branch_goes_only_where_both_are_equal(tmp_path: Path) -> None:
    table = Table()
    table.do(ADD, 1, 1, result="two")
    table.do(BRANCH, Slot("two"), 3, Label("wrong"))
    table.do(BRANCH, Slot("two"), 2, Label("right"))
    table.mark("wrong")
    table.do(ADD, 0, 7, result="two")
    table.mark("right")

    assert run(table, ["two"], tmp_path).slots == {"two": 2}


def test_cut_ends_a_text_at_what_cannot_be_shown(tmp_path: Path) -> None:
    table = Table()
    for text in (b"/bin/sh -e\0", b"a\x1b[0m\0", b"\xe9\0", b"!~\x7f\0", b"\0"):
        place = table.room(16)
        table.do(TEXT, place, table.place(text))
        table.do(CUT, place)
        table.do(TEXT, place, table.place(pattern("%s|")), place, result="length")
        table.do("write", 1, place, Slot("length"))

    assert run(table, [], tmp_path).output == b"/bin/sh|a||!~||"


def test_find_returns_where_four_bytes_are(tmp_path: Path) -> None:
    table = Table()
    text = table.place(b"x/li/lib64\0")
    for name, size in (("found", 10), ("too short", 3)):
        table.do(FIND, text, size, int.from_bytes(b"/lib", "little"), result=name)

    assert run(table, ["found", "too short"], tmp_path).slots == {"found": text + 4, "too short": 0}


@pytest.mark.parametrize(("number", "value"), [(0, 17), (2, 4096), (3, 0), (4, 9)])
def test_field_reads_the_decimal_behind_so_many_spaces(
    number: int, value: int, tmp_path: Path
) -> None:
    table = Table()
    table.do(FIELD, table.place(b"17 (x) 4096 y 9\n"), number, result="value")

    assert run(table, ["value"], tmp_path).slots == {"value": value}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Call(name="close", args=(Slot("none"),)), "nothing is ever put into slot none"),
        (Call(name="close", args=(0,), ignore=(1, 2, 3, 4, 5, 6, 7)), "ignores more than 6"),
        (Call(name="close", args=(0,), expect=(Expect(0, 1, 0),)), "has no Out"),
        (Call(name="read", args=(0, Out(4)), expect=(Expect(0, 8, 0),)), "does not lie within"),
        (Call(name="write", args=(1, Struct("=4sq", (1, 2)))), "only whole numbers"),
        (Call(name="write", args=(1, Text("%s", ()))), "0 slots"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_interpreter_cannot_do_is_refused_when_it_is_written(
    call: Call, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Table().calls([call])


def test_no_memory_of_a_start_program_is_both_written_and_executed(tmp_path: Path) -> None:
    table = Table()
    table.do("openat", AT_FDCWD, table.place(b"/proc/self/maps\0"), 0, result="maps")
    room = table.room(4096)
    table.do("read", Slot("maps"), room, 4096, result="length")
    table.do("write", 1, room, Slot("length"))

    maps = run(table, [], tmp_path).output.decode()

    rights = [line.split()[1] for line in maps.splitlines() if "[v" not in line]
    assert sorted(rights) == ["r-xp", "rw-p", "rw-p", "rw-p"]
