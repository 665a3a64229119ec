"""How a Program's three lists come to life as processes.

    parent ── stage (performs `stage` up to the clone, then `host`; ends at once)
       └───── init, a child of the parent by CLONE_PARENT (performs `init`, then the body)

The parent learns init's pid from the stage, and a failure from whichever of the two had it. Death travels downwards:
both die with the parent, and with init, being pid 1 of its namespace, all that runs inside.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from runtime.errors import ContainerError, HostError, LaunchError
from runtime.kernel import process
from runtime.kernel.libc import NUMBERS
from runtime.perform import UNEXPECTED, Failed, perform
from runtime.program import Call, Program, Run, Step
from valuetypes import dataclass

_PID = struct.Struct("=i")
_FAILED = struct.Struct("=Bii")  # which list, index, errno
_STAGE, _HOST, _INIT = range(3)
_HOST_CODES = {
    "E_KERNEL_FEATURE",
    "E_USERNS_DISABLED",
    "E_CGROUP",
    "E_SECCOMP",
    "E_FS_UNSUITABLE",
    "E_OVERLAY_RO",
}

# What init does in the end, with its end of the report, and with the results of the program's calls.
Body = Callable[[int, Mapping[str, int]], NoReturn]
FAILURE, TRACE, ANSWER, REFUSED = b"!", b"?", b"=", b"-"  # the first byte of a report


@dataclass(slots=True)
class Pipe:
    """Both ends of a pipe; an end that is closed is -1."""

    read: int
    write: int

    @classmethod
    def open(cls) -> Pipe:
        """Make one that no program inherits."""
        return cls(*os.pipe2(os.O_CLOEXEC))

    def close_read(self) -> None:
        """Close the reading end."""
        if self.read >= 0:
            os.close(self.read)
        self.read = -1

    def close_write(self) -> None:
        """Close the writing end."""
        if self.write >= 0:
            os.close(self.write)
        self.write = -1

    def close(self) -> None:
        """Close what is open."""
        self.close_read()
        self.close_write()


@dataclass(slots=True)
class Born:
    """A pid 1, seen from its parent."""

    program: Program
    pid: int
    pidfd: int
    report: int  # read end: FAILURE, TRACE or ANSWER and what belongs to it; ends at exec
    lifeline: int  # while it is open, the parent lives

    def wait(self) -> int:
        """Reap it when it has ended, and return the status that the kernel encoded for it."""
        _, status = os.waitpid(self.pid, 0)
        return status

    def kill(self) -> None:
        """Kill it, and thereby everything in its pid namespace."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in (self.pidfd, self.report, self.lifeline):
            os.close(descriptor)

    def heard(self) -> bytes:
        """Return all that it reports, once it has closed its end."""
        chunks = []
        while chunk := os.read(self.report, 1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)


def bear(program: Program, subject: str, body: Body, slots: Mapping[str, int]) -> Born:
    """Perform `program`; init then runs `body`. Raises what a failed stage means."""
    if not NUMBERS:
        raise HostError("E_KERNEL_FEATURE", os.uname().machine, "is not a machine we know")
    go, report, lifeline, pids = (Pipe.open() for _ in range(4))
    os.set_blocking(lifeline.read, False)
    parent = os.getpid()
    stage = os.fork()
    if stage == 0:
        try:
            for pipe in (report, pids):
                pipe.close_read()
            lifeline.close_write()
            mine = {
                "go_read": go.read,
                "go_write": go.write,
                "lifeline": lifeline.read,
            }
            _live(program, {**slots, **mine}, parent, (report.write, pids.write), body)
        finally:
            os._exit(70)
    go.close()
    report.close_write()
    pids.close_write()
    lifeline.close_read()
    data = os.read(pids.read, _PID.size)
    pids.close_read()
    os.waitpid(stage, 0)
    if len(data) < _PID.size:
        lifeline.close_write()
        with os.fdopen(report.read, "rb") as file:
            raise failure(program, file.read(), subject)
    (pid,) = _PID.unpack(data)
    return Born(program, pid, os.pidfd_open(pid), report.read, lifeline.write)


