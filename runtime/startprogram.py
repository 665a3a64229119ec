"""A Program as a program: a static ELF that starts the container when it is executed, and stays as its monitor.

    start program, in the foreground the monitor itself          roles: STARTER, MONITOR
      ├ stage: shares the monitor's memory, as vfork(2) does;    STAGE
      │        makes `stage`, the clone of init, `host`; ends
      └ init: a child of the monitor; makes `init`; execve       INIT

Without an argument it stays in the foreground, with one it returns once init has been executed; more are Python's
(startentry.py). It tells failures in the words of the error contract. It needs no file but what the Program names.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable

from runtime import execentry, failurewords, startconsole, startentry, startwatch
from runtime.duties import Duties
from runtime.elf import executable
from runtime.failurewords import HEAD, NAME, REASONS, STATUS, TAIL, Sentences
from runtime.kernel import mount as m
from runtime.performer.x86_64 import CODE
from runtime.program import Failure, Program, Slot
from runtime.records import (
    ADD,
    BRANCH,
    CLEAR,
    CUT,
    ERRNO,
    FAILED,
    FIND,
    HANDLER,
    LOAD,
    RECORD,
    TEXT,
    Label,
    pattern,
)
from runtime.scribe import BUFFER, CLOEXEC, F_SETFL, NONBLOCK, P_PID, WEXITED, Scribe, ended_well
from runtime.startentry import ABOVE, BORN, F_DUPFD_CLOEXEC, PR_SET_PDEATHSIG

_MONITOR, _STAGE, _INIT = range(1, 4)
_ALL_SIGNALS = (1 << 64) - 1
_RDWR = 2
_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000
_PR_SET_NAME = 15
_KILLED = 125


def write(program: Program, duties: Duties, status: Callable[[str], int]) -> bytes:
    """Return the ELF; `status` is the exit status that an error's code stands for."""
    writer = _Writer(program, duties)
    if duties.inside is None:
        startentry.begin(writer, duties)
    else:
        execentry.begin(writer, duties, duties.inside)
    writer.monitor()
    writer.stage()
    writer.init()
    startwatch.begin(writer, duties)
    with writer.table.kept():
        startwatch.watch(writer, duties)
        startwatch.end(writer, duties)
        if duties.inside is not None:
            execentry.fall_back(writer)
    writer.handler(failurewords.place(writer.table, duties.name, status))
    return executable(CODE, *writer.table.data())


def _refusal(subject: str, program: str, ids: list[str]) -> Failure:
    """Return what it means that `program` fails to map `ids`; one that knows them itself has said more."""
    if not ids:
        return Failure("E_IDMAP", subject, f"{program} failed")
    hint = "compare /etc/subuid and /etc/subgid with lxc.idmap"
    return Failure(
        "E_NEWUIDMAP", subject, f"{program} refuses the map {' '.join(ids)}", hints=(hint,)
    )


