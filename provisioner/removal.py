"""Recursive deletion by descriptor: never through a symlink, never across a mount, never deeper than its fds (I-18).

A tree may be hostile: a million files, five thousand levels, immutable files, names that are no text.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
from pathlib import Path

from provisioner.errors import StoreFailed

_DEPTH = 64  # open directories; what lies deeper is moved up first
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_IMMUTABLE_APPEND = 0x10 | 0x20


def remove(path: Path) -> int:
    """Delete the directory tree `path` and return the bytes that it occupied; its parent must be ours.

    Raises StoreFailed E_RUNNING while anything is mounted below, E_IO for what cannot be removed.
    """
    refuse_mounts(path)
    parent = os.open(path.parent, _DIRECTORY)
    try:
        return _remove(parent, path.name, str(path))
    except OSError as problem:
        detail = f"{problem.strerror}: {problem.filename!r}"
        raise StoreFailed("E_IO", str(path), detail, path=str(path)) from problem
    finally:
        os.close(parent)


def empty(top: Path = Path("/")) -> int:
    """Delete all that is in the directory `top` and return the bytes that it occupied; for an errand into a root."""
    directory = os.open(top, _DIRECTORY)
    try:
        return sum(_remove(directory, name, name) for name in os.listdir(directory))
    finally:
        os.close(directory)


def refuse_mounts(path: Path) -> None:
    """Raise StoreFailed E_RUNNING while anything is mounted at or below `path`."""
    mounted = _mount_below(path)
    if mounted:
        raise StoreFailed(
            "E_RUNNING", str(path), f"still contains a mount at {mounted}", path=str(path)
        )


def _mount_below(path: Path) -> str:
    """Return the first mount point at or below `path` in this mount namespace, "" where there is none."""
    prefix = os.fsencode(path) + b"/"
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file.read().split(b"\n"):
            fields = line.split(b" ")
            if len(fields) > 4:
                point = _unescape(fields[4])
                if (point + b"/").startswith(prefix):
                    return os.fsdecode(point)
    return ""


def _unescape(text: bytes) -> bytes:
    for escape, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        text = text.replace(escape, byte)
    return text


def _remove(parent: int, name: str, shown: str) -> int:
    """Delete `name` of the directory `parent`; iterative, so that depth costs no stack."""
    top = _open(parent, name)
    if top is None:
        return _unlink(parent, name)
    device = os.fstat(top).st_dev
    freed = 0
    stack = [(top, name)]
    try:
        while stack:
            directory, own_name = stack[-1]
            below, bytes_freed = _empty(
                directory, device, shown, top if len(stack) >= _DEPTH else None
            )
            freed += bytes_freed
            if below is not None:
                stack.append(below)
                continue
            stack.pop()
            os.close(directory)
            _rmdir(stack[-1][0] if stack else parent, own_name)
    finally:
        for directory, _ in stack:
            os.close(directory)
    return freed


def _empty(
    directory: int, device: int, shown: str, top: int | None
) -> tuple[tuple[int, str] | None, int]:
    """Unlink what is in `directory` up to its first subdirectory, which is returned open.

    With `top`, subdirectories are moved there instead: the tree becomes flat rather than the stack deep.
    """
    freed = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                freed += _unlink(directory, entry.name)
                continue
            if top is not None:
                os.rename(entry.name, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=top)
                continue
            below = os.open(entry.name, _DIRECTORY, dir_fd=directory)
            if os.fstat(below).st_dev != device:
                os.close(below)
                raise StoreFailed("E_IO", shown, f"{entry.name!r} is on another file system")
            return (below, entry.name), freed
    return None, freed


def _open(parent: int, name: str) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError:
        return None


def _unlink(directory: int, name: str) -> int:
    """Unlink one file, clearing what chattr(1) set; return the bytes that become free."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    try:
        os.unlink(name, dir_fd=directory)
    except PermissionError:
        _soften(directory)
        if stat.S_ISREG(status.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                _soften(fd)
            finally:
                os.close(fd)
        os.unlink(name, dir_fd=directory)
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def _rmdir(parent: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except PermissionError:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            _soften(fd)
        finally:
            os.close(fd)
        _soften(parent)
        os.rmdir(name, dir_fd=parent)


def _soften(fd: int) -> None:
    """Clear the immutable and append-only flags of an open file, where its file system has such."""
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GETFLAGS, bytes(struct.calcsize("l"))))
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", flags & ~_IMMUTABLE_APPEND))
    except OSError as problem:
        if problem.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM):
            raise
