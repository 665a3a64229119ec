"""Removing a container's directory: first out of sight by one rename, then by descriptors, never across a mount."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import ResourceError, StateError
from runtime.kernel import mount as m
from runtime.sandbox import KernelSandbox
from valuetypes import dataclass

_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_IMMUTABLE_APPEND = 0x10 | 0x20
_LONG = struct.calcsize("l")
_WHERE = m.RESOLVE_BENEATH | m.RESOLVE_NO_XDEV | m.RESOLVE_NO_SYMLINKS | m.RESOLVE_NO_MAGICLINKS


@contextmanager
def container(path: Path, name: str) -> Iterator[None]:
    """Move PATH/NAME to the trash; remove it there at the end of the block, which gives back what it had.

    Whoever is killed on the way leaves something in the trash, by which the next command knows that there is work.
    StateError (E_RUNNING) while a mount is below it.
    """
    for place in mounts_below(path / name):
        raise StateError(
            "E_RUNNING", name, f"still contains a mount at {place}", hints=(f"umount {place}",)
        )
    trash = path / ".store" / "trash"
    for folder in (trash.parent, trash):
        with suppress(FileExistsError):
            os.mkdir(folder, 0o711 if folder == trash.parent else 0o700)
    waste = f"{name}.{secrets.token_hex(8)}"
    descriptor = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # or a sweep would be at our waste too
        os.rename(path / name, trash / waste)
        yield
        if os.geteuid() != 0:
            KernelSandbox().call(_Root(trash / waste), _empty_root)
        tree(descriptor, waste)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Root:
    upper: Path
    lowers: tuple[Path, ...] = ()
    work: Path | None = None


def _empty_root() -> bytes:
    """Remove what lies below the root: a normal user's subordinate ids own it, and may only there."""
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for name in os.listdir(descriptor):
        tree(descriptor, name)
    return b""


def mounts_below(path: Path) -> list[str]:
    """Return the mount points at or below `path` that this mount namespace has."""
    top = os.fsencode(os.path.realpath(path))
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            point = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
            if point == top or point.startswith(top + b"/"):
                found.append(os.fsdecode(point))
    return found


def tree(parent: int, name: str) -> None:
    """Remove the tree `name` below the descriptor `parent`, following nothing (I-18).

    A folder's folders are moved up beside it and removed in their turn: two descriptors do for any depth.
    """
    pending = [name]
    while pending:
        entry = pending.pop()
        try:
            directory = m.openat2(parent, entry, os.O_RDONLY | os.O_DIRECTORY, resolve=_WHERE)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise _refused(entry, error) from None
            os.unlink(entry, dir_fd=parent)
            continue
        try:
            try:
                pending += _empty(parent, directory, name)
            except PermissionError:  # chattr(1), by root inside
                _soften(directory)
                pending += _empty(parent, directory, name)
            os.rmdir(entry, dir_fd=parent)
        except OSError as error:
            raise _refused(entry, error) from None
        finally:
            os.close(directory)


def _empty(parent: int, directory: int, name: str) -> Iterator[str]:
    """Remove the files of `directory`, move its folders to `parent`; yield the names that these have there."""
    for child in os.listdir(directory):
        if not _goes(directory, child):
            moved = f"{name}.{secrets.token_hex(8)}"
            os.rename(child, moved, src_dir_fd=directory, dst_dir_fd=parent)
            yield moved


def _soften(directory: int) -> None:
    """Clear the immutable and append-only flags of an open directory and of what is in it."""
    _clear(directory)
    for child in os.listdir(directory):
        mode = os.stat(child, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            descriptor = os.open(child, _LOOK, dir_fd=directory)
            try:
                _clear(descriptor)
            finally:
                os.close(descriptor)


def _clear(descriptor: int) -> None:
    with suppress(
        OSError
    ):  # no such flags here, or not ours to clear: what removes it then says so
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GETFLAGS, bytes(_LONG)))
        fcntl.ioctl(descriptor, _SETFLAGS, struct.pack("l", flags & ~_IMMUTABLE_APPEND))


def _goes(directory: int, child: str) -> bool:
    """Remove a file, or a folder that is empty; return whether it was one."""
    if not stat.S_ISDIR(os.stat(child, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(child, dir_fd=directory)
        return True
    try:
        os.rmdir(child, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _refused(entry: str, error: OSError) -> ResourceError:
    return ResourceError("E_IO", entry, f"cannot be removed: {error.strerror}")
