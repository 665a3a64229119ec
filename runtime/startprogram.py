"""A Program as a program: a static ELF that starts the container when it is executed, and stays as its monitor.

    start program, in the foreground the monitor itself          roles: STARTER, MONITOR
      ├ stage: shares the monitor's memory, as vfork(2) does;    STAGE
      │        makes `stage`, the clone of init, `host`; ends
      └ init: a child of the monitor; makes `init`; execve       INIT

Without an argument it stays in the foreground, with one it returns once init has been executed. It says what failed
in the words of the error contract and exits as the command would. It needs no file but what the Program names.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runtime import failurewords
from runtime.elf import PASSING, executable
from runtime.failurewords import HEAD, NAME, REASONS, STATUS, TAIL, Sentences
from runtime.kernel import mount as m
from runtime.performer.x86_64 import CODE
from runtime.program import Call, Failure, Program, Slot
from runtime.records import (
    ADD,
    BRANCH,
    ERRNO,
    FAILED,
    FIELD,
    HANDLER,
    LOAD,
    STACK,
    START,
    STORE,
    TEXT,
    Label,
    Table,
    pattern,
)

_STARTER, _MONITOR, _STAGE, _INIT = range(4)
_ALL_SIGNALS = (1 << 64) - 1
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_CLOEXEC, _NONBLOCK, _RDWR, _WRONLY = 0o2000000, 0o4000, 2, 1
_CREAT, _TRUNC, _APPEND, _NOFOLLOW, _NOCTTY = 0o100, 0o1000, 0o2000, 0o400000, 0o400
_F_DUPFD_CLOEXEC, _F_SETFL, _ABOVE = 1030, 4, 10
_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000
_P_PID, _WEXITED, _WNOHANG, _CLD_EXITED = 1, 4, 1, 1
_SI_CODE, _SI_PID, _SI_STATUS = 8, 16, 24  # offsets in siginfo_t of SIGCHLD
_POLLIN, _REVENTS = 1, 6
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_STARTTIME = 21  # spaces before it, proc_pid_stat(5)
_LOG_LIMIT_BYTES = (
    3  # a log whose size needs more than the low three bytes is 16 MiB: it is rotated
)
_BUFFER = 4096
_MAX_PASSING = 1 << 24
_KILLED = 125
_IDENTITY = 128  # bytes that are enough for one


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What the program does as the monitor, beside its Program.

    `claim` makes sure that it may start; a failure there changes nothing. From `prepare` on a failure gives back all
    by `release`, whose own failures are passed over.
    """

    name: str
    log: Path  # what a container that is not in the foreground writes
    stop_signal: int = signal.SIGTERM
    root_ids: tuple[int, int] = (0, 0)  # the container's root, as the host numbers it
    claim: tuple[Call, ...] = ()
    prepare: tuple[Call, ...] = ()
    release: tuple[Call, ...] = ()
    state: Path | None = None  # the file that tells others of it, as these two texts say:
    running: str = "%s %s"  # the identities of monitor and init, each a JSON object
    stopped: str = "%d"  # the exit status


def write(program: Program, duties: Duties, status: Callable[[str], int]) -> bytes:
    """Return the ELF; `status` is the exit status that an error's code stands for."""
    writer = _Writer(program, duties)
    writer.starter()
    writer.monitor()
    writer.stage()
    writer.init()
    writer.begin_watch()
    with writer.table.kept():
        writer.watch()
        writer.end()
    writer.handler(failurewords.place(writer.table, duties.name, status))
    return executable(CODE, *writer.table.data())