def failure(program: Program, report: bytes, subject: str) -> ContainerError:
    """Return the error that a report of FAILURE stands for; raise RuntimeError for one of TRACE, a bug of ours."""
    if report[:1] == REFUSED:
        return HostError(
            "E_NEWUIDMAP",
            subject,
            report[1:].decode(errors="replace"),
            hints=("compare /etc/subuid and /etc/subgid with lxc.idmap",),
        )
    if report[:1] == TRACE:
        raise RuntimeError(report[1:].decode(errors="replace"))
    try:
        which, index, number = _FAILED.unpack_from(report, 1)
    except struct.error:
        reason = report[1:].decode(errors="replace") or "it was killed while it started"
        return LaunchError("E_INIT_DIED", subject, reason)
    call = (program.stage, program.host, program.init)[which][index]
    if isinstance(call, Run):
        words = call.unexpected
        how = f"ended with {-number}" if number < 0 else os.strerror(number)
        return LaunchError(words.code, words.subject, f"{words.detail}: {how}")
    words = call.unexpected if number == UNEXPECTED else call.failure
    reason = "" if number == UNEXPECTED else os.strerror(number)
    more = report[1 + _FAILED.size :].decode(errors="replace")
    if words is None:
        return LaunchError("E_KERNEL_FEATURE", subject, f"{call.name}: {reason or 'unexpected'}")
    parts = [words.detail, more, f"{call.name}: {reason}" if reason and not more else ""]
    detail = ": ".join(filter(None, parts))
    if words.code in _HOST_CODES:
        return HostError(words.code, words.subject, detail, hints=words.hints)
    error = LaunchError(words.code, words.subject, detail, hints=words.hints)
    error.status = exec_status(number) if call.name == "execve" else 125
    return error


def _live(
    program: Program,
    slots: dict[str, int],
    parent: int,
    reports: tuple[int, int],
    body: Body,
) -> NoReturn:
    """Be the stage, and after the clone init too."""
    report, _ = reports
    life = _Life(program, slots, _STAGE)
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.setsid()  # a terminal's Ctrl-C is the parent's affair
        _default_signals()
        life.walk(reports, body)
    except Failed as failed:
        more = explain(failed, program.init) if life.which == _INIT else b""
        os.write(report, FAILURE + _FAILED.pack(life.which, failed.index, failed.number) + more)
    except PermissionError as refused:
        os.write(report, REFUSED + str(refused).encode())
    except BaseException:  # noqa: BLE001  # a bug of ours: the parent must hear of it
        os.write(report, TRACE + traceback.format_exc().encode())
    if life.which == _HOST:
        os.kill(slots["init"], signal.SIGKILL)
    os._exit(1)


@dataclass(slots=True)
class _Life:
    """Which list of the program this process is at."""

    program: Program
    slots: dict[str, int]
    which: int

    def walk(self, reports: tuple[int, int], body: Body) -> NoReturn:
        """Perform the lists; init goes on with `body`, the stage ends."""
        report, pids = reports
        perform(self.program.stage, self.slots)
        if self.slots["init"] == 0:
            self.which = _INIT
            os.close(self.slots["go_write"])
            os.close(pids)
            perform(self.program.init, self.slots)
            body(report, self.slots)
        self.which = _HOST
        _map(self.program.maps, self.slots["init"])
        perform(self.program.host, self.slots)
        os.write(pids, _PID.pack(self.slots["init"]))
        os._exit(0)


def _map(commands: tuple[tuple[str, ...], ...], init: int) -> None:
    """Have the setuid helpers of shadow map the ids of `init`: a normal user may not (newuidmap(1))."""
    for program, *words in commands:
        argv = [program, *(word.replace("%d", str(init)) for word in words)]
        child = os.posix_spawn(program, argv, {})
        if os.waitpid(child, 0)[1]:
            raise PermissionError(f"{program} refuses the map {' '.join(words[1:])}")


def _default_signals() -> None:
    """Undo what Python and our callers ignore or block: it would pass on to every program (I-23)."""
    for number in range(1, signal.NSIG):  # valid_signals() makes an enum of each
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def explain(failed: Failed, steps: tuple[Step, ...]) -> bytes:
    """Return why an execve failed, for people (F-28); nothing for another call. Runs inside the root."""
    call = steps[failed.index]
    path = call.args[0] if isinstance(call, Call) and call.name == "execve" else None
    if not isinstance(path, bytes):
        return b""
    path = path.rstrip(b"\0")
    if failed.number == errno.ENOENT:
        try:
            with open(path, "rb") as file:
                head = file.read(4096)
        except OSError:
            return b"not found in the rootfs"
        return b"its interpreter %b is missing" % _interpreter(head)
    if failed.number in {errno.EACCES, errno.EPERM}:
        return b"not executable"
    return b"no program for this machine" if failed.number == errno.ENOEXEC else b""


def _interpreter(head: bytes) -> bytes:
    """Return the interpreter that a script, or an ELF program's loader segment, names."""
    if head.startswith(b"#!"):
        return head[2:].split(b"\n")[0].strip().split(b" ")[0]
    start = head.find(b"/lib")
    return head[start : head.find(b"\0", start)] if start > 0 else b"(unknown)"


def exec_status(number: int) -> int:
    """Return the exit status that tells why execve failed: 127 not found, 126 not executable, else 125."""
    if number in {errno.ENOENT, errno.ENOTDIR}:
        return 127
    return 126 if number in {errno.EACCES, errno.EPERM, errno.ENOEXEC} else 125


def gone(pidfd: int, timeout: float | None = None) -> bool:
    """Whether the process of `pidfd` has ended, at the latest after `timeout` seconds (None: wait)."""
    return bool(select.select([pidfd], [], [], timeout)[0])
