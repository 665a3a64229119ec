"""Mounts and paths by descriptor: openat2(2), open_tree(2), move_mount(2), mount_setattr(2), syncfs(2)."""

from __future__ import annotations

import errno
import os
import struct

from runtime.kernel.libc import path as c_path
from runtime.kernel.libc import syscall

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000
AT_REMOVEDIR = 0x200

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_UNBINDABLE = 1 << 17
MNT_DETACH = 2

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

_RETRIES = 64  # openat2 answers EAGAIN while somebody renames below the path


def openat2(
    directory: int, name: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0
) -> int:
    """Open `name` below `directory` under the RESOLVE_* rules `resolve`; O_CLOEXEC is always set."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RETRIES):
        try:
            return syscall("openat2", directory, c_path(name), how, len(how))
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, f"openat2({directory}, {name!r}): the path keeps changing")


def open_tree(directory: int, name: str | bytes, flags: int) -> int:
    """Open the mount at `name`, or with OPEN_TREE_CLONE a detached copy of it."""
    return syscall("open_tree", directory, c_path(name), flags | OPEN_TREE_CLOEXEC)


def move_mount(source: int, directory: int, name: str | bytes) -> None:
    """Attach the detached mount `source` at `name`, or on `directory` itself where the name is empty."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if name else MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", source, b"\0", directory, c_path(name), flags)


def mount_attributes(set_: int, clear: int = 0, propagation: int = 0, userns: int = 0) -> bytes:
    """Return a struct mount_attr (mount_setattr(2))."""
    return struct.pack("=QQQQ", set_, clear, propagation, userns)


def mount_setattr(directory: int, name: str | bytes, flags: int, attributes: bytes) -> None:
    """Change the attributes, the propagation or the id map of a mount."""
    syscall("mount_setattr", directory, c_path(name), flags, attributes, len(attributes))


def umount2(target: str | bytes, flags: int = 0) -> None:
    """Detach the file system mounted on `target`."""
    syscall("umount2", c_path(target), flags)


def syncfs(descriptor: int) -> None:
    """Have everything on the file system of an open file on disk."""
    syscall("syncfs", descriptor)