class _Writer:
    """Writes one part of the program after the other; what is not a list of Calls is spelled out here."""

    def __init__(self, program: Program, duties: Duties) -> None:
        self.table = Table()
        self.program = program
        self.duties = duties
        self.do = self.table.do
        self.mark = self.table.mark
        self.boot_id = self.table.room(40)
        with self.table.kept():
            self.buffer = self.table.room(_BUFFER)
            self.siginfo = self.table.room(128)
            self.polled = self.table.room(16)

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
        self.must("pipe2", self.buffer, flags | _CLOEXEC)
        self.do(LOAD, self.buffer, 0, result=read, width=4)
        self.do(LOAD, self.buffer + 4, 0, result=write, width=4)

    def must(
        self, name: str, *values: int | Slot, result: str = "", failure: Failure | None = None
    ) -> None:
        """Make a call whose failure ends the start; numbers are what they are, addresses too."""
        self.table.calls([Call(name=name, args=values, result=result, failure=failure)])

    def starter(self) -> None:
        """Keep three descriptors; in the foreground go on as the monitor, else leave that to a child and listen."""
        self.mark(START)
        self.let("role", _STARTER)
        self.let("init", 0)
        self.let("lock", -1)  # Duties.prepare may take one
        for _ in range(3):  # no file of ours may become a standard stream
            self.do("openat", m.AT_FDCWD, self.text("/dev/null"), _RDWR)
        self.do("close_range", 3, 0xFFFFFFFF, 0)
        self.do("fcntl", 2, _F_DUPFD_CLOEXEC, _ABOVE, result="report")
        self.do("umask", 0o022)
        self.do(LOAD, Slot(STACK), 0, result="foreground")  # argc: 1 without an argument
        self.when("foreground", 1, "foreground")
        self.pipe("result_read", "result_write")
        self.must("clone", signal.SIGCHLD, 0, 0, 0, 0, result="child")
        self.when("child", 0, "detached")
        self._listen()

    def _listen(self) -> None:
        """Be told by the monitor that all is well, or why not."""
        first = self.table.room(8)
        self.close("result_write")
        self.do("read", Slot("result_read"), first, 1, result="count")
        self.when("count", 0, "hear the end")
        self.do(LOAD, first, 0, result="first", width=1)
        self.do(BRANCH, Slot("first"), ord("+"), Label("well"))
        self.do("write", 2, first, 1)
        self.mark("hear")
        self.do("read", Slot("result_read"), self.buffer, _BUFFER, result="count")
        self.when("count", 0, "hear the end")
        self.do("write", 2, self.buffer, Slot("count"))
        self.go("hear")
        self.mark("hear the end")
        self._wait_for("child")
        self.do("exit_group", Slot("status"))
        self.mark("well")
        self.do("exit_group", 0)

    def _wait_for(self, who: str) -> None:
        """Put the exit status of our child `who` into slot `status`: 128 + N for signal N."""
        self.do("waitid", _P_PID, Slot(who), self.siginfo, _WEXITED, 0)
        self._status(who)

    def _status(self, who: str) -> None:
        self.do(LOAD, self.siginfo + _SI_STATUS, 0, result="status", width=4)
        self.do(LOAD, self.siginfo + _SI_CODE, 0, result="how", width=4)
        self.when("how", _CLD_EXITED, f"{who} has exited")
        self.do(ADD, Slot("status"), 128, result="status")
        self.mark(f"{who} has exited")

    def monitor(self) -> None:
        """Take what the start needs from the host, and let stage and init come to life."""
        self._streams()
        self.mark("monitor")
        self.do("prctl", _PR_SET_NAME, self.text("mktemplate"))
        self._default_signals()
        self.do("rt_sigprocmask", 0, self.table.place(_ALL_SIGNALS.to_bytes(8, "little")), 0, 8)
        self.do("getpid", result="monitor")
        self._starttime("/proc/self/stat", "monitor_starttime")
        self._boot_id()
        self.table.calls(self.duties.claim)
        self.let("role", _MONITOR)
        self.table.calls(self.duties.prepare)
        self.pipe("lifeline", "lifeline_write", _NONBLOCK)
        self.pipe("ready_read", "ready_write")
        self.pipe("born_read", "born")
        self.pipe("net_go", "net_go_write")
        self.must("clone", _CLONE_VM | _CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0, result="stage")
        self.when("stage", 0, "stage")
        self.let("role", _MONITOR)
        self._wait_for("stage")
        self.do(BRANCH, Slot("status"), 0, Label("born"))
        self.when("init", 0, "release")
        self.do("kill", Slot("init"), signal.SIGKILL)  # it would wait for ever
        self.do("waitid", _P_PID, Slot("init"), self.siginfo, _WEXITED, 0)
        self.go("release")

    def _streams(self) -> None:
        """Put what becomes init's 0, 1 and 2 into slots."""
        self.mark("foreground")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            self.do("fcntl", number, _F_DUPFD_CLOEXEC, _ABOVE, result=name)
        self.go("monitor")
        self.mark("detached")
        self.let("report", Slot("result_write"))
        self.do("setsid")
        self.do("chdir", self.text("/"))
        self.must("openat", m.AT_FDCWD, self.text("/dev/null"), _CLOEXEC, result="stdin")
        self.do("openat", m.AT_FDCWD, self.text("/dev/null"), _RDWR | _CLOEXEC, result="null")
        for number in range(3):
            self.do("dup3", Slot("null"), number, 0)
        self.close("null")
        self.pipe("output", "stdout")
        self.let("stderr", Slot("stdout"))
        self.do("fcntl", Slot("output"), _F_SETFL, _NONBLOCK)
        uid, gid = self.duties.root_ids
        self.do("fchown", Slot("stdout"), uid, gid)  # so that /dev/stdout can be opened inside
        self.do("fchmod", Slot("stdout"), 0o622)
        self._open_log()

    def _open_log(self) -> None:
        """Open the log for appending; a symlink there is refused (CVE-2024-9676)."""
        flags = _WRONLY | _APPEND | _CREAT | _CLOEXEC | _NOFOLLOW | _NONBLOCK
        log = str(self.duties.log)
        self.must(
            "openat",
            *(m.AT_FDCWD, self.text(log), flags, 0o600),
            result="log",
            failure=Failure("E_IO", log),
        )
        self.do("lseek", Slot("log"), 0, 2, result="size")

    def _default_signals(self) -> None:
        """Undo what our caller ignores or blocks: it would pass on to every program (I-23)."""
        self.let("signal", 1)
        self.mark("next signal")
        self.do("rt_sigaction", Slot("signal"), self.table.place(bytes(32)), 0, 8)
        self.do(ADD, Slot("signal"), 1, result="signal")
        self.when("signal", 65, "all signals")
        self.go("next signal")
        self.mark("all signals")

    def _starttime(self, path: str, result: str, who: Slot | None = None) -> None:
        """Put the start time of a process whose name has no space into slot `result`."""
        name = self.table.room(64)
        self.do(TEXT, name, self.table.place(pattern(path)), who or 0)
        self.do("openat", m.AT_FDCWD, name, _CLOEXEC, result="file")
        self.do("read", Slot("file"), self.buffer, _BUFFER)
        self.close("file")
        self.do(FIELD, self.buffer, _STARTTIME, result=result)

    def _boot_id(self) -> None:
        """Read what tells this boot from others: 36 letters and a line's end."""
        path = self.text("/proc/sys/kernel/random/boot_id")
        self.do("openat", m.AT_FDCWD, path, _CLOEXEC, result="file")
        self.do("read", Slot("file"), self.boot_id, 36)
        self.close("file")

    def stage(self) -> None:
        """Be the stage; the monitor sleeps meanwhile."""
        self.mark("stage")
        self.let("role", _STAGE)
        self.do("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
        self.do("getppid", result="parent")
        self.do(BRANCH, Slot("parent"), Slot("monitor"), Label("stage has a parent"))
        self.do("exit_group", _KILLED)
        self.mark("stage has a parent")
        self.do("setsid")
        self.pipe("go_read", "go_write")
        self.close("lifeline_write", "ready_read")
        self.table.calls(self.program.stage)
        self.when("init", 0, "init")
        self._starttime("/proc/%d/stat", "init_starttime", Slot("init"))
        self.table.calls(self.program.host)
        self.do("exit_group", 0)

    def init(self) -> None:
        """Be init, up to its execve; its failure is the monitor's to tell."""
        self.mark("init")
        self.let("role", _INIT)
        self.let("report", Slot("ready_write"))
        self.close("go_write")
        self.do("rt_sigprocmask", 2, self.table.place(bytes(8)), 0, 8)
        self.table.calls(self.program.init)
        self.do("exit_group", _KILLED)

    def begin_watch(self) -> None:
        """Hear whether init was executed, and tell the world."""
        self.mark("born")
        self.close("ready_write", "lifeline", "net_go", "born", "born_read", "stdin", "stdout")
        self.do("write", Slot("net_go_write"), self.table.place(b"g"), 1)
        self.close("net_go_write")
        self.when("foreground", 1, "streams are closed")
        self.close("stderr")
        self.mark("streams are closed")
        self.do("read", Slot("ready_read"), self.buffer, _BUFFER, result="count")
        self.when("count", 0, "running")
        self.do("write", Slot("report"), self.buffer, Slot("count"))
        self._wait_for("init")
        self.go("release")
        self.mark("running")
        self.close("ready_read", "lock")
        identities = [self._identity(process) for process in ("monitor", "init")]
        self._state(self.duties.running, *identities)
        self.when("foreground", 1, "told")
        self.do("write", Slot("report"), self.table.place(b"+"), 1)
        self.close("report")
        self.go("told")

    def _identity(self, who: str) -> int:
        """Return the address of what tells the process in slot `who` from all others (runtime.state.Identity)."""
        form = '{"boot_id": "%s", "pid": %d, "starttime": %d}'
        words = (self.boot_id, Slot(who), Slot(f"{who}_starttime"))
        text = self.table.room(_IDENTITY)
        self.do(TEXT, text, self.table.place(pattern(form)), *words)
        return text

    def _state(self, form: str, *values: int | Slot) -> None:
        """Write the state file, by one rename."""
        if self.duties.state is None:
            return
        path = self.duties.state
        draft = self.text(str(path.with_name(f".{path.name}.start")))
        text = self.table.room(len(form.encode()) + _IDENTITY * len(values))
        self.do(TEXT, text, self.table.place(pattern(form)), *values, result="count")
        flags = _WRONLY | _CREAT | _TRUNC | _CLOEXEC | _NOFOLLOW
        self.do("openat", m.AT_FDCWD, draft, flags, 0o600, result="file")
        self.do("write", Slot("file"), text, Slot("count"))
        self.close("file")
        self.do("renameat", m.AT_FDCWD, draft, m.AT_FDCWD, self.text(str(path)))

    def watch(self) -> None:
        """Wait for signals and for what init writes, until init has ended."""
        self.mark("told")
        self.do("munmap", PASSING, _MAX_PASSING)
        mask = sum(1 << number - 1 for number in _WATCHED).to_bytes(8, "little")
        polled = self.polled
        self.do("signalfd4", -1, self.table.place(mask), 8, _CLOEXEC | _NONBLOCK, result="signals")
        self.do(STORE, polled, Slot("signals"), width=4)
        self.do(STORE, polled + 4, _POLLIN, width=2)
        self.when("foreground", 1, "no log")
        self.do(STORE, polled + 8, Slot("output"), width=4)
        self.do(STORE, polled + 12, _POLLIN, width=2)
        self.go("wait")
        self.mark("no log")
        self.do(STORE, polled + 8, -1, width=4)
        self.mark("wait")
        self.do("ppoll", polled, 2, 0, 0, 8)
        self.do(LOAD, polled + 8 + _REVENTS, 0, result="events", width=2)
        self.when("events", 0, "signals")
        self._keep_log("signals")
        self.do(STORE, polled + 8, -1, width=4)  # its end
        self.mark("signals")
        self._hear_signals()

    def _keep_log(self, after: str) -> None:
        """Append what init wrote to the log and go on at `after`; at the end of the pipe fall through."""
        name = str(self.duties.log)
        flags = _WRONLY | _APPEND | _CREAT | _CLOEXEC | _NOFOLLOW | _NONBLOCK
        self.do("read", Slot("output"), self.buffer, _BUFFER, result="count")
        self.when("count", -1, after)
        self.when("count", 0, f"no more before {after}")
        self.do("write", Slot("log"), self.buffer, Slot("count"), result="count")
        self.when("count", -1, after)  # a full disk must not end the container
        self.do(ADD, Slot("size"), Slot("count"), result="size")
        size = self.table.address("size")
        self.do(LOAD, size + _LOG_LIMIT_BYTES, 0, result="over", width=8 - _LOG_LIMIT_BYTES)
        self.when("over", 0, after)
        self.do("renameat", m.AT_FDCWD, self.text(name), m.AT_FDCWD, self.text(f"{name}.1"))
        self.close("log")
        self.do("openat", m.AT_FDCWD, self.text(name), flags, 0o600, result="log")
        self.let("size", 0)
        self.go(after)
        self.mark(f"no more before {after}")

    def _hear_signals(self) -> None:
        """Pass on a request to end; look after init when a child has changed."""
        self.do("read", Slot("signals"), self.siginfo, 128, result="count")
        self.when("count", -1, "wait")
        self.do(LOAD, self.siginfo, 0, result="signal", width=4)
        self.when("signal", signal.SIGCHLD, "a child")
        self.do("kill", Slot("init"), self.duties.stop_signal)
        self.go("wait")
        self.mark("a child")
        self.do(STORE, self.siginfo + _SI_PID, 0, width=4)
        self.do("waitid", _P_PID, Slot("init"), self.siginfo, _WEXITED | _WNOHANG, 0)
        self.do(LOAD, self.siginfo + _SI_PID, 0, result="who", width=4)
        self.when("who", 0, "wait")
        self._status("ended")
        self.when("foreground", 1, "release")
        self.mark("rest")
        self._keep_log("rest of the log")
        self.go("release")
        self.mark("rest of the log")
        self.when("count", -1, "release")
        self.go("rest")

    def end(self) -> None:
        """Give everything back, then say that the container has stopped."""
        self.mark("release")
        self.table.calls([replace(call, ignore=(0xFF,), skip=0) for call in self.duties.release])
        self._state(self.duties.stopped, Slot("status"))
        self.do("exit_group", Slot("status"))

    def handler(self, words: Sentences) -> None:
        """Say what failed, and leave as the role demands."""
        text = self.table.room(words.longest + 1)
        self.mark(HANDLER)
        places = {"head": HEAD, "name": NAME, "why": REASONS, "tail": TAIL, "status": STATUS}
        for name, offset in places.items():
            self.do(LOAD, words.table + offset, Slot(FAILED), result=name, width=4)
        self.do(LOAD, Slot("why"), Slot(ERRNO), result="why")
        form = self.table.place(pattern("%s%s%s%s"))
        parts = map(Slot, ("head", "name", "why", "tail"))
        self.do(TEXT, text, form, *parts, result="count")
        self.do("write", Slot("report"), text, Slot("count"))
        self.do(BRANCH, Slot("status"), 0, Label("execve failed"))
        self.mark("leave")
        self.when("role", _MONITOR, "release")
        self.when("init", 0, "nobody to kill")
        self.do("kill", Slot("init"), signal.SIGKILL)
        self.mark("nobody to kill")
        self.do("exit_group", Slot("status"))
        self.mark("execve failed")
        self.do(LOAD, words.execve, Slot(ERRNO), result="status")
        self.go("leave")
