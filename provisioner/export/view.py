"""The layers of a container as entries in a fixed order: what one layer changes, or what an overlay of all shows.

Who wrote an upper is not trusted: everything goes by descriptor, one component at a time, never through a symlink, so
no name leads out. What no two containers may share is left out: the first start makes it anew wherever that is.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from provisioner.content import OPAQUE
from provisioner.errors import StoreFailed

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DEPTH = 256  # levels, as unpacking allows
# Identities and secrets, as their paths below the root.
_PRIVATE = re.compile(
    r"etc/ssh/ssh_host_[^/]*|var/lib/dbus/machine-id|var/lib/mktemplate/.*|var/lib/systemd/random-seed",
    re.DOTALL,
)
_EMPTIED = "etc/machine-id"  # machine-id(5): empty means that the first start makes one


class Entry(NamedTuple):
    """One object of a view, valid until the next one is asked for. A NamedTuple: there are thousands."""

    path: str  # below the root, surrogateescape; "" is the root itself
    name: str  # its last component, valid with `directory`
    directory: int  # descriptor of its directory
    status: os.stat_result
    mtime: int  # seconds
    opaque: bool = False  # a directory in which nothing of the layers below shows

    @property
    def is_directory(self) -> bool:
        """Whether other entries may be below it."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether it hides what is called so below (overlayfs: a character device 0:0)."""
        return stat.S_ISCHR(self.status.st_mode) and self.status.st_rdev == 0

    @property
    def is_emptied(self) -> bool:
        """Whether it goes without its content."""
        return self.path == _EMPTIED and stat.S_ISREG(self.status.st_mode)


def layer(top: int, below: Sequence[int] = ()) -> Iterator[Entry]:
    """Yield what the open directory `top` changes of the layers `below` it, topmost first; sorted, no root.

    A directory comes before what is in it, and only if that is something, or it differs from the one below. Whiteouts
    come as they are.
    """
    return _changes(top, below, "", 0)


def merged(layers: Sequence[int]) -> Iterator[Entry]:
    """Yield what an overlay of the open directories `layers`, topmost first, shows: the root, then sorted.

    A directory has the time of the lowest layer that has it, and so has what goes without its content: a container that
    only ran is exported as the one that never did.
    """
    yield Entry("", ".", layers[0], os.fstat(layers[0]), _seconds(os.fstat(layers[-1])))
    yield from _merged(layers, "", 0)


def _changes(top: int, below: Sequence[int], prefix: str, depth: int) -> Iterator[Entry]:
    for name, path in _names((top,), prefix, depth):
        status = os.stat(name, dir_fd=top, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            if path != _EMPTIED or not below:
                yield Entry(path, name, top, status, _seconds(status))
            continue
        with _stack(name, (top, *below), joined=False) as (here, *lower):
            opaque = _is_opaque(here)
            entry = Entry(path, name, top, status, _seconds(status), opaque)
            inner = _changes(here, () if opaque else lower, f"{path}/", depth + 1)
            if opaque or not lower or _differs(status, os.fstat(lower[0])):
                yield entry
            else:
                for first in inner:
                    yield entry
                    yield first
                    break
            yield from inner


def _merged(layers: Sequence[int], prefix: str, depth: int) -> Iterator[Entry]:
    for name, path in _names(layers, prefix, depth):
        at, status = _topmost(name, layers)
        if stat.S_ISDIR(status.st_mode):
            with _stack(name, layers[at:], joined=True) as stack:
                time = _seconds(os.fstat(stack[-1]))
                yield Entry(path, name, layers[at], status, time)
                yield from _merged(stack, f"{path}/", depth + 1)
            continue
        told = _topmost(name, layers[::-1])[1] if path == _EMPTIED else status
        entry = Entry(path, name, layers[at], status, _seconds(told))
        if not entry.is_whiteout:
            yield entry


def _names(layers: Sequence[int], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the names in a directory and their paths, without what is left out."""
    if depth > _DEPTH:
        raise StoreFailed("E_LIMIT", prefix[:80], f"deeper than {_DEPTH} directories")
    for name in sorted({name for each in layers for name in os.listdir(each)}):
        path = prefix + name
        if not _PRIVATE.fullmatch(path):
            yield name, path


def _topmost(name: str, layers: Sequence[int]) -> tuple[int, os.stat_result]:
    for index, each in enumerate(layers):
        try:
            return index, os.stat(name, dir_fd=each, follow_symlinks=False)
        except FileNotFoundError:
            continue
    raise StoreFailed("E_IO", name[:80], "went away while it was read")


@contextmanager
def _stack(name: str, layers: Sequence[int], *, joined: bool) -> Iterator[list[int]]:
    """Open the directory `name` of the first of `layers` and those that it covers: until one hides the rest.

    `joined`: an opaque one is the last of them; else only the layers below the first one are asked.
    """
    with ExitStack() as opened:
        found: list[int] = []
        for each in layers:
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=each)
            except FileNotFoundError:
                continue
            except OSError:  # no directory: a whiteout, or something else under that name
                break
            opened.callback(os.close, fd)
            found.append(fd)
            if _is_opaque(fd) and (joined or len(found) > 1):
                break
        yield found


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:  # ENODATA, or a file system without extended attributes
        return False


def _differs(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid)


def _seconds(status: os.stat_result) -> int:
    return max(0, status.st_mtime_ns // 1_000_000_000)
