"""The small container that the provisioner borrows, to unpack into a root and to run a package's scripts in it.

Its pid 1 is ours: it calls the function, or it starts the program and reaps until that ends. All of it dies with the
caller (`birth`).
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, Protocol

from runtime import capabilities, confinement, kernelfs, steps
from runtime.birth import ANSWER, FAILURE, TRACE, Born, Pipe, bear, failure, gone
from runtime.errors import LaunchError
from runtime.idmap import IdMap, is_nested
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.program import Call, Failure, Program, Slot
from runtime.rootfs import Written, stage
from runtime.seccomp import compile_profile
from runtime.seccomp_profile import default_profile
from runtime.way import die_with_parent, map_commands, wait_for_go, way
from valuetypes import dataclass

_NOTHING: Mapping[str, str] = MappingProxyType({})
TAIL = 64 << 10  # bytes of output that are kept
_ENDED = struct.Struct("=iI")  # exit status, how many bytes of names follow
_SYNCS = frozenset(("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync"))


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
    answer: bytes = b""


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
        self,
        root: Root,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        timeout: float,
        covers: Mapping[str, str] = _NOTHING,
        after: Callable[[], bytes] | None = None,
    ) -> Finished:
        """Run `argv` (absolute path below `root`) as its root user for at most `timeout` seconds.

        `covers`: in place of which file of the root which other one is seen; `after`: what pid 1 calls at the end.
        """
        import subprocess  # noqa: F401  # here, as nothing can be imported inside

        output = Pipe.open()

        def body(report: int) -> NoReturn:
            _reap(argv, environment, output.write, report, after)

        try:
            with self._born(root, body, (*_system(), *_covered(covers))) as born:
                output.close_write()
                return _watch(born, output.read, time.monotonic() + timeout, str(root.upper))
        finally:
            output.close()

    def call(self, root: Root, function: Callable[[], bytes]) -> bytes:
        """Return what `function` returns when it is called in a child that has pivoted into `root`."""
        with self.begin(root, function) as answer:
            return answer()

    @contextmanager
    def begin(self, root: Root, function: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
        """Call `function` as `call` does, beside the block; what is yielded waits for what it returns."""

        def body(report: int) -> NoReturn:
            _answer(function, report)

        with self._born(root, body, ()) as born:
            yield lambda: _answered(born, str(root.upper))

    @contextmanager
    def _born(
        self, root: Root, body: Callable[[int], NoReturn], system: tuple[Call, ...]
    ) -> Iterator[Born]:
        """Have a pid 1 in `root`, furnished with `system`, for as long as the block lasts."""
        born = bear(_program(root, self._idmap, system), str(root.upper), body, {})
        try:
            yield born
        finally:
            born.kill()
            born.wait()
            born.close()


def _program(root: Root, idmap: IdMap, system: tuple[Call, ...]) -> Program:
    """Decide the calls that lead from the host into `root`; `system` mounts what programs expect there."""
    flags = (
        ns.CLONE_NEWNS | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWNET | ns.CLONE_NEWCGROUP
    )
    rootless = os.geteuid() != 0 or is_nested()
    attributes = m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOSUID
    written = Written(upper=root.upper, work=root.work)
    layers = stage(root.lowers, written, "build", attributes, mapped=not rootless)
    sources = (*(kernelfs.host_devices() if system else ()), *layers.clone)
    path = way(idmap, flags, sources, layers.attach, map_commands(idmap), rootless=rootless)
    return Program(
        stage=(
            *path.stage,
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
        maps=path.maps,
        host=path.host,
        init=(
            *wait_for_go(idmap),
            *die_with_parent(),
            *path.init,
            *layers.root,
            *system,
            *steps.pivot(),
            Call(name="sethostname", args=(b"build", 5)),
            *capabilities.bound(capabilities.BUILD, capabilities.last()),
            *capabilities.limit(capabilities.BUILD),
            Call(name="prctl", args=(process.PR_SET_DUMPABLE, 0, 0, 0, 0)),
            Call(name="prctl", args=(process.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            *confinement.seccomp(_filter()),
        ),
    )


def _system() -> tuple[Call, ...]:
    """Return how /dev, /proc and /tmp come to be.

    /dev/shm is everybody's: initdb(1) writes down which kind of shared memory its user can have.
    """
    anybodys = m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOSUID
    return (
        *kernelfs.device_directory(),
        *steps.scratch("dev/shm", "mode=1777", attributes=anybodys),
        *kernelfs.proc(),
        *kernelfs.mask_files("proc", kernelfs.MASKED_FILES),
        *kernelfs.mask_directories("proc", kernelfs.MASKED_DIRECTORIES),
        *kernelfs.read_only("proc", kernelfs.READ_ONLY),
        *steps.scratch("tmp", "mode=1777", attributes=anybodys),
    )


def _covered(covers: Mapping[str, str]) -> Iterator[Call]:
    """Yield what binds one file of the root over another; neither path may lead through a symlink."""
    ordinary = steps.how(os.O_PATH, steps.ORDINARY)
    for path, other in covers.items():
        for slot, name in (("target", path), ("source", other)):
            yield Call(
                name="openat2",
                args=(Slot("root"), steps.c(name.lstrip("/")), *ordinary),
                result=slot,
                failure=Failure("E_ROOTFS_SYMLINK", name, "must be an ordinary file"),
            )
        yield Call(
            name="open_tree",
            args=(
                Slot("source"),
                steps.c(""),
                m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH,
            ),
            result="cover",
        )
        yield steps.attach("cover", Slot("target"))
        yield from map(steps.close, ("cover", "source", "target"))


def _watch(born: Born, output: int, deadline: float, subject: str) -> Finished:
    """Collect what it writes to `output` until it ends, or kill it at `deadline`."""
    tail = bytearray()
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(born.pidfd, select.POLLIN)
    timed_out = ended = False
    while not ended:
        left = deadline - time.monotonic()
        events = dict(poll.poll(max(0, int(left * 1000) + 1)))
        if left <= 0:
            timed_out = ended = True
        ended = ended or born.pidfd in events
        if output in events and not _drain(output, tail):
            poll.unregister(output)
    if timed_out:
        born.kill()
        gone(born.pidfd)
    _drain(output, tail)
    report = born.heard()
    if report[:1] == FAILURE:
        raise failure(born.program, report, "sandbox")
    if report[:1] == TRACE:
        raise _broken(report, subject)
    return _finished(report, bytes(tail), timed_out)


@cache
def _filter() -> bytes:
    """Return the compiled filter of builds. A disk is not waited for: who keeps what was built syncs it once, whole."""
    lines = default_profile("build").split("\n")
    return compile_profile(
        "\n".join(f"{line} errno 0" if line in _SYNCS else line for line in lines), "build"
    )


def _answered(born: Born, subject: str) -> bytes:
    """Return what the function in `born` returned, or raise what became of it."""
    report = born.heard()
    if report[:1] == FAILURE:
        raise failure(born.program, report, subject)
    if report[:1] != ANSWER:
        raise _broken(report, subject)
    return report[1:]


def _broken(report: bytes, subject: str) -> LaunchError:
    """Return what became of a function that did not answer."""
    trace = report[1:].decode(errors="replace") or "it was killed"
    return LaunchError("E_SCRIPT_FAILED", subject, f"sandboxed function: {trace}")


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
    if answer[:1] != ANSWER:
        return Finished(status=128 + signal.SIGKILL, output=output, timed_out=timed_out)
    status, size = _ENDED.unpack_from(answer, 1)
    rest = answer[1 + _ENDED.size :]
    return Finished(
        status=status,
        output=output,
        timed_out=timed_out,
        leftover=tuple(filter(None, rest[:size].decode(errors="replace").split("\0"))),
        answer=rest[size:],
    )


def _answer(function: Callable[[], bytes], report: int) -> NoReturn:
    """Be init for `call`: answer with what `function` returns."""
    os.umask(0o022)
    _tell(report, function)


def _tell(report: int, function: Callable[[], bytes], before: bytes = b"") -> NoReturn:
    """Report `before` and what `function` returns, or what it raised; and end."""
    try:
        answer = ANSWER + before + function()
    except BaseException:  # noqa: BLE001  # whatever it is, the caller must hear of it
        answer = TRACE + traceback.format_exc().encode()
    view = memoryview(answer)
    while view:
        view = view[os.write(report, view) :]
    os._exit(0)


def _reap(
    argv: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    report: int,
    after: Callable[[], bytes] | None,
) -> NoReturn:
    """Be init for `run`: start the program, reap whatever ends, and name what the program leaves behind.

    Where it succeeded and left nothing, `after` is called: nobody else is in the root then.
    """
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = None
    try:
        child = _start(argv, environment, output)
    except OSError as error:
        os.write(output, f"{argv[0]}: {error.strerror}\n".encode(errors="replace"))
        status = 127 if error.errno == errno.ENOENT else 126
    process.close_range(0, report - 1)
    process.close_range(report + 1, 0xFFFFFFFF)
    while status is None:
        pid, ended = os.wait()
        if pid == child:
            status = os.waitstatus_to_exitcode(ended)
    status = status if status >= 0 else 128 - status
    names = b"\0".join(_others())
    done = after if after and not status and not names else bytes
    _tell(report, done, _ENDED.pack(status, len(names)) + names)


def _start(argv: Sequence[str], environment: Mapping[str, str], output: int) -> int:
    """Start the program in a session of its own, with nothing open but its output; return its pid.

    By vfork(2), as subprocess does: a copy of this process would take longer than most of what a driver starts.
    """
    from subprocess import DEVNULL, Popen  # `run` has imported it

    started = Popen(
        argv, env=environment, stdin=DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    started.returncode = 0  # `_reap` waits for whatever ends
    return started.pid


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
