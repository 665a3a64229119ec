"""What a tree on disk consists of, as one digest; and the walk that makes it reproducible.

Names are opened one component at a time by descriptor, never through a symlink, so a hostile tree cannot lead away.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from provisioner.errors import StoreFailed

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_TYPES = 0o170000  # inode(7), S_IFMT
OPAQUE = "user.overlay.opaque"  # "y": nothing of the layers below shows in this directory
_SMALL = 64 << 10  # bytes up to which a thread costs more than the hash
_PIECE = 128 << 10  # bytes that are read at once
_WAITING = 64  # open files that wait for their hash
_DEPTH = 512  # levels; unpacking allows 256


class Entry(NamedTuple):
    """One object below a tree. A NamedTuple: there are thousands."""

    path: str  # relative, surrogateescape
    name: str  # its last component, valid with `directory`
    directory: int  # descriptor of its directory, open while the entry is looked at
    status: os.stat_result


def walk(top: Path) -> Iterator[Entry]:
    """Yield everything below `top`, sorted by name, a directory before what is in it."""
    fd = os.open(top, _DIRECTORY)
    opened = [(fd, "", iter(_names(fd)))]
    try:
        yield Entry("", ".", fd, os.fstat(fd))
        while opened:
            directory, prefix, names = opened[-1]
            below = -1
            for name in names:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                yield Entry(prefix + name, name, directory, status)
                if status.st_mode & _TYPES == stat.S_IFDIR:
                    below = os.open(name, _DIRECTORY, dir_fd=directory)
                    opened.append((below, f"{prefix}{name}/", iter(_names(below))))
                    break
            if below < 0:
                os.close(opened.pop()[0])
            elif len(opened) > _DEPTH:
                raise StoreFailed("E_LIMIT", prefix[:80], f"deeper than {_DEPTH} directories")
    finally:
        for directory, _, _ in opened:
            os.close(directory)


def _names(directory: int) -> list[str]:
    return sorted(os.listdir(directory))


def settle(top: Path, newest: int) -> None:
    """Make `top`, which was no overlay's upper, what two builds agree on: no time later than `newest`."""
    for entry in walk(top):
        _clamp(entry, newest)


def settled(top: Path, newest: int, *, overlaid: bool) -> str:
    """Do as `settle` and return the `digest`, in one walk that opens each object once.

    `overlaid`: it was an overlay's upper. Its notes (origin, uuid, impure) name inodes of this disk; as a lower layer
    it only needs whiteouts and `opaque`.
    """
    return _digest(top, partial(_clamp, newest=newest), noted=overlaid)


def _clamp(entry: Entry, newest: int) -> int:
    """Let one object be no later than `newest`; return the time in seconds that it has then."""
    limit = newest * 1_000_000_000
    if entry.status.st_mtime_ns <= limit:
        return _seconds(entry)
    os.utime(entry.name, ns=(limit, limit), dir_fd=entry.directory, follow_symlinks=False)
    return newest


def _seconds(entry: Entry) -> int:
    return entry.status.st_mtime_ns // 1_000_000_000


def digest(top: Path) -> str:
    """Return the sha256 of all that `top` consists of: names, types, modes, owners, times, links, xattrs, contents."""
    return _digest(top, _seconds)


def _digest(top: Path, time_of: Callable[[Entry], int], *, noted: bool = False) -> str:
    """Return the digest; where an overlay's own notes are in what is `noted`, they are dropped."""
    links: dict[tuple[int, int], str] = {}
    whole = hashlib.sha256()
    waiting: deque[tuple[str, str | Future[str]]] = deque()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for entry in walk(top):
            waiting.append((_head(entry, time_of(entry)), _content(entry, links, pool, noted)))
            if len(waiting) > _WAITING:
                _count(whole, waiting)
        _count(whole, waiting)
    return whole.hexdigest()


def _count(whole: hashlib._Hash, waiting: deque[tuple[str, str | Future[str]]]) -> None:
    lines = [
        f"{head} {what if isinstance(what, str) else what.result()}\n" for head, what in waiting
    ]
    waiting.clear()
    whole.update("".join(lines).encode("utf-8", "surrogateescape"))


def _content(
    entry: Entry, links: dict[tuple[int, int], str], pool: ThreadPoolExecutor, noted: bool
) -> str | Future[str]:
    """Return what `entry` is, hashed by the pool where it is large."""
    what = _describe(entry, links, noted)
    if what is not None:
        return what
    fd = os.open(entry.name, _FILE, dir_fd=entry.directory)
    if entry.status.st_size > _SMALL:
        return pool.submit(_hash, fd, _PIECE, noted)
    return _hash(fd, entry.status.st_size + 1, noted)


def _head(entry: Entry, seconds: int) -> str:
    s = entry.status
    path = entry.path.replace("\\", "\\134").replace("\n", "\\012")
    return f"{path} {s.st_mode:o} {s.st_uid}:{s.st_gid} {seconds}"


def _describe(entry: Entry, links: dict[tuple[int, int], str], noted: bool) -> str | None:
    """Return what `entry` is beside its metadata; None for a regular file, whose content says it."""
    s = entry.status
    if stat.S_ISLNK(s.st_mode):
        return "-> " + os.readlink(entry.name, dir_fd=entry.directory).replace("\n", "\\012")
    if stat.S_ISDIR(s.st_mode):
        fd = os.open(entry.name, _DIRECTORY, dir_fd=entry.directory)
        try:
            return _attributes(fd, noted)
        finally:
            os.close(fd)
    if not stat.S_ISREG(s.st_mode):
        return f"device {os.major(s.st_rdev)}:{os.minor(s.st_rdev)}"
    if s.st_nlink > 1:
        first = links.setdefault((s.st_dev, s.st_ino), entry.path)
        if first != entry.path:
            return f"is {first}"
    return None


def _hash(fd: int, piece: int, noted: bool) -> str:
    try:
        attributes = _attributes(fd, noted)
        return f"{_sha256(fd, piece)}{attributes}"
    finally:
        os.close(fd)


def _sha256(fd: int, piece: int) -> str:
    """Return the hash of a file, read `piece` bytes at a time.

    Most files are small, and hashlib.file_digest would clear 256 KiB of memory for each.
    """
    found = hashlib.sha256()
    while data := os.read(fd, piece):
        found.update(data)
    return found.hexdigest()


def _attributes(fd: int, noted: bool) -> str:
    """Return the extended attributes of an open file; those that a security module adds by itself do not count.

    `noted`: an overlay's notes are dropped.
    """
    names = sorted(name for name in os.listxattr(fd) if name != "security.selinux")
    if noted and names:
        notes = [name for name in names if name.startswith("user.overlay.") and name != OPAQUE]
        for name in notes:
            os.removexattr(fd, name)
        names = [name for name in names if name not in notes]
    return "".join(f" {name}={os.getxattr(fd, name).hex()}" for name in names)
