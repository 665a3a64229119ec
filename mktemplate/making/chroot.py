"""Builds where no namespace can be had, as in an unprivileged container: a plain chroot(2), recorded as degraded.

The same protocol as `runtime.sandbox`. Without mounts there is no overlay: the layers are merged into a tree of their
own, and whatever differs from them after a call becomes `upper`, with the whiteouts that an overlay would have made.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import stat
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from provisioner import removal
from provisioner.content import OPAQUE, walk
from provisioner.flatten import flatten
from provisioner.sandbox import Around, Root
from provisioner.store import Layer
from runtime.errors import HostError, LaunchError
from runtime.kernel import process
from runtime.sandbox import TAIL, Finished

_NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_MOUNTED = ("dev", "tmp")  # what a sandbox mounts: nothing of it is kept
_MARK = (
    "user.overlay.mktemplate"  # on the folders of the layers; below this prefix nothing is copied
)
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
_ENDED = struct.Struct("=i?")

_Seen = dict[str, tuple[int, int]]  # path → inode and time of its last change


class ChrootSandbox:
    """A chroot for each call; satisfies `provisioner.sandbox.Sandbox`."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._merged: dict[Path, _Seen] = {}  # by upper

    @property
    def degraded(self) -> str:
        """Return why it is weaker than asked."""
        return "sandbox: a plain chroot, for this host gives no namespaces"

    def run(
        self,
        root: Root,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        timeout: float,
        around: Around | None = None,
    ) -> Finished:
        """Run `argv` (absolute path below `root`) as root for at most `timeout` seconds; nothing can be covered."""
        begun = b"1"  # whether the program goes on, and what came before it
        if around:
            begun = self.call(root, lambda: b"%d%b" % around.before(lambda: None, {}))
        if begun[:1] != b"1":
            return Finished(status=0, output=b"", begun=begun[1:])
        top = self._assemble(root)
        _refuse_bare(top)
        output, tell = os.pipe2(os.O_CLOEXEC)
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

        def body(report: int) -> None:
            os.write(report, _supervise(argv, environment, (tell, proc), timeout))

        times = _furnish(top)
        try:
            pid, report = _fork(top, body)
            os.close(tell)
            said = _read(output)[-TAIL:]
            answer = _read(report)
            os.waitpid(pid, 0)
        finally:
            os.close(proc)
            _clear(times)
        self._keep(root)
        killed = _ENDED.pack(128 + signal.SIGKILL, False)
        status, timed_out = _ENDED.unpack_from(answer if len(answer) >= _ENDED.size else killed)
        names = answer[_ENDED.size :].decode(errors="replace").split("\0")
        left = tuple(filter(None, names))
        done = around.after if around and not (status or timed_out or left) else None
        return Finished(
            status=status,
            output=said,
            timed_out=timed_out,
            leftover=left,
            begun=begun[1:],
            answer=self.call(root, done) if done else b"",
        )

    def call(self, root: Root, function: Callable[[], bytes]) -> bytes:
        """Return what `function` returns when it is called in a child below `root`."""
        with self.begin(root, function) as answer:
            return answer()

    @contextmanager
    def begin(self, root: Root, function: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
        """Call `function` as `call` does, beside the block; what is yielded waits for what it returns."""
        pid, report = _fork(self._assemble(root), lambda tell: _answer(function, tell))
        pidfd = os.pidfd_open(pid)

        def answered() -> bytes:
            answer = _read(report)
            if answer[:1] != b"=":
                trace = answer[1:].decode(errors="replace") or "it was killed"
                raise LaunchError(
                    "E_SCRIPT_FAILED", str(root.upper), f"sandboxed function: {trace}"
                )
            self._keep(root)
            return answer[1:]

        try:
            yield answered
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # a zombie takes it, too
            os.waitpid(pid, 0)
            os.close(pidfd)

    def _assemble(self, root: Root) -> Path:
        """Return the tree that becomes the root: `upper` itself, or the layers merged once."""
        if not root.lowers or root.work is None:
            return root.upper
        top = root.work / "merged"
        if root.upper not in self._merged:
            top.mkdir()
            flatten([Layer(digest="", path=path, origin="") for path in reversed(root.lowers)], top)
            _mark_folders(top)
            self._merged[root.upper] = _seen(top)
        return top

    def _keep(self, root: Root) -> None:
        """Make `upper` what the merged tree has and the layers have not."""
        before = self._merged.get(root.upper)
        if before is None or root.work is None:
            return
        removal.empty(root.upper)
        _Difference(root.work / "merged", root.upper, before).write()


class _Difference:
    """What is new in `top` since it was `before`, written to `upper` as an overlay would have."""

    def __init__(self, top: Path, upper: Path, before: _Seen) -> None:
        self._top, self._upper, self._before = top, upper, before
        self._now = _seen(top)
        self._folders: list[str] = []

    def write(self) -> None:
        """Fill the empty `upper`."""
        for path, seen in self._now.items():
            if path and self._before.get(path) != seen:
                self._changed(path)
        for path in self._before:
            if path not in self._now:
                self._gone(path)
        for path in reversed(self._folders):
            _copy_metadata(self._top / path, self._upper / path)

    def _changed(self, path: str) -> None:
        source = self._top / path
        if source.is_dir() and not source.is_symlink():
            self._folder(path)
            return
        self._folder(os.path.dirname(path))
        os.link(source, self._upper / path, follow_symlinks=False)

    def _folder(self, path: str) -> None:
        target = self._upper / path
        if not path or target.is_dir():
            return
        self._folder(os.path.dirname(path))
        target.mkdir(mode=0o700)
        self._folders.append(path)
        if path in self._before and not self._is_old(path):
            os.setxattr(target, OPAQUE, b"y")

    def _gone(self, path: str) -> None:
        parent = os.path.dirname(path)
        if parent not in self._now or not self._is_old(parent):
            return  # the folder itself has gone, or is another one
        self._folder(parent)
        os.mknod(self._upper / path, stat.S_IFCHR, 0)

    def _is_old(self, path: str) -> bool:
        """Whether the folder `path` is the one that the layers had: an inode's number may be another's by now."""
        return _MARK in os.listxattr(self._top / path, follow_symlinks=False)


def _mark_folders(top: Path) -> None:
    for entry in walk(top):
        if stat.S_ISDIR(entry.status.st_mode):
            os.setxattr(top / entry.path, _MARK, b"y")


def _seen(top: Path) -> _Seen:
    return {
        entry.path: (entry.status.st_ino, entry.status.st_ctime_ns)
        for entry in walk(top)
        if entry.path.partition("/")[0] not in _MOUNTED
    }


def _copy_metadata(source: Path, target: Path) -> None:
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("user.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _furnish(top: Path) -> dict[Path, tuple[int, int]]:
    """Make the devices that scripts need; return the times of the folders that must not show it."""
    times = {}
    for name in _MOUNTED:
        folder = top / name
        if folder.is_dir() and not folder.is_symlink():
            status = folder.stat()
            times[folder] = (status.st_atime_ns, status.st_mtime_ns)
    if top / "dev" in times:
        for name, major, minor in _NODES:
            os.mknod(top / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chmod(top / "dev" / name, 0o666)  # noqa: S103  # as everywhere; the umask took some
        if not os.path.lexists(top / "dev/shm"):  # a package's may be a symlink
            os.mkdir(top / "dev/shm")
            os.chmod(top / "dev/shm", 0o1777)  # noqa: S103  # anybody's, as in a sandbox
    return times


def _clear(times: Mapping[Path, tuple[int, int]]) -> None:
    """Empty the folders that a sandbox would have mounted over, and give them their times back."""
    for folder, then in times.items():
        removal.empty(folder)
        os.utime(folder, ns=then)


def _refuse_bare(top: Path) -> None:
    """Refuse a file system on which no device opens or no program starts: here none can be mounted over it."""
    flags = os.statvfs(top).f_flag
    lacking = [
        word for flag, word in ((os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec")) if flags & flag
    ]
    if lacking:
        raise HostError(
            "E_KERNEL_FEATURE",
            str(top),
            f"is mounted {','.join(lacking)}, where nothing can be configured without mounts of its own",
            hints=("--path DIR on a file system without these options",),
        )


def _fork(top: Path, body: Callable[[int], None]) -> tuple[int, int]:
    """Fork a child that calls `body` below `top`; return its pid and where its report can be read."""
    report, tell = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(report)
            os.setsid()
            os.umask(0o022)
            os.chroot(top)
            os.chdir("/")
            body(tell)
        finally:
            os._exit(0)
    os.close(tell)
    return pid, report


def _answer(function: Callable[[], bytes], report: int) -> None:
    try:
        answer = b"=" + function()
    except BaseException:  # noqa: BLE001  # whatever it is, the caller must hear of it
        answer = b"?" + traceback.format_exc().encode()
    view = memoryview(answer)
    while view:
        view = view[os.write(report, view) :]


def _supervise(
    argv: Sequence[str], environment: Mapping[str, str], ends: tuple[int, int], timeout: float
) -> bytes:
    """Run the program; kill what it leaves, or all of it when its time is over; return how it ended."""
    output, proc = ends
    process.prctl(_SUBREAPER, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = os.fork()
    if child == 0:
        _execute(argv, environment, output)
    os.close(output)
    pidfd = os.pidfd_open(child)
    timed_out = not select.select([pidfd], [], [], timeout)[0]
    if timed_out:
        _kill_children(proc)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    names = _kill_children(proc)
    return _ENDED.pack(status if status >= 0 else 128 - status, timed_out) + b"\0".join(names)


def _kill_children(proc: int) -> list[bytes]:
    """Kill whoever has become our child, until nobody is; return their names."""
    names: list[bytes] = []
    own = os.getpid()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = _file(proc, f"{own}/task/{own}/children").split()
        living = [pid for pid in pids if b") Z " not in _file(proc, f"{int(pid)}/stat")]
        if not living:
            break
        for pid in living:
            names.append(_file(proc, f"{int(pid)}/comm").strip())
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.002)
    return names


def _file(proc: int, path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:  # it has ended
        return b""
    with open(descriptor, "rb") as file:
        try:
            return file.read()
        except OSError:
            return b""


def _execute(argv: Sequence[str], environment: Mapping[str, str], output: int) -> NoReturn:
    """Become the program, in a session of its own; 126 or 127 where it cannot be."""
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_range(3, 0xFFFFFFFF, process.CLOSE_RANGE_CLOEXEC)
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.execve(argv[0], list(argv), dict(environment))  # noqa: S606  # there is no shell
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    finally:
        os._exit(126)


def _read(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    os.close(descriptor)
    return b"".join(chunks)
