"""A container's tree copied as it is on disk: owners, modes, times, extended attributes, whiteouts, hard links, holes.

Everything goes by descriptor, one component at a time: nothing of a hostile tree is followed (I-1).
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from runtime.errors import ResourceError
from valuetypes import dataclass, field

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


def carry(source: int, target: int, names: Sequence[str]) -> list[tuple[str, int]]:
    """Copy what `names` name below the open directory `source` into `target`; return each path with its owner's id.

    A name is a path, its last part a pattern (fnmatch(3)); what is not there is no failure. The folders on the way come
    with owner and mode only, and what lies behind a link, or under another name already, stays behind.
    """
    found = []
    for name in names:
        folder, _, pattern = name.strip("/").rpartition("/")
        with ExitStack() as opened:
            reading = descend(source, folder, opened)
            matches = fnmatch.filter(os.listdir(reading), pattern) if reading >= 0 else []
            writing = follow(source, target, folder, opened) if matches else -1
            taken = set(os.listdir(writing)) if matches else set()
            for each in sorted(set(matches) - taken):
                status = os.stat(each, dir_fd=reading, follow_symlinks=False)
                _Copy(target).entry(reading, writing, each, f"{folder}/" if folder else "")
                found.append((f"{folder}/{each}".strip("/"), status.st_uid))
    return found


def descend(top: int, folder: str, opened: ExitStack) -> int:
    """Open the folder below `top`, one part at a time; -1 where there is none, or a link."""
    at = top
    for part in filter(None, folder.split("/")):
        try:
            at = os.open(part, _DIRECTORY, dir_fd=at)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as error:
            if error.errno == errno.ELOOP:
                return -1
            raise
        opened.callback(os.close, at)
    return at


def follow(source: int, target: int, folder: str, opened: ExitStack) -> int:
    """Open the same folder below `target`; what is missing there is made with the owner and mode that `source` has."""
    reading, writing = source, target
    for part in filter(None, folder.split("/")):
        reading = os.open(part, _DIRECTORY, dir_fd=reading)
        opened.callback(os.close, reading)
        made = part not in os.listdir(writing)
        if made:
            os.mkdir(part, 0o700, dir_fd=writing)
        writing = os.open(part, _DIRECTORY, dir_fd=writing)
        opened.callback(os.close, writing)
        if made:
            status = os.fstat(reading)
            os.fchown(writing, status.st_uid, status.st_gid)
            os.fchmod(writing, stat.S_IMODE(status.st_mode))
    return writing


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
            self.entry(source, target, name, prefix, depth)
        _metadata(source, target, os.fstat(source))

    def entry(self, source: int, target: int, name: str, prefix: str, depth: int = 0) -> None:
        """Copy one name of `source`, whatever it is; `prefix` is its folder's path in what is written."""
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            self._object(source, target, name, prefix, status)
            return
        os.mkdir(name, 0o700, dir_fd=target)
        below, there = (os.open(name, _DIRECTORY, dir_fd=fd) for fd in (source, target))
        try:
            self.directory(below, there, f"{prefix}{name}/", depth + 1)
        finally:
            os.close(below)
            os.close(there)

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
