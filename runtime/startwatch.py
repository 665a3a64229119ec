"""The start program once init is born: the monitor, which keeps the log, waits, and gives everything back."""

from __future__ import annotations

import signal

from runtime import startconsole, startothers
from runtime.duties import Duties
from runtime.elf import PASSING
from runtime.execentry import FALL_BACK
from runtime.kernel import mount as m
from runtime.program import Slot
from runtime.records import ADD, LOAD, STORE, TEXT, pattern
from runtime.scribe import (
    BUFFER,
    CLOEXEC,
    NONBLOCK,
    P_PID,
    POLLIN,
    SI_PID,
    WEXITED,
    WNOHANG,
    Scribe,
)
from runtime.startentry import ABOVE, F_DUPFD_CLOEXEC, GO, GROUP, PR_SET_PDEATHSIG
from valuetypes import replace

LOG_FLAGS = (
    0o1 | 0o2000 | 0o100 | 0o400000 | CLOEXEC | NONBLOCK
)  # for writing at the end, created, no link
_STATE_FLAGS = 0o1 | 0o100 | 0o1000 | 0o400000 | CLOEXEC  # for writing, created, emptied, no link
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_REVENTS = 6
_LOG_LIMIT_BYTES = (
    3  # a log whose size needs more than the low three bytes is 16 MiB: it is rotated
)
_MAX_PASSING = 1 << 24
_VFORK = 0x4100  # CLONE_VM, CLONE_VFORK
_IDENTITY = 128  # bytes that are enough for one


def begin(s: Scribe, duties: Duties) -> None:
    """Hear whether init was executed, and tell the world."""
    s.mark("born")
    s.close("ready_write", "lifeline", "net_go", "born", "stdin", "stdout")
    if duties.console:
        s.close("console_out")
    if duties.group:
        s.do("close", GROUP)
    if duties.inside is None:
        _let_go(s, duties)
    else:
        s.close("born_read", "net_go_write")  # a command waits for no network
    s.when("foreground", 1, "streams are closed")
    s.close("stderr")
    s.mark("streams are closed")
    s.do("read", Slot("ready_read"), s.buffer, BUFFER, result="count")
    s.when("count", 0, "running")
    s.do("write", Slot("report"), s.buffer, Slot("count"))
    s.wait_for("init")
    s.go(failed(duties))
    s.mark("running")
    s.close("ready_read")
    if duties.console:
        startconsole.receive(s)
        s.when("foreground", 0, "console is received")
        s.do("fcntl", 1, F_DUPFD_CLOEXEC, ABOVE, result="log")
        s.mark("console is received")
    if duties.inside is None:
        _tell(s, duties)
    s.go("told")


def _tell(s: Scribe, duties: Duties) -> None:
    """Say in the run state, and to who does not wait, that init runs. Whoever has the lock then finds it there."""
    identities = [_identity(s, process) for process in ("monitor", "init")]
    _state(s, duties, duties.running, *identities, Slot("more"))
    s.close("lock")
    s.when("words", 1, "told")
    s.when("foreground", 1, "goes with its parent")
    s.do("prctl", PR_SET_PDEATHSIG, 0)
    s.mark("goes with its parent")
    s.do("write", Slot("report"), s.table.place(b"+"), 1)
    s.close("report")


def failed(duties: Duties) -> str:
    """Return where it goes on when a start has failed."""
    return "release" if duties.inside is None else FALL_BACK


def _let_go(s: Scribe, duties: Duties) -> None:
    """Let init go on: the stage has ended, so it is in its cgroups, and its network is attached."""
    if duties.network:
        said = s.table.room(BUFFER + 1)
        s.do("read", GO, said, BUFFER, result="count")
        s.do("close", GO)
        s.when("count", 0, "no network")
        s.let("more", said + 1)
    else:
        s.close("born_read")
    s.do("write", Slot("net_go_write"), s.table.place(b"g"), 1)
    s.mark("no network")
    s.close("net_go_write")


def _identity(s: Scribe, who: str) -> int:
    """Return the address of what tells the process in slot `who` from all others (runtime.state.Identity)."""
    form = '{"boot_id": "%s", "pid": %d, "starttime": %d}'
    words = (s.boot_id, Slot(who), Slot(f"{who}_starttime"))
    text = s.table.room(_IDENTITY)
    s.do(TEXT, text, s.table.place(pattern(form)), *words)
    return text


def _state(s: Scribe, duties: Duties, form: str, *values: int | Slot) -> None:
    """Write the state file, by one rename."""
    if duties.state is None:
        return
    path = duties.state
    draft = s.text(str(path.with_name(f".{path.name}.start")))
    text = s.table.room(len(form.encode()) + _IDENTITY * len(values) + BUFFER)
    s.do(TEXT, text, s.table.place(pattern(form)), *values, result="count")
    s.do("openat", m.AT_FDCWD, draft, _STATE_FLAGS, 0o600, result="file")
    s.do("write", Slot("file"), text, Slot("count"))
    s.close("file")
    s.do("renameat", m.AT_FDCWD, draft, m.AT_FDCWD, s.text(str(path)))


