"""Files that survive a power cut, and what a file system's refusals are called."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from provisioner.errors import StoreFailed

CODES = {
    errno.ENOSPC: ("E_NOSPACE", "no space left on its file system"),
    errno.EDQUOT: ("E_QUOTA", "the disk quota is used up"),
    errno.EROFS: ("E_READONLY", "its file system is read-only"),
    errno.EMFILE: ("E_LIMIT", "too many open files"),
    errno.ENFILE: ("E_LIMIT", "too many open files on this host"),
    errno.ENOMEM: ("E_LIMIT", "out of memory"),
    errno.EAGAIN: ("E_LIMIT", "a limit on processes or memory is reached"),
}


def disk_error(problem: OSError, path: Path) -> StoreFailed:
    """Return the documented error for what the file system of `path` said (F-09 … F-13)."""
    code, detail = CODES.get(problem.errno or 0, ("E_IO", str(problem)))
    hints: tuple[str, ...] = ()
    if code in ("E_NOSPACE", "E_QUOTA"):
        hints = ("`mktemplate prune` drops what nothing uses",)
    if problem.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):  # else we cannot say how much
            there = os.statvfs(path if path.exists() else path.parent)
            detail = f"no space left: {there.f_bavail * there.f_frsize >> 20} MiB free"
            if there.f_favail == 0 and there.f_bavail > 0:
                code, detail, hints = "E_NOINODES", "no inodes left on its file system", ()
    return StoreFailed(code, str(path), detail, hints=hints, path=str(path))


@contextlib.contextmanager
def disk_failures(path: Path) -> Iterator[None]:
    """Turn what the file system of `path` throws into StoreFailed."""
    try:
        yield
    except OSError as problem:
        raise disk_error(problem, path) from problem


def is_named(fd: int, path: Path) -> bool:
    """Whether `path` is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def hold(path: Path, how: int = fcntl.LOCK_EX) -> int:
    """Return a descriptor of the file `path`, made where it is missing, that holds its lock (flock(2)).

    Whoever had it may have removed or renamed the file while we waited. Raises BlockingIOError with LOCK_NB.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, how)
            if is_named(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def write_new(path: Path, body: bytes) -> None:
    """Write a file that is not there yet, 0600."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(body)


def write_once(path: Path, body: bytes, *, durable: bool = True) -> None:
    """Make the file `path` where there is none: whole or not at all, and nothing beside it.

    It has no name until it is whole (open(2), O_TMPFILE). Without `durable` a power cut may lose its bytes.
    """
    fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o600)
    with open(fd, "wb") as file:
        file.write(body)
        file.flush()
        name(fd, path, durable=durable)


def name(fd: int, path: Path, *, durable: bool = True) -> None:
    """Give the unnamed file `fd` (open(2), O_TMPFILE) the name `path`, unless another was faster."""
    if durable:
        os.fsync(fd)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The descriptor makes it linkat(2) with AT_SYMLINK_FOLLOW, which open(2) asks for here.
        with contextlib.suppress(FileExistsError):
            os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder)
        if durable:
            os.fsync(folder)
    finally:
        os.close(folder)


def fsync_directory(path: Path) -> None:
    """Have the names in the directory `path` on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
