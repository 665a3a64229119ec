"""The small container that the provisioner borrows, to unpack into a root and to run a package's scripts in it.

    caller ── stage (own mount namespace; maps init's ids, attaches the layers; ends at once)
      └────── init, a child of the caller: all namespaces, pivoted; calls the function, or reaps the program

Death travels downwards: stage and init die with the caller, and with init, being pid 1, all that runs inside.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from runtime import capabilities, steps
from runtime.errors import HostError, LaunchError
from runtime.idmap import IdMap
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.kernel.libc import NUMBERS
from runtime.perform import UNEXPECTED, Failed, perform
from runtime.program import Call, Failure, Program, Slot
from runtime.rootfs import die_with_parent, enter, map_ids, private, stage, wait_for_go

TAIL = 64 << 10  # bytes of output that are kept
_FAILED = struct.Struct("=Bii")  # which list, index, errno
_ENDED = struct.Struct("=i")
_STAGE, _HOST, _INIT = range(3)


class Root(Protocol):
    """The tree that becomes `/`: `upper` alone, or an overlay of it over `lowers`, topmost first."""

    @property
    def upper(self) -> Path:
        """What is written to."""
        ...

    @property
    def lowers(self) -> tuple[Path, ...]:
        """What is below it."""
        ...

    @property
    def work(self) -> Path | None:
        """The overlay's work directory."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a sandboxed program ended."""

    status: int
    output: bytes
    timed_out: bool = False
    leftover: tuple[str, ...] = ()


@dataclass(slots=True)
class _Pipe:
    read: int
    write: int

    @classmethod
    def open(cls) -> _Pipe:
        return cls(*os.pipe2(os.O_CLOEXEC))

    def close(self) -> None:
        for descriptor in (self.read, self.write):
            if descriptor >= 0:
                os.close(descriptor)
        self.read = self.write = -1

    def keep_read(self) -> None:
        os.close(self.write)
        self.write = -1

    def keep_write(self) -> None:
        os.close(self.read)
        self.read = -1


class KernelSandbox:
    """Namespaces of its own for each call, with the ids of `idmap`; satisfies `provisioner.sandbox.Sandbox`."""

    def __init__(self, idmap: IdMap) -> None:
        """Use the host ids of `idmap` for whatever runs inside; on disk owners stay as they are inside."""
        self._idmap = idmap

    @property
    def degraded(self) -> str:
        """Return why it is weaker than asked: it is not."""
        return ""

    def run(
        self, root: Root, argv: Sequence[str], *, environment: Mapping[str, str], timeout: float
    ) -> Finished:
        """Run `argv` (absolute path below `root`) as its root user for at most `timeout` seconds."""
        program = _program(root, self._idmap, with_system=True)
        output = _Pipe.open()

        def body(report: int) -> NoReturn:
            _reap(argv, environment, output.write, report)

        try:
            init = _Init.start(program, root.upper, body, keep=(output.write,))
            output.keep_read()
            return init.watch(output.read, time.monotonic() + timeout)
        finally:
            output.close()

    def call(self, root: Root, function: Callable[[], bytes]) -> bytes:
        """Return what `function` returns when it is called in a child that has pivoted into `root`."""
        program = _program(root, self._idmap, with_system=False)

        def body(report: int) -> NoReturn:
            _answer(function, report)

        answer = _Init.start(program, root.upper, body).answer()
        if answer[:1] != b"=":
            raise LaunchError(
                "E_SCRIPT_FAILED",
                str(root.upper),
                f"the sandboxed function failed: {answer[1:].decode(errors='replace') or 'killed'}",
            )
        return answer[1:]


