"""Where control groups are mounted on this host, and how a group of ours is made in one of the trees."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from runtime.controlfile import pids_below, read, remove_tree, try_write, write
from runtime.errors import HostError
from valuetypes import dataclass

PARENT = "mktemplate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """A mounted tree of control groups."""

    path: str
    controllers: tuple[str, ...]  # of v2: what it could give
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Our folder in one hierarchy."""

    path: str
    controllers: tuple[str, ...]
    version: int


def mounted() -> tuple[Hierarchy, ...]:
    """Return the hierarchies that are mounted here, from /proc/self/mountinfo (proc(5))."""
    found: dict[tuple[str, ...], Hierarchy] = {}
    for line in (
        Path("/proc/self/mountinfo")
        .read_text(encoding="utf-8", errors="surrogateescape")
        .split("\n")
    ):
        head, separator, tail = line.partition(" - ")
        if not separator:
            continue
        kind, _, options = tail.split(" ", 2)
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), head.split(" ")[4])
        if kind == "cgroup2":
            given = tuple(read(f"{path}/cgroup.controllers").split())
            found.setdefault(("2",), Hierarchy(path=path, controllers=given, version=2))
        elif kind == "cgroup":
            given = tuple(
                word
                for word in options.split(",")
                if word not in {"rw", "ro", "xattr", "clone_children"}
                and not word.startswith("release_agent=")
            )
            found.setdefault(given, Hierarchy(path=path, controllers=given, version=1))
    return tuple(found.values())


def is_pure() -> bool:
    """Whether /sys/fs/cgroup of this host is the unified hierarchy."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def holding(groups: Iterable[Group]) -> tuple[Hierarchy, ...]:
    """Return the mounted hierarchies that one of `groups` is in."""
    paths = [group.path for group in groups]
    return tuple(
        tree for tree in mounted() if any(path.startswith(f"{tree.path}/") for path in paths)
    )


def make_group(tree: Hierarchy, controllers: tuple[str, ...], key: str) -> list[Group]:
    """Make our folder in `tree`; nothing where the tree may not be written (a user, a read-only mount)."""
    parent = f"{tree.path}/{PARENT}"
    group = Group(path=f"{parent}/{key}", controllers=controllers, version=tree.version)
    for _ in range(8):  # another container's end may take the empty parent away in between
        try:
            _make_folders(tree, parent, group)
        except FileNotFoundError:
            continue
        except FileExistsError:
            if tuple(pids_below(group.path)):
                raise HostError(
                    "E_CGROUP", group.path, "processes of an earlier start are still in it"
                ) from None
            remove_tree(group.path, time.monotonic() + 2)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                return []
            raise HostError("E_CGROUP", group.path, error.strerror or str(error)) from None
        else:
            return [group]
    raise HostError("E_CGROUP", group.path, "disappears while it is made")


def _make_folders(tree: Hierarchy, parent: str, group: Group) -> None:
    """Make `parent` where it is missing, and the group; FileExistsError where the group is not new."""
    _mkdir(parent)
    if tree.version == 2:
        _enable((tree.path, parent), group.controllers)
    old_cpuset = tree.version == 1 and "cpuset" in group.controllers
    if old_cpuset:
        _inherit_cpuset(parent)
    os.mkdir(group.path, 0o755)
    if old_cpuset:
        _inherit_cpuset(group.path)


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return


def _enable(folders: Iterable[str], controllers: Iterable[str]) -> None:
    """Hand `controllers` down; what is refused shows when a limit is written."""
    for folder in folders:
        given = read(f"{folder}/cgroup.subtree_control").split()
        for name in controllers:
            if name not in given:
                try_write(f"{folder}/cgroup.subtree_control", f"+{name}")


def _inherit_cpuset(path: str) -> None:
    """Copy what v1 leaves empty, for no process may join such a group (cpuset(7))."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{path}/{name}").strip():
            write(f"{path}/{name}", read(f"{os.path.dirname(path)}/{name}").strip())
