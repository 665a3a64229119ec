"""How the parts of a start program that are no lists of Calls are written: branches, slots, pipes, waiting."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence

from runtime.kernel.mount import AT_FDCWD
from runtime.program import Call, Expect, Failure, Out, Slot
from runtime.records import ADD, BRANCH, EXPECT, FIELD, LOAD, TEXT, Label, Table, pattern

CLOEXEC, NONBLOCK = 0o2000000, 0o4000
BUFFER = 4096
F_SETFL = 4
P_PID, WEXITED, WNOHANG = 1, 4, 1
POLLIN = 1
STATX_BASIC = 0x7FF
_STARTTIME = 21  # spaces before it
SI_PID = 16  # offsets in siginfo_t of SIGCHLD
_SI_CODE, _SI_STATUS, _CLD_EXITED = 8, 24, 1


class Scribe:
    """Appends to a Table; what all processes of the program need anew and again lies in its kept part."""

    def __init__(self) -> None:
        """Begin a table."""
        self.table = Table()
        self.do = self.table.do
        self.mark = self.table.mark
        self.boot_id = self.table.room(40)  # 36 letters, once they are read
        with self.table.kept():
            self.buffer = self.table.room(BUFFER)
            self.siginfo = self.table.room(128)

    def go(self, label: str) -> None:
        """Go on at `label`."""
        self.do(BRANCH, 0, 0, Label(label))

    def when(self, slot: str, value: int, label: str) -> None:
        """Go on at `label` where `slot` is `value`."""
        self.do(BRANCH, Slot(slot), value, Label(label))

    def let(self, slot: str, value: int | Slot) -> None:
        """Put `value` into `slot`."""
        self.do(ADD, value, 0, result=slot)

    def close(self, *slots: str) -> None:
        """Close descriptors."""
        for slot in slots:
            self.do("close", Slot(slot))

    def text(self, words: str) -> int:
        """Return the address of a C string."""
        return self.table.place(words.encode("utf-8", "surrogateescape") + b"\0")

    def pipe(self, read: str, write: str, flags: int = 0) -> None:
        """Make a pipe that no program inherits."""
        self.must("pipe2", self.buffer, flags | CLOEXEC)
        self.do(LOAD, self.buffer, 0, result=read, width=4)
        self.do(LOAD, self.buffer + 4, 0, result=write, width=4)

    def must(
        self, name: str, *values: int | Slot, result: str = "", failure: Failure | None = None
    ) -> None:
        """Make a call whose failure ends the start; numbers are what they are, addresses too."""
        self.table.calls([Call(name=name, args=values, result=result, failure=failure)])

    def strings(self, addresses: Iterable[int]) -> int:
        """Return the address of a list of C strings, as execve(2) takes it."""
        return self.table.place(b"".join(struct.pack("=Q", one) for one in (*addresses, 0)))

    def execute(self, words: Sequence[int], environment: tuple[str, ...] = ()) -> None:
        """Be the program that the C strings at `words` call, with this `environment`; 127 where there is none."""
        self.do("execve", words[0], self.strings(words), self.strings(map(self.text, environment)))
        self.do("exit_group", 127)

    def starttime(self, path: str, result: str, who: Slot | None = None) -> None:
        """Put the start time of a process whose name has no space into slot `result` (proc_pid_stat(5))."""
        name = self.table.room(64)
        self.do(TEXT, name, self.table.place(pattern(path)), who or 0)
        self.do("openat", AT_FDCWD, name, CLOEXEC, result="file")
        self.do("read", Slot("file"), self.buffer, BUFFER)
        self.close("file")
        self.do(FIELD, self.buffer, _STARTTIME, result=result)

    def is_of_this_boot(self, boot: str) -> None:
        """Read what tells this boot from others, 36 letters; fail where it is not `boot`."""
        self.read_boot_id()
        told = boot.encode()
        for start in range(0, len(told), 8):
            word = told[start : start + 8]
            value = int.from_bytes(word, "little")
            mask = (1 << 8 * len(word)) - 1
            self.do(EXPECT, self.boot_id + start, 0, mask, value, width=len(word))

    def read_boot_id(self) -> None:
        """Read what tells this boot from others: 36 letters and a line's end."""
        path = self.text("/proc/sys/kernel/random/boot_id")
        self.do("openat", AT_FDCWD, path, CLOEXEC, result="file")
        self.do("read", Slot("file"), self.boot_id, 36)
        self.close("file")

    def wait_for(self, who: str) -> None:
        """Put the exit status of our child `who` into slot `status`: 128 + N for signal N."""
        self.do("waitid", P_PID, Slot(who), self.siginfo, WEXITED, 0)
        self.status(who)

    def status(self, who: str) -> None:
        """Put what waitid(2) said of `who` into slot `status`."""
        self.do(LOAD, self.siginfo + _SI_STATUS, 0, result="status", width=4)
        self.do(LOAD, self.siginfo + _SI_CODE, 0, result="how", width=4)
        self.when("how", _CLD_EXITED, f"{who} has exited")
        self.do(ADD, Slot("status"), 128, result="status")
        self.mark(f"{who} has exited")


def looks_as_it_did(path: str, look: tuple[int, ...]) -> Call:
    """Look at a file (statx(2)); what is missing now must have been so."""
    where = (AT_FDCWD, os.fsencode(path) + b"\0", 0, STATX_BASIC, Out(256))
    if not look:
        return Call(name="statx", args=where, ignore=(errno.ENOENT,), expect=(Expect(4, 4, 0),))
    return Call(name="statx", args=where, expect=seen(look))


def seen(look: tuple[int, ...]) -> tuple[Expect, ...]:
    """Return what statx(2) says of a file with this inode, size and mtime."""
    inode, size, mtime = look
    seconds, rest = divmod(mtime, 10**9)
    return (
        Expect(32, 8, inode),
        Expect(40, 8, size),
        Expect(112, 8, seconds),
        Expect(120, 4, rest),
    )


def ended_well(who: str, failure: Failure) -> Call:
    """Wait for our child in slot `who`, which must exit with 0."""
    return Call(
        name="waitid",
        args=(P_PID, Slot(who), Out(128), WEXITED, None),
        expect=(Expect(_SI_CODE, 4, _CLD_EXITED), Expect(_SI_STATUS, 4, 0)),
        unexpected=failure,
    )
