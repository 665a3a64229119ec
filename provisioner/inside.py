"""Reading and writing files for code that runs inside a root: pivoted into it, with nothing else in reach.

There a symlink cannot lead out, so paths are absolute and plain (security.md, I-1); the last component is still never
followed. Nothing here may run on the host.
"""

from __future__ import annotations

import os
import stat

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def read(path: bytes, limit: int = -1) -> bytes:
    """Return the content of the regular file `path`, of a `limit` its first bytes; nothing where there is none."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return b""
    return content(fd, limit)


def content(fd: int, limit: int = -1) -> bytes:
    """Return what the open file `fd` holds, if it is a regular one, and close it; -1: nothing."""
    if fd < 0:
        return b""
    with open(fd, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def put(path: bytes, body: bytes, mode: int = 0o644, mtime: int | None = None) -> None:
    """Write the file `path` whole, replacing what is there."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        write_all(fd, body)
        os.fchmod(fd, mode)
        if mtime is not None:
            os.utime(fd, (mtime, mtime))
    finally:
        os.close(fd)


def append(path: bytes, body: bytes) -> None:
    """Add `body` to the end of the file `path`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        write_all(fd, body)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`; write(2) may write less."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def listed(folder: bytes) -> list[bytes]:
    """Return the sorted names in `folder`; none where there is no such directory."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_directory(path: bytes) -> bool:
    """Tell whether `path` is a directory or a symlink that ends in one."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def is_there(path: bytes) -> bool:
    """Tell whether anything is called `path`, a dangling symlink included."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def delete(path: bytes) -> None:
    """Delete `path` and what is below it; what a build makes is not deep."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        delete(path + b"/" + name)
    os.rmdir(path)
