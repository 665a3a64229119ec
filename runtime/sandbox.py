"""The small container that the provisioner borrows, to unpack into a root and to run a package's scripts in it.

Its pid 1 is ours: it calls the function, or it starts the program and reaps until that ends. All of it dies with the
caller (`birth`).
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NoReturn, Protocol

from runtime import capabilities, confinement, kernelfs, steps
from runtime.birth import ANSWER, FAILURE, TRACE, Body, Born, Pipe, bear, failure, gone
from runtime.errors import LaunchError
from runtime.idmap import IdMap, for_build, is_nested
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.program import Call, Failure, Program, Slot
from runtime.rootfs import Written, stage
from runtime.sandboxinit import ENDED, Started, answer, reap
from runtime.seccomp import compile_profile
from runtime.seccomp_profile import default_profile
from runtime.way import die_with_parent, map_commands, wait_for_go, way
from valuetypes import dataclass

TAIL = 64 << 10  # bytes of output that are kept
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


class Around(Protocol):
    """What a program finds, and what is called around it. See `provisioner.sandbox`."""

    @property
    def covers(self) -> Mapping[str, str]:
        """In place of which file of the root which other one is seen."""
        ...

    def before(self, start: Callable[[], None], originals: Mapping[str, int]) -> tuple[bool, bytes]:
        """Do what comes first; return whether the program goes on, and what `begun` is."""
        ...

    def after(self) -> bytes:
        """Do what comes last, where the program succeeded and left nothing running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a sandboxed program ended."""

    status: int
    output: bytes
    timed_out: bool = False
    leftover: tuple[str, ...] = ()
    begun: bytes = b""
    answer: bytes = b""


class KernelSandbox:
    """Namespaces of its own for each call, with host ids of ours; satisfies `provisioner.sandbox.Sandbox`."""

    def __init__(self, idmap: IdMap | None = None) -> None:
        """Use the host ids of `idmap` for whatever runs inside; on disk owners stay as they are inside.

        Without one they are those of builds, which are looked up when something first runs.
        """
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
        around: Around | None = None,
    ) -> Finished:
        """Run `argv` (absolute path below `root`) as its root user for at most `timeout` seconds.

        `around`: what it finds covered, and what pid 1 calls before and after it.
        """
        covers = around.covers if around else {}
        import subprocess  # noqa: F401  # here, as nothing can be imported inside

        output = Pipe.open()

        def body(report: int, slots: Mapping[str, int]) -> NoReturn:
            originals = {path: slots[_original(path)] for path in covers}
            started = Started(argv, environment, output.write, waits=around is not None)
            begin = partial(around.before, started, originals) if around else started.alone
            reap(started, begin, report, around.after if around else None)

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

        def body(report: int, _: Mapping[str, int]) -> NoReturn:
            answer(function, report)

        with self._born(root, body, ()) as born:
            yield lambda: _answered(born, str(root.upper))

    @contextmanager
    def _born(self, root: Root, body: Body, system: tuple[Call, ...]) -> Iterator[Born]:
        """Have a pid 1 in `root`, furnished with `system`, for as long as the block lasts."""
        self._idmap = self._idmap or for_build()
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
    """Yield what binds one file of the root over another; no path may lead through a symlink.

    A file that is to be seen instead is made where it is not there: who covers something may write it later. What is
    covered is open, for who has to read it; where it is not there, nothing is covered.
    """
    for path, other in covers.items():
        calls = tuple(_covering(path, other))
        yield Call(
            name="openat2",
            args=(Slot("root"), steps.c(path.lstrip("/")), *steps.how(os.O_RDONLY | os.O_NONBLOCK, steps.ORDINARY)),
            result=_original(path),
            ignore=(errno.ENOENT,),
            skip=len(calls),
            failure=Failure("E_ROOTFS_SYMLINK", path, "must be an ordinary file"),
        )  # fmt: skip
        yield from calls


def _original(path: str) -> str:
    """Return the slot of the file that is covered at `path`; -1 there: no such file."""
    return f"original {path}"


def _covering(path: str, other: str) -> Iterator[Call]:
    *folders, name = other.strip("/").split("/")
    failure = Failure("E_ROOTFS_SYMLINK", other, "must be an ordinary file")
    at = "root"
    for folder in folders:
        yield Call(name="mkdirat", args=(Slot(at), steps.c(folder), 0o755), ignore=(errno.EEXIST,))
        yield steps.open_directory(Slot(at), folder, "folder", failure)
        at = "folder"
    yield Call(
        name="openat2",
        args=(Slot(at), steps.c(name), *steps.how(os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK, steps.ORDINARY, 0o755)),
        result="source",
        failure=failure,
    )  # fmt: skip
    yield Call(
        name="open_tree",
        args=(Slot("source"), steps.c(""), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH),
        result="cover",
    )  # fmt: skip
    yield steps.attach("cover", Slot(_original(path)))
    yield from map(steps.close, ("cover", "source"))


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


def _finished(report: bytes, output: bytes, timed_out: bool) -> Finished:
    if report[:1] != ANSWER:
        return Finished(status=128 + signal.SIGKILL, output=output, timed_out=timed_out)
    status, names, begun = ENDED.unpack_from(report, 1)
    rest = report[1 + ENDED.size :]
    return Finished(
        status=status,
        output=output,
        timed_out=timed_out,
        leftover=tuple(filter(None, rest[:names].decode(errors="replace").split("\0"))),
        begun=rest[names : names + begun],
        answer=rest[names + begun :],
    )
