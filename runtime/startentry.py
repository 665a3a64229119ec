"""The start program's beginning: descriptors, arguments, a sealed copy, and the process that goes on as the monitor."""

from __future__ import annotations

import signal
from pathlib import Path

from runtime import startothers
from runtime.duties import Duties
from runtime.kernel import mount as m
from runtime.program import Failure, Slot
from runtime.records import ADD, BRANCH, HANDLER, LOAD, STACK, START, Label
from runtime.scribe import BUFFER, CLOEXEC, Scribe, looks_as_it_did

BORN, GO, LOCK, RESULT, GROUP = range(3, 8)  # what Python hands over
F_DUPFD_CLOEXEC, ABOVE = 1030, 10
_STARTER = 0
_PYTHON, _PYTHON_WAITS = 3, 4  # words of the command line
PR_SET_PDEATHSIG = 1
_RDWR, _CREAT, _NOFOLLOW = 2, 0o100, 0o400000
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEALS = 0xF  # F_SEAL_SEAL, SHRINK, GROW, WRITE
_MFD_CLOEXEC_SEALABLE = 3
_WHOLE = 1 << 30
_LOCK_EX = 2


def begin(s: Scribe, duties: Duties) -> None:
    """Keep what was handed over; in the foreground go on as the monitor, else leave that to a child and listen."""
    s.mark(START)
    s.let("role", _STARTER)
    s.let("init", 0)
    s.let("lock", -1)
    s.let("more", s.text(""))
    for _ in range(3):  # no file of ours may become a standard stream
        s.do("openat", m.AT_FDCWD, s.text("/dev/null"), _RDWR)
    _arguments(s, duties)
    if duties.sealed:
        _seal(s)
    s.do("umask", 0o022)
    s.read_boot_id()
    s.when("handed", 1, "is current")
    if duties.instead:
        _check(s, duties)
    s.mark("is current")
    s.when("foreground", 1, "foreground")
    s.pipe("result_read", "result_write")
    s.do("getpid", result="starter")
    s.must("clone", signal.SIGCHLD, 0, 0, 0, 0, result="child")
    s.when("child", 0, "detached")
    _listen(s)


def _arguments(s: Scribe, duties: Duties) -> None:
    """See who executes it, and how: 1 word is a person, or a supervisor, who waits; 2 one who does not.

    Python has 3 words where it does not wait, and 4 where it is the parent of the monitor and listens to RESULT.
    """
    s.do(LOAD, Slot(STACK), 0, result="words")  # argc
    s.let("handed", 0)
    s.let("foreground", 0)
    s.when("words", _PYTHON, "Python")
    s.when("words", _PYTHON_WAITS, "Python waits")
    s.do("close_range", 3, 0xFFFFFFFF, 0)
    s.do("fcntl", 2, F_DUPFD_CLOEXEC, ABOVE, result="report")
    s.when("words", 2, "descriptors")
    s.let("foreground", 1)
    s.go("descriptors")
    s.mark("Python")
    if duties.group:
        s.do("close", RESULT)
    s.do("close_range", GROUP + 1 if duties.group else RESULT, 0xFFFFFFFF, 0)
    s.let("handed", 1)
    s.do("fcntl", 2, F_DUPFD_CLOEXEC, ABOVE, result="report")
    s.go("descriptors")
    s.mark("Python waits")
    s.do("close_range", GROUP + 1 if duties.group else GROUP, 0xFFFFFFFF, 0)
    s.let("handed", 1)
    s.let("foreground", 1)
    s.do("fcntl", RESULT, F_DUPFD_CLOEXEC, ABOVE, result="report")
    s.do("prctl", PR_SET_PDEATHSIG, signal.SIGTERM)  # its end is a wish that the container end
    s.mark("descriptors")


def lock(s: Scribe, state: Path, creating: int = _CREAT) -> None:
    """Hold the lock beside the run state `state`, as runtime.state does; with `creating` 0 it must be there."""
    path = str(state.with_suffix(".lock"))
    failure = Failure("E_LOCKED", path)
    flags = _RDWR | creating | _NOFOLLOW | CLOEXEC
    s.must("openat", m.AT_FDCWD, s.text(path), flags, 0o600, result="lock", failure=failure)
    s.must("flock", Slot("lock"), _LOCK_EX, failure=failure)


