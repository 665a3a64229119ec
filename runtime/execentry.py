"""The beginning and the end of an exec program: the container is found, the command of its own command line executed.

    exec  `/` or `-`  SCRIPT  --in-python  exec  NAME  --  COMMAND…

`/` where COMMAND is a path, else it is looked for. Whatever cannot be, or fails before the command is executed, is left
to SCRIPT with the words that follow it: Python tells why.
"""

from __future__ import annotations

import errno
import os

from runtime import startothers
from runtime.duties import Duties, Inside
from runtime.kernel import mount as m
from runtime.passwd import WHERE
from runtime.program import Call, Out, Slot, Text
from runtime.records import ADD, BRANCH, HANDLER, LOAD, STACK, START, TEXT, Label, pattern
from runtime.scribe import BUFFER, CLOEXEC, STATX_BASIC, Scribe, looks_as_it_did, seen
from runtime.steps import c, how

PREFIX = 7  # words before the command
LONGEST = 255  # letters of a command that is looked for
FALL_BACK = "fall back"
CLOSE_RANGE_CLOEXEC = 4
LOOKED_FOR = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_SPACES_TO_INIT = 12  # from the phase to init's pid in a run state
_SCRIPT = 3  # the word's place behind STACK, where argc is the first
_RDWR, _WRONLY = 2, 1


def begin(s: Scribe, duties: Duties, inside: Inside) -> None:
    """Find the container; nothing has been changed when that fails."""
    s.mark(START)
    s.do(ADD, Label(FALL_BACK), 0, result=HANDLER)
    for name, value in (("role", 0), ("init", 0), ("lock", -1), ("handed", 0), ("foreground", 1)):
        s.let(name, value)
    s.let("words", 1)
    for name in ("output", "log", "size"):  # there is no log
        s.let(name, -1)
    s.let("more", s.text(""))
    for _ in range(3):  # no file of ours may become a standard stream
        s.do("openat", m.AT_FDCWD, s.text("/dev/null"), _RDWR)
    s.do("close_range", 3, 0xFFFFFFFF, 0)
    for number in range(3):  # a folder of the host's is none, either (CVE-2024-21626)
        s.do("openat", number, s.text("."), os.O_PATH | CLOEXEC, result="folder")
        s.when("folder", -1, f"{number} is no folder")
        s.go(FALL_BACK)
        s.mark(f"{number} is no folder")
    s.must("openat", m.AT_FDCWD, s.text("/dev/null"), _WRONLY | CLOEXEC, result="report")
    s.is_of_this_boot(duties.boot)
    s.table.calls([looks_as_it_did(path, look) for path, look in duties.basis])
    _find(s, duties, inside)
    s.do(ADD, Label(HANDLER), 0, result=HANDLER)


def _find(s: Scribe, duties: Duties, inside: Inside) -> None:
    """Open init as slot `target`, and its control groups; its passwd(5) must be as it was."""
    phase = startothers.read_phase(s, duties, FALL_BACK)
    s.when("phase", startothers.RUNNING, "it runs")
    s.go(FALL_BACK)
    s.mark("it runs")
    startothers.find(s, phase, _SPACES_TO_INIT, FALL_BACK)
    startothers.until_dead(s, startothers.NOW)
    s.when("dead", 1, FALL_BACK)
    s.let("target", Slot("pidfd"))
    root = Call(
        name="openat",
        args=(m.AT_FDCWD, Text("/proc/%d/root", (Slot("who"),)), os.O_PATH | CLOEXEC),
        result="root",
    )
    below = how(os.O_PATH, WHERE)
    passwd = Call(name="openat2", args=(Slot("root"), c("etc/passwd"), *below), result="passwd")
    s.table.calls([root, passwd, _is(Slot("passwd"), inside.passwd)])
    s.close("passwd", "root")
    for number, path in enumerate(inside.join):
        where = (m.AT_FDCWD, c(str(path)), _WRONLY | CLOEXEC)
        s.table.calls([Call(name="openat", args=where, result=f"join{number}")])


def _is(slot: Slot, look: tuple[int, ...]) -> Call:
    where = (slot, c(""), m.AT_EMPTY_PATH, STATX_BASIC, Out(256))
    return Call(name="statx", args=where, expect=seen(look))


def execute(s: Scribe, inside: Inside) -> None:
    """Be the command, with the descriptors 0, 1 and 2; a failure is reported."""
    s.do("close_range", 3, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    s.do(ADD, Slot(STACK), 8 * (PREFIX + 1), result="argv")
    s.do(LOAD, Slot("argv"), 0, result="command")
    s.do(LOAD, Slot(STACK), 2, result="kind")
    s.do(LOAD, Slot("kind"), 0, result="kind", width=1)
    environment = s.strings(map(s.text, inside.environment))
    path = s.table.room(BUFFER)

    def try_it(last: bool, where: Slot | int) -> None:
        args = (where, Slot("argv"), environment)
        s.table.calls([Call(name="execve", args=args, ignore=() if last else LOOKED_FOR)])

    s.do(BRANCH, Slot("kind"), ord("/"), Label("a path"))
    for number, folder in enumerate(inside.path):
        s.do(TEXT, path, s.table.place(pattern(f"{folder.replace('%', '%%')}/%s")), Slot("command"))
        try_it(number == len(inside.path) - 1, path)
    s.mark("a path")
    try_it(True, Slot("command"))


def fall_back(s: Scribe) -> None:
    """Be SCRIPT, with the words behind it and the environment that we were given."""
    s.mark(FALL_BACK)
    s.do("rt_sigprocmask", 2, s.table.place(bytes(8)), 0, 8)
    s.do(LOAD, Slot(STACK), 0, result="eight")
    for _ in range(3):
        s.do(ADD, Slot("eight"), Slot("eight"), result="eight")
    s.do(ADD, Slot(STACK), 16, result="environment")  # behind argc, argv and its end
    s.do(ADD, Slot("environment"), Slot("eight"), result="environment")
    s.do(ADD, Slot(STACK), 8 * _SCRIPT, result="argv")
    s.do(LOAD, Slot(STACK), _SCRIPT, result="script")
    s.do("execve", Slot("script"), Slot("argv"), Slot("environment"))
    s.do("exit_group", 125)
