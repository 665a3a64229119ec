"""Ranges of host ids: who owns them (subuid(5)), which container has which, and the map a user namespace gets."""

from __future__ import annotations

from dataclasses import dataclass

COUNT = 65536


@dataclass(frozen=True, slots=True)
class Extent:
    """`count` ids: `inside` and up are `outside` and up on the host."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """The maps of one user namespace (user_namespaces(7))."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]


def single_range(first: int, count: int = COUNT) -> IdMap:
    """Map the ids from 0 on to those from `first` on."""
    extents = (Extent(0, first, count),)
    return IdMap(uids=extents, gids=extents)


def text(extents: tuple[Extent, ...]) -> bytes:
    """Return what is written to /proc/PID/uid_map or gid_map."""
    return b"".join(b"%d %d %d\n" % (e.inside, e.outside, e.count) for e in extents)