def claim(s: Scribe, duties: Duties) -> None:
    """Make sure that it may start: with the lock held, nobody else does anything to the container."""
    s.when("handed", 1, "handed over")
    if duties.state is not None:
        for folder in (duties.state.parent.parent, duties.state.parent):
            s.do("mkdirat", m.AT_FDCWD, s.text(str(folder)), 0o700)
        lock(s, duties.state)
        startothers.refuse_a_second(s, duties)
    s.go("claim")
    s.mark("handed over")
    s.do(LOAD, Slot(STACK), 3, result="more")  # its second argument
    s.let("lock", LOCK)
    s.when("words", _PYTHON, "no result")
    s.do("close", RESULT)
    s.mark("no result")
    if not duties.network:  # else /dev/null, from the beginning
        s.do("close_range", BORN, GO, 0)
    s.mark("claim")
    s.table.calls(duties.claim)


def _check(s: Scribe, duties: Duties) -> None:
    """Go on only where this was written in this boot and from files that are as they were; else be `instead`.

    A network is for Python to attach, a user's control group for it to ask for, so with one it is always that.
    """
    s.do(ADD, Label("stale"), 0, result=HANDLER)
    if duties.network or duties.group:
        s.go("stale")
    s.is_of_this_boot(duties.boot)
    s.table.calls([looks_as_it_did(path, look) for path, look in duties.basis])
    s.do(ADD, Label(HANDLER), 0, result=HANDLER)
    s.go("is current")
    s.mark("stale")
    s.do(ADD, Label(HANDLER), 0, result=HANDLER)
    s.when("words", 2, "stale, detached")
    _become(s, duties.instead, duties.environment)
    s.mark("stale, detached")
    _become(s, (*duties.instead, "detach"), duties.environment)


def _become(s: Scribe, command: tuple[str, ...], environment: tuple[str, ...]) -> None:
    """Be another program, with nothing but this `environment`."""
    words, variables = (s.strings(map(s.text, texts)) for texts in (command, environment))
    failure = Failure(
        "E_NOTFOUND", command[0], "this start program is stale, and no Python is there"
    )
    s.must("execve", s.text(command[0]), words, variables, failure=failure)


def _seal(s: Scribe) -> None:
    """Be a copy of this program that nobody can write to, not even through /proc/self/exe."""
    failure = Failure("E_KERNEL_FEATURE", "memfd_create", "a sealed copy cannot be executed")
    s.do("openat", m.AT_FDCWD, s.text("/proc/self/exe"), CLOEXEC, result="file")
    s.do("fcntl", Slot("file"), _F_GET_SEALS, result="seals")
    s.when("seals", _SEALS, "sealed")
    name = s.text("mktemplate")
    s.must("memfd_create", name, _MFD_CLOEXEC_SEALABLE, result="copy", failure=failure)
    s.mark("copying")
    s.must("sendfile", Slot("copy"), Slot("file"), 0, _WHOLE, result="count")
    s.when("count", 0, "copied")
    s.go("copying")
    s.mark("copied")
    s.must("fcntl", Slot("copy"), _F_ADD_SEALS, _SEALS, failure=failure)
    s.do(ADD, Slot(STACK), 8, result="argv")
    arguments = (s.text(""), Slot("argv"), 0, m.AT_EMPTY_PATH)
    s.must("execveat", Slot("copy"), *arguments, failure=failure)
    s.mark("sealed")
    s.close("file")


def _listen(s: Scribe) -> None:
    """Be told by the monitor that all is well, or why not."""
    first = s.table.room(8)
    s.close("result_write")
    s.when("handed", 0, "nothing was handed over")
    s.do("close_range", BORN, LOCK, 0)  # the monitor's, whose end must be noticed
    s.mark("nothing was handed over")
    s.do("read", Slot("result_read"), first, 1, result="count")
    s.when("count", 0, "hear the end")
    s.do(LOAD, first, 0, result="first", width=1)
    s.do(BRANCH, Slot("first"), ord("+"), Label("well"))
    s.do("write", 2, first, 1)
    s.mark("hear")
    s.do("read", Slot("result_read"), s.buffer, BUFFER, result="count")
    s.when("count", 0, "hear the end")
    s.do("write", 2, s.buffer, Slot("count"))
    s.go("hear")
    s.mark("hear the end")
    s.wait_for("child")
    s.do("exit_group", Slot("status"))
    s.mark("well")
    s.do("exit_group", 0)
