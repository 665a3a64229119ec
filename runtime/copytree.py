"""A container's tree copied as it is on disk: owners, modes, times, extended attributes, whiteouts, hard links, holes.

Everything goes by descriptor, one component at a time: nothing of a hostile tree is followed (I-1).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import ResourceError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 512
_CHUNK = 1 << 30  # bytes that one sendfile(2) may move


# Does some work as the root of the tree at a path: how a normal user reaches what its subordinate ids own.
Reach = Callable[[Path, Callable[[], bytes]], bytes]


def copy(top: Path, source: str, target: str, reach: Reach | None = None) -> None:
    """Fill the empty directory `target` below `top` with what is in `source` below it. ResourceError for the disk."""
    if reach is None:
        _copy(top, source, target)
    else:
        reach(top, lambda: _copy(Path("/"), source, target))


def _copy(top: Path, source: str, target: str) -> bytes:
    at = os.open(top, _DIRECTORY)
    try:
        reading, writing = (os.open(name, _DIRECTORY, dir_fd=at) for name in (source, target))
        try:
            _Copy(writing).directory(reading, writing, "", 0)
        except OSError as error:
            code = "E_NOSPACE" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "E_IO"
            raise ResourceError(code, target, f"cannot be written: {error.strerror}") from None
        finally:
            os.close(reading)
            os.close(writing)
    finally:
        os.close(at)
    return b""


@dataclass(slots=True)
class _Copy:
    top: int  # of what is written
    links: dict[tuple[int, int], str] = field(default_factory=dict)  # inode → its first path

    def directory(self, source: int, target: int, prefix: str, depth: int) -> None:
        """Copy what is in `source`; its own metadata comes last, as what is made below changes its times."""
        if depth > _DEEPEST:
            raise ResourceError("E_LIMIT", prefix[:80], f"deeper than {_DEEPEST} directories")
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self._object(source, target, name, prefix, status)
                continue
            os.mkdir(name, 0o700, dir_fd=target)
            below, there = (os.open(name, _DIRECTORY, dir_fd=fd) for fd in (source, target))
            try:
                self.directory(below, there, f"{prefix}{name}/", depth + 1)
            finally:
                os.close(below)
                os.close(there)
        _metadata(source, target, os.fstat(source))

    def _object(
        self, source: int, target: int, name: str, prefix: str, status: os.stat_result
    ) -> None:
        if status.st_nlink > 1:
            first = self.links.setdefault((status.st_dev, status.st_ino), prefix + name)
            if first != prefix + name:
                os.link(first, name, src_dir_fd=self.top, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            _file(source, target, name, status)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _file(source: int, target: int, name: str, status: os.stat_result) -> None:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    reading = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=source)
    try:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_EXCL
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _content(reading, writing, status.st_size)
            _metadata(reading, writing, status)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _content(reading: int, writing: int, size: int) -> None:
    """Copy what is data; holes stay holes (lseek(2), SEEK_DATA)."""
    os.ftruncate(writing, size)
    place = 0
    while place < size:
        try:
            place = os.lseek(reading, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(reading, place, os.SEEK_HOLE)
        os.lseek(writing, place, os.SEEK_SET)
        while place < end:
            moved = os.sendfile(writing, reading, place, min(_CHUNK, end - place))
            if not moved:
                return  # it was cut short meanwhile
            place += moved


def _metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))  # after fchown, which clears setuid
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
