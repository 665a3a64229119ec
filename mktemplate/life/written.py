"""What a container has written: its upper layer held against the layers below it (overlayfs, kernel documentation).

Everything is reached from open directories, one component at a time, never through a symlink: who writes an upper is
not trusted. Our overlays know neither redirects nor metacopies, so a name is a whiteout, or it is what it looks like.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from valuetypes import dataclass, field

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPAQUE = "user.overlay.opaque"
_NOTES = "user.overlay."  # what overlayfs keeps for itself
_DEEPEST = 250  # levels
_CHUNK = 1 << 18  # bytes


@dataclass(slots=True)
class _Below:
    """What the lower layers show under one name."""

    status: os.stat_result | None = None
    directory: int = -1  # where it is
    merged: list[int] = field(default_factory=list)  # the directories that come together under it


def changes(upper: int, lowers: Sequence[int]) -> list[tuple[str, str]]:
    """Return what differs in the open directory `upper` from `lowers`, topmost first: `A`, `M` or `D` and the path.

    A directory that is gone is one line. What was opened for writing and is as it was is no change.
    """
    return [
        (kind, os.fsencode(path).decode("utf-8", "backslashreplace"))
        for kind, path in _directory(upper, lowers, "", 0)
    ]


def _directory(
    upper: int, lowers: Sequence[int], prefix: str, depth: int
) -> Iterator[tuple[str, str]]:
    names = sorted(os.listdir(upper)) if depth < _DEEPEST else []
    opaque = _is_opaque(upper)
    if opaque:
        gone = {name for lower in lowers for name in os.listdir(lower)} - set(names)
        yield from (
            ("D", f"{prefix}/{name}") for name in sorted(gone) if _below(lowers, name).status
        )
    for name in names:
        with suppress(FileNotFoundError):  # a container that runs may remove it meanwhile
            yield from _name(upper, lowers, f"{prefix}/", name, depth)


def _name(
    upper: int, lowers: Sequence[int], prefix: str, name: str, depth: int
) -> Iterator[tuple[str, str]]:
    here = os.stat(name, dir_fd=upper, follow_symlinks=False)
    below = _below(lowers, name)
    if _is_whiteout(here):
        if below.status:
            yield "D", prefix + name
        return
    with ExitStack() as opened:
        mine = _open(name, upper, here, opened)
        if below.status is None:
            yield "A", prefix + name
        elif _differs(upper, name, here, mine, below):
            yield "M", prefix + name
        if stat.S_ISDIR(here.st_mode):
            merged = [os.open(name, _DIRECTORY, dir_fd=lower) for lower in below.merged]
            for each in merged:
                opened.callback(os.close, each)
            yield from _directory(mine, merged, prefix + name, depth + 1)


def _open(name: str, directory: int, status: os.stat_result, opened: ExitStack) -> int:
    """Return a descriptor of a file or directory, -1 for what is only looked at."""
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        return -1
    flags = _DIRECTORY if stat.S_ISDIR(status.st_mode) else _FILE
    handle = os.open(name, flags, dir_fd=directory)
    opened.callback(os.close, handle)
    return handle


def _below(lowers: Sequence[int], name: str) -> _Below:
    """Return what `lowers` show as `name`: the topmost one decides, directories come together."""
    found = _Below()
    for lower in lowers:
        try:
            status = os.stat(name, dir_fd=lower, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if _is_whiteout(status) or (found.status and not stat.S_ISDIR(status.st_mode)):
            break
        if found.status is None:
            found.status, found.directory = status, lower
        if not stat.S_ISDIR(status.st_mode):
            break
        found.merged.append(lower)
        with ExitStack() as opened:
            if _is_opaque(_open(name, lower, status, opened)):
                break
    return found


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:
        return False


def _differs(upper: int, name: str, here: os.stat_result, mine: int, below: _Below) -> bool:
    there = below.status
    assert there is not None  # noqa: S101  # the caller looked
    same = (here.st_mode, here.st_uid, here.st_gid, here.st_rdev)
    if same != (there.st_mode, there.st_uid, there.st_gid, there.st_rdev):
        return True
    if stat.S_ISLNK(here.st_mode):
        target = os.readlink(name, dir_fd=below.directory)
        return os.readlink(name, dir_fd=upper) != target
    with ExitStack() as opened:
        theirs = _open(name, below.directory, there, opened)
        if mine < 0:
            return False
        if _attributes(mine) != _attributes(theirs):
            return True
        return stat.S_ISREG(here.st_mode) and not _is_same(mine, theirs)


def _attributes(handle: int) -> dict[str, bytes]:
    names = (name for name in os.listxattr(handle) if not name.startswith(_NOTES))
    return {name: os.getxattr(handle, name) for name in names}


def _is_same(one: int, other: int) -> bool:
    """Tell whether two files hold the same bytes."""
    if os.fstat(one).st_size != os.fstat(other).st_size:
        return False
    offset = 0
    while mine := os.pread(one, _CHUNK, offset):
        if mine != os.pread(other, len(mine), offset):
            return False
        offset += len(mine)
    return True
