"""Layers → one plain directory: what an overlay of them would show, for `--flat` and for exports.

Everything goes by descriptor, one component at a time, so no symlink of a layer is ever followed. Owners are numeric.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from provisioner import errand
from provisioner.content import OPAQUE
from provisioner.disk import disk_error
from provisioner.errors import StoreFailed
from provisioner.sandbox import Root, Sandbox
from provisioner.store import Layer

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_DEPTH = 512
_COPY = 1 << 30  # bytes that one sendfile(2) may move


def flatten(layers: Sequence[Layer], target: Path, sandbox: Sandbox | None = None) -> None:
    """Fill the empty directory `target` with what `layers`, bottom first, come to; `sandbox` as `Store` has it.

    Whiteouts hide what is below, opaque directories all of it; neither is copied. Raises StoreFailed for the disk.
    """
    try:
        with ExitStack() as opened:
            sources = [_opened(layer.path, opened) for layer in layers]
            if sandbox is None:
                _merge(sources, _opened(target, opened))
            else:
                errand.send(sandbox, Root(upper=target), lambda: _merge(sources))
    except OSError as problem:
        raise disk_error(problem, target) from problem


def _opened(path: Path, opened: ExitStack) -> int:
    directory = os.open(path, _DIRECTORY)
    opened.callback(os.close, directory)
    return directory


def _merge(sources: Sequence[int], target: int | None = None) -> None:
    """Merge the open layers into `target`, else into the root of an errand."""
    top = os.open("/", _DIRECTORY) if target is None else target
    for source in sources:
        _Merge(top).directory(source, top, "", 0)


class _Merge:
    """One layer on its way over what is in the target already."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._links: dict[tuple[int, int], str] = {}  # inode with several names → its first path

    def directory(self, source: int, target: int, prefix: str, depth: int) -> None:
        """Merge the directory open as `source` into the one open as `target`; its metadata comes last."""
        if depth > _DEPTH:
            raise StoreFailed("E_LIMIT", prefix[:80], f"deeper than {_DEPTH} directories")
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, target, name, prefix, depth)
            else:
                _delete(target, name)
                if not _is_whiteout(status):
                    self._object(source, target, name, prefix, status)
        _copy_metadata(source, target, os.fstat(source))

    def _subdirectory(self, source: int, target: int, name: str, prefix: str, depth: int) -> None:
        below = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            if _is_opaque(below) or not _is_directory(target, name):
                _delete(target, name)
                os.mkdir(name, 0o700, dir_fd=target)
            there = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self.directory(below, there, f"{prefix}{name}/", depth + 1)
            finally:
                os.close(there)
        finally:
            os.close(below)

    def _object(
        self, source: int, target: int, name: str, prefix: str, status: os.stat_result
    ) -> None:
        """Copy what is no directory, its hard links as hard links."""
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), prefix + name)
            if first != prefix + name:
                os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            _copy_file(source, target, name, status)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    return OPAQUE in os.listxattr(fd) and os.getxattr(fd, OPAQUE) == b"y"


def _is_directory(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    reading = os.open(name, _FILE, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            done = 0
            while done < status.st_size:
                moved = os.sendfile(writing, reading, done, min(_COPY, status.st_size - done))
                if not moved:
                    break
                done += moved
            _copy_metadata(reading, writing, status)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))  # after fchown, which clears setuid
    for name in os.listxattr(source):
        if not name.startswith("user.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _delete(parent: int, name: str) -> None:
    """Remove `name` from the tree that is being built, with all below it."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        below = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            for inner in os.listdir(below):
                _delete(below, inner)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=parent)