class _Writer(Scribe):
    """Writes one part of the program after the other, up to the execve of init."""

    def __init__(self, program: Program, duties: Duties) -> None:
        super().__init__()
        self.program = program
        self.duties = duties

    def monitor(self) -> None:
        """Take what the start needs from the host, and let stage and init come to life."""
        self._streams()
        self.mark("monitor")
        self.do("prctl", _PR_SET_NAME, self.text("mktemplate"))
        self._default_signals()
        self.do("getpid", result="monitor")
        self.starttime("/proc/self/stat", "monitor_starttime")
        if self.duties.inside is None:
            startentry.claim(self, self.duties)
        self.do("rt_sigprocmask", 0, self.table.place(_ALL_SIGNALS.to_bytes(8, "little")), 0, 8)
        self.let("role", _MONITOR)
        self.table.calls(self.duties.prepare)
        if self.duties.console:
            startconsole.socket(self)
        self.pipe("lifeline", "lifeline_write", NONBLOCK)
        self.pipe("ready_read", "ready_write")
        self.pipe("net_go", "net_go_write")
        if self.duties.network:
            self.let("born", BORN)
        else:
            self.pipe("born_read", "born")
        self.must("clone", _CLONE_VM | _CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0, result="stage")
        self.when("stage", 0, "stage")
        self.let("role", _MONITOR)
        self.wait_for("stage")
        self.do(BRANCH, Slot("status"), 0, Label("born"))
        self.when("init", 0, startwatch.failed(self.duties))
        self.do("kill", Slot("init"), signal.SIGKILL)  # it would wait for ever
        self.do("waitid", P_PID, Slot("init"), self.siginfo, WEXITED, 0)
        self.go(startwatch.failed(self.duties))

    def _streams(self) -> None:
        """Put what becomes init's 0, 1 and 2 into slots."""
        self.mark("foreground")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            self.do("fcntl", number, F_DUPFD_CLOEXEC, ABOVE, result=name)
        if self.duties.inside is None:
            self.go("monitor")
            self._streams_of_nobody()

    def _streams_of_nobody(self) -> None:
        """Do the same where nobody waits: the log, or a console, in place of our own."""
        self.mark("detached")
        self.do("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)  # until init runs: else nobody hears
        self._has_parent("starter")
        self.close("report", "result_read")
        self.let("report", Slot("result_write"))
        self.do("setsid")
        self.do("chdir", self.text("/"))
        self.must("openat", m.AT_FDCWD, self.text("/dev/null"), CLOEXEC, result="stdin")
        self.do("openat", m.AT_FDCWD, self.text("/dev/null"), _RDWR | CLOEXEC, result="null")
        for number in range(3):
            self.do("dup3", Slot("null"), number, 0)
        self.close("null")
        if self.duties.console:
            self.close("stdin")
            for name in ("stdin", "stdout", "stderr"):
                self.let(name, -1)
        else:
            self._pipe_to_log()
        self._open_log()

    def _pipe_to_log(self) -> None:
        self.pipe("output", "stdout")
        self.let("stderr", Slot("stdout"))
        self.do("fcntl", Slot("output"), F_SETFL, NONBLOCK)
        uid, gid = self.duties.root_ids
        self.do("fchown", Slot("stdout"), uid, gid)  # so that /dev/stdout can be opened inside
        self.do("fchmod", Slot("stdout"), 0o622)

    def _open_log(self) -> None:
        """Open the log for appending; a symlink there is refused (CVE-2024-9676)."""
        log = str(self.duties.log)
        self.must(
            "openat",
            *(m.AT_FDCWD, self.text(log), startwatch.LOG_FLAGS, 0o600),
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

    def stage(self) -> None:
        """Be the stage; the monitor sleeps meanwhile."""
        self.mark("stage")
        self.let("role", _STAGE)
        self.do("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
        self._has_parent("monitor")
        self.do("setsid")
        self.pipe("go_read", "go_write")
        self.close("lifeline_write", "ready_read", "net_go_write")
        self.table.calls(self.program.stage)
        self.when("init", 0, "init")
        if self.duties.inside is None:  # else /proc is the container's, and of no use
            self.starttime("/proc/%d/stat", "init_starttime", Slot("init"))
        self._map_ids()
        self.table.calls(self.program.host)
        self.do("exit_group", 0)

    def _has_parent(self, name: str) -> None:
        """End where the parent, whose pid is in slot `name`, has ended before its death could be told."""
        self.do("getppid", result="parent")
        self.do(BRANCH, Slot("parent"), Slot(name), Label(f"has its {name}"))
        self.do("exit_group", _KILLED)
        self.mark(f"has its {name}")

    def _map_ids(self) -> None:
        """Have the setuid helpers of shadow map init's ids, both at once (newuidmap(1))."""
        helpers = {f"helper {number}": words for number, words in enumerate(self.program.maps)}
        for name in helpers:
            self.must("clone", signal.SIGCHLD, 0, 0, 0, 0, result=name)
            self.when(name, 0, name)
        for name, (program, *words) in helpers.items():
            refused = _refusal(self.duties.name, program, words[1:])
            self.table.calls([ended_well(name, refused)])
        self.go("ids are mapped")
        for name, command in helpers.items():
            self.mark(name)
            self._become(command)
        self.mark("ids are mapped")

    def _become(self, command: tuple[str, ...]) -> None:
        """Execute `command` with init's pid for each %d."""
        addresses = []
        for word in command:
            addresses.append(self.table.room(len(word.encode()) + 20))
            form = self.table.place(pattern(word.replace("%", "%%").replace("%%d", "%d")))
            self.do(TEXT, addresses[-1], form, *[Slot("init")] * word.count("%d"))
        self.do("rt_sigprocmask", 2, self.table.place(bytes(8)), 0, 8)
        self.execute(addresses)

    def init(self) -> None:
        """Be init, up to its execve; its failure is the monitor's to tell."""
        self.mark("init")
        self.let("role", _INIT)
        self.let("report", Slot("ready_write"))
        self.close("go_write")
        self.do("rt_sigprocmask", 2, self.table.place(bytes(8)), 0, 8)
        self.table.calls(self.program.init)
        if self.duties.inside is not None:
            execentry.execute(self, self.duties.inside)
        self.do("exit_group", _KILLED)

    def handler(self, words: Sentences) -> None:
        """Say what failed, and leave as the role demands."""
        text = self.table.room(words.longest + BUFFER)
        self.mark(HANDLER)
        places = {"head": HEAD, "name": NAME, "why": REASONS, "tail": TAIL, "status": STATUS}
        for name, offset in places.items():
            self.do(LOAD, words.table + offset, Slot(FAILED), result=name, width=4)
        self.do(LOAD, Slot("why"), Slot(ERRNO), result="why")
        self.do(BRANCH, Slot("status"), 0, Label("execve failed"))
        self.mark("say it")
        form = self.table.place(pattern("%s%s%s%s"))
        parts = map(Slot, ("head", "name", "why", "tail"))
        self.do(TEXT, text, form, *parts, result="count")
        self.do("write", Slot("report"), text, Slot("count"))
        self.mark("leave")
        self.when("role", _MONITOR, startwatch.failed(self.duties))
        self.when("init", 0, "nobody to kill")
        self.do("kill", Slot("init"), signal.SIGKILL)
        self.mark("nobody to kill")
        self.do("exit_group", Slot("status"))
        self.mark("execve failed")
        self.do(LOAD, words.execve, Slot(ERRNO), result="status")
        self.do(BRANCH, Slot(ERRNO), errno.ENOENT, Label("what is missing"))
        self.go("say it")
        self.mark("what is missing")
        self._explain()
        self.go("say it")

    def _explain(self) -> None:
        """Tell a program that is not there from one whose interpreter is not there: its first line, or "/lib…"."""
        self.do(LOAD, Slot(RECORD), 2, result="path")  # the first argument
        self.do("openat", m.AT_FDCWD, Slot("path"), CLOEXEC, result="file")
        self.when("file", -1, "say it")
        self.do(CLEAR, self.buffer, BUFFER)
        self.do("read", Slot("file"), self.buffer, BUFFER - 8)
        self.do(LOAD, self.buffer, 0, result="first", width=2)
        self.let("interpreter", self.buffer + 2)
        self.when("first", int.from_bytes(b"#!", "little"), "of a script")
        library = int.from_bytes(b"/lib", "little")
        self.do(FIND, self.buffer, BUFFER - 8, library, result="interpreter")
        self.do(BRANCH, Slot("interpreter"), 0, Label("say it"))
        self.go("its name is known")
        self.mark("of a script")
        self.do(LOAD, Slot("interpreter"), 0, result="first", width=1)
        self.do(BRANCH, Slot("first"), ord(" "), Label("a space"))
        self.go("its name is known")
        self.mark("a space")
        self.do(ADD, Slot("interpreter"), 1, result="interpreter")
        self.go("of a script")
        self.mark("its name is known")
        self.do(CUT, Slot("interpreter"))
        why = self.table.room(BUFFER)
        form = self.table.place(pattern("its interpreter %s is missing"))
        self.do(TEXT, why, form, Slot("interpreter"))
        self.let("why", why)