def _program(root: Root, idmap: IdMap, *, with_system: bool) -> Program:
    """Decide the calls that lead from the host into `root`."""
    flags = (
        ns.CLONE_NEWNS | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWNET | ns.CLONE_NEWCGROUP
    )
    layers = stage(
        root.lowers, root.upper, root.work, "build", m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOSUID
    )
    system: tuple[Call, ...] = ()
    if with_system:
        system = (
            *steps.device_directory(),
            *steps.proc(),
            *steps.empty(),
            *steps.mask_files("proc", steps.MASKED_FILES),
            *steps.mask_directories("proc", steps.MASKED_DIRECTORIES),
            *steps.read_only("proc", steps.READ_ONLY),
            *steps.scratch("tmp", "mode=1777", attributes=m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOSUID),
        )
    return Program(
        stage=(
            *private(),
            *(steps.host_devices() if with_system else ()),
            *layers.clone,
            Call(
                name="clone",
                args=(
                    ns.CLONE_NEWUSER | ns.CLONE_NEWPID | ns.CLONE_PARENT | signal.SIGCHLD,
                    0,
                    0,
                    0,
                    0,
                ),
                result="init",
                failure=Failure("E_USERNS_DISABLED", "user namespace"),
            ),
        ),
        host=(
            *map_ids(idmap),
            *layers.attach,
            Call(name="write", args=(Slot("go_write"), b"g", 1)),
        ),
        init=(
            *wait_for_go(),
            *die_with_parent(),
            *enter(flags),
            *layers.root,
            *system,
            *steps.pivot(),
            Call(name="sethostname", args=(b"build", 5)),
            *capabilities.bound(capabilities.BUILD, capabilities.last()),
            *capabilities.limit(capabilities.BUILD),
            Call(name="prctl", args=(process.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            Call(name="prctl", args=(process.PR_SET_DUMPABLE, 0, 0, 0, 0)),
        ),
    )


@dataclass(slots=True)
class _Init:
    """A started pid 1, seen from the caller, whose child it is."""

    program: Program
    pid: int
    pidfd: int
    report: int
    subject: str
    lifeline: int

    @classmethod
    def start(
        cls,
        program: Program,
        subject: Path,
        body: Callable[[int], NoReturn],
        keep: tuple[int, ...] = (),
    ) -> _Init:
        """Fork the stage, which clones init; `body` is what init does when it has arrived."""
        if not NUMBERS:
            raise HostError("E_KERNEL_FEATURE", os.uname().machine, "is not a machine we know")
        go, report, lifeline, pids = (_Pipe.open() for _ in range(4))
        os.set_blocking(lifeline.read, False)
        caller = os.getpid()
        stage_pid = os.fork()
        if stage_pid == 0:
            try:
                for pipe in (report, pids):
                    pipe.keep_write()
                lifeline.keep_read()
                slots = {
                    "go_read": go.read,
                    "go_write": go.write,
                    "lifeline": lifeline.read,
                }
                _stage(program, slots, caller, (report.write, pids.write), body)
            finally:
                os._exit(70)
        for pipe in (report, pids):
            pipe.keep_read()
        go.close()
        os.close(lifeline.read)
        try:
            data = os.read(pids.read, _ENDED.size)
        finally:
            os.close(pids.read)
        os.waitpid(stage_pid, 0)
        if not data:
            os.close(lifeline.write)
            with os.fdopen(report.read, "rb") as file:
                raise _failure(program, file.read(), str(subject))
        (pid,) = _ENDED.unpack(data)
        return cls(program, pid, os.pidfd_open(pid), report.read, str(subject), lifeline.write)

    def answer(self) -> bytes:
        """Return all that it reports, once it is gone."""
        try:
            chunks = []
            while chunk := os.read(self.report, 1 << 20):
                chunks.append(chunk)
            answer = b"".join(chunks)
        finally:
            self._close()
        if answer[:1] == b"!":
            raise _failure(self.program, answer[1:], self.subject)
        return answer

    def watch(self, output: int, deadline: float) -> Finished:
        """Collect what it writes to `output` until it ends, or kill it at `deadline`."""
        tail = bytearray()
        os.set_blocking(output, False)
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        timed_out = ended = False
        try:
            while not ended:
                left = deadline - time.monotonic()
                events = dict(poll.poll(max(0, int(left * 1000) + 1)))
                if left <= 0:
                    timed_out = ended = True
                ended = ended or self.pidfd in events
                if output in events and not _drain(output, tail):
                    poll.unregister(output)
            if timed_out:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                select.select([self.pidfd], [], [])
            _drain(output, tail)
        except BaseException:
            self._close()
            raise
        answer = self.answer()
        return _finished(answer, bytes(tail), timed_out)

    def _close(self) -> None:
        """Kill what is left, and reap it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for descriptor in (self.pidfd, self.report, self.lifeline):
            os.close(descriptor)


def _drain(descriptor: int, tail: bytearray) -> bool:
    """Append what is there to `tail`, keep its end; return False at the end of the file."""
    while True:
        try:
            chunk = os.read(descriptor, TAIL)
        except BlockingIOError:
            return True
        tail += chunk
        del tail[:-TAIL]
        if not chunk:
            return False


def _finished(answer: bytes, output: bytes, timed_out: bool) -> Finished:
    if answer[:1] != b"=":
        return Finished(status=128 + signal.SIGKILL, output=output, timed_out=timed_out)
    (status,) = _ENDED.unpack_from(answer, 1)
    names = answer[1 + _ENDED.size :].decode(errors="replace").split("\0")
    return Finished(
        status=status, output=output, timed_out=timed_out, leftover=tuple(filter(None, names))
    )


def _failure(program: Program, report: bytes, subject: str) -> LaunchError | HostError:
    """Return the error that a list's failed call stands for."""
    try:
        which, index, number = _FAILED.unpack(report[: _FAILED.size])
    except struct.error:
        return LaunchError("E_SCRIPT_FAILED", subject, "the sandbox was killed while it was made")
    call = (program.stage, program.host, program.init)[which][index]
    failure = call.unexpected if number == UNEXPECTED else call.failure
    reason = "unexpected answer" if number == UNEXPECTED else os.strerror(number)
    if failure is None:
        return LaunchError("E_KERNEL_FEATURE", subject, f"{call.name}: {reason}")
    detail = (
        f"{failure.detail}: {call.name}: {reason}" if failure.detail else f"{call.name}: {reason}"
    )
    return HostError(failure.code, failure.subject, detail)


def _stage(
    program: Program,
    slots: dict[str, int],
    caller: int,
    reports: tuple[int, int],
    body: Callable[[int], NoReturn],
) -> NoReturn:
    """Perform the program's three lists in their processes; never return."""
    report, pids = reports
    which, marker = _STAGE, b""
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != caller:
            os._exit(1)
        perform(program.stage, slots)
        if slots["init"] == 0:
            which, marker = _INIT, b"!"
            os.close(slots["go_write"])
            os.close(pids)
            perform(program.init, slots)
            body(report)
        which = _HOST
        perform(program.host, slots)
        os.write(pids, _ENDED.pack(slots["init"]))
        os._exit(0)
    except Failed as failed:
        os.write(report, marker + _FAILED.pack(which, failed.index, failed.number))
        if which == _HOST:
            os.kill(slots["init"], signal.SIGKILL)
        os._exit(1)


def _answer(function: Callable[[], bytes], report: int) -> NoReturn:
    """Be init for `call`: answer with what `function` returns."""
    try:
        os.umask(0o022)
        answer = b"=" + function()
    except BaseException:  # noqa: BLE001  # whatever it is, the caller must hear of it
        answer = b"?" + traceback.format_exc().encode()
    view = memoryview(answer)
    while view:
        view = view[os.write(report, view) :]
    os._exit(0)


def _reap(
    argv: Sequence[str], environment: Mapping[str, str], output: int, report: int
) -> NoReturn:
    """Be init for `run`: start the program, reap whatever ends, and name what the program leaves behind."""
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = os.fork()
    if child == 0:
        _execute(argv, environment, output)
    keep = sorted({report})
    process.close_range(0, keep[0] - 1)
    process.close_range(keep[0] + 1, 0xFFFFFFFF)
    status = None
    while status is None:
        pid, ended = os.wait()
        if pid == child:
            status = os.waitstatus_to_exitcode(ended)
    status = status if status >= 0 else 128 - status
    os.write(report, b"=" + _ENDED.pack(status) + b"\0".join(_others()))
    os._exit(0)


def _others() -> list[bytes]:
    """Return the names of the other processes of our pid namespace that are not dead already."""
    names = []
    for entry in os.listdir(b"/proc"):
        if entry.isdigit() and entry != b"1":
            try:
                with open(b"/proc/%b/stat" % entry, "rb") as file:
                    name, _, rest = file.read().partition(b"(")[2].rpartition(b") ")
            except OSError:  # it ended meanwhile
                continue
            if rest[:1] not in b"ZX":
                names.append(name)
    return names


def _execute(argv: Sequence[str], environment: Mapping[str, str], output: int) -> NoReturn:
    """Become the program, in a session of its own; 126 or 127 where it cannot be."""
    try:
        os.setsid()
        for number in signal.valid_signals():
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_range(3, 0xFFFFFFFF, process.CLOSE_RANGE_CLOEXEC)
        os.execve(argv[0], list(argv), dict(environment))  # noqa: S606  # there is no shell
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127 if error.errno == errno.ENOENT else 126)
    finally:
        os._exit(126)