def watch(s: Scribe, duties: Duties) -> None:
    """Wait for signals and for what init writes, until init has ended."""
    s.mark("told")
    s.do("munmap", PASSING, _MAX_PASSING)
    watched = _WATCHED if duties.inside is None else (*_WATCHED, signal.SIGUSR1, signal.SIGUSR2)
    mask = sum(1 << number - 1 for number in watched).to_bytes(8, "little")
    polled = s.table.room(16)
    s.do("signalfd4", -1, s.table.place(mask), 8, CLOEXEC | NONBLOCK, result="signals")
    s.do(STORE, polled, Slot("signals"), width=4)
    s.do(STORE, polled + 4, POLLIN, width=2)
    if not duties.console:
        s.when("foreground", 1, "no log")
    s.do(STORE, polled + 8, Slot("output"), width=4)
    s.do(STORE, polled + 12, POLLIN, width=2)
    s.go("wait")
    s.mark("no log")
    s.do(STORE, polled + 8, -1, width=4)
    s.mark("wait")
    s.do("ppoll", polled, 2, 0, 0, 8)
    s.do(LOAD, polled + 8 + _REVENTS, 0, result="events", width=2)
    s.when("events", 0, "signals")
    if duties.console:
        s.when("events", startconsole.POLLHUP, "hung up")
    _keep_log(s, duties, "signals")
    s.do(STORE, polled + 8, -1, width=4)  # its end
    if duties.console:
        s.go("signals")
        s.mark("hung up")
        startconsole.hung_up(s, polled + 8, "signals")
    s.mark("signals")
    _hear_signals(s, duties)


def _keep_log(s: Scribe, duties: Duties, after: str) -> None:
    """Append what init wrote to the log and go on at `after`; at the end of the pipe fall through."""
    name = str(duties.log)
    s.do("read", Slot("output"), s.buffer, BUFFER, result="count")
    s.when("count", -1, after)
    s.when("count", 0, f"no more before {after}")
    s.do("write", Slot("log"), s.buffer, Slot("count"), result="count")
    s.when("count", -1, after)  # a full disk must not end the container
    s.when("foreground", 1, after)  # it is no file of ours
    s.do(ADD, Slot("size"), Slot("count"), result="size")
    size = s.table.address("size")
    s.do(LOAD, size + _LOG_LIMIT_BYTES, 0, result="over", width=8 - _LOG_LIMIT_BYTES)
    s.when("over", 0, after)
    s.do("renameat", m.AT_FDCWD, s.text(name), m.AT_FDCWD, s.text(f"{name}.1"))
    s.close("log")
    s.do("openat", m.AT_FDCWD, s.text(name), LOG_FLAGS, 0o600, result="log")
    s.let("size", 0)
    s.go(after)
    s.mark(f"no more before {after}")


def _hear_signals(s: Scribe, duties: Duties) -> None:
    """Pass on a request to end; look after init when a child has changed."""
    s.do("read", Slot("signals"), s.siginfo, 128, result="count")
    s.when("count", -1, "wait")
    s.do(LOAD, s.siginfo, 0, result="signal", width=4)
    s.when("signal", signal.SIGCHLD, "a child")
    s.do("kill", Slot("init"), duties.stop_signal if duties.inside is None else Slot("signal"))
    s.go("wait")
    s.mark("a child")
    s.do(STORE, s.siginfo + SI_PID, 0, width=4)
    s.do("waitid", P_PID, Slot("init"), s.siginfo, WEXITED | WNOHANG, 0)
    s.do(LOAD, s.siginfo + SI_PID, 0, result="who", width=4)
    s.when("who", 0, "wait")
    s.status("ended")
    if not duties.console:
        s.when("foreground", 1, "release")
    s.mark("rest")
    _keep_log(s, duties, "rest of the log")
    s.go("release")
    s.mark("rest of the log")
    s.when("count", -1, "release")
    s.go("rest")


def end(s: Scribe, duties: Duties) -> None:
    """Give everything back, then say that the container has stopped."""
    s.mark("release")
    s.table.calls([replace(call, ignore=(0xFF,), skip=0) for call in duties.release])
    if duties.carrier is not None:
        startothers.kill(s, duties.carrier)
    if duties.inside is None:
        _state(s, duties, duties.stopped, Slot("status"))
    if duties.finish:
        _finish(s, duties)
    s.do("exit_group", Slot("status"))


def _finish(s: Scribe, duties: Duties) -> None:
    """Run the program that does what only it can, and wait for it."""
    s.do("clone", _VFORK | signal.SIGCHLD, 0, 0, 0, 0, result="child")
    s.when("child", 0, "finish")
    s.do("waitid", P_PID, Slot("child"), s.siginfo, WEXITED, 0)
    s.do("exit_group", Slot("status"))
    s.mark("finish")
    s.do("rt_sigprocmask", 2, s.table.place(bytes(8)), 0, 8)
    s.execute([s.text(word) for word in duties.finish], duties.environment)
