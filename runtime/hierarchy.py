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
class Spot:
    """Where a container's groups are below the root of each hierarchy, and whether init is in one `inner` of them."""

    folder: str
    inner: str = ""


def spot(key: str) -> Spot:
    """Return where the groups of `key` are unless somebody says otherwise."""
    return Spot(folder=f"{PARENT}/{key}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Our folder in one hierarchy; limits are its own, processes are in `inner`, where that is one."""

    path: str
    controllers: tuple[str, ...]
    version: int
    inner: str = ""

    @property
    def innermost(self) -> str:
        """The folder that processes are in."""
        return f"{self.path}/{self.inner}".rstrip("/")


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


def above(path: str, tree: str = "") -> tuple[str, ...]:
    """Return the root of the hierarchy that the group at `path` is in, and the folders between it and the group."""
    top = tree or max(
        (one.path for one in mounted() if path.startswith(f"{one.path}/")), key=len, default=""
    )
    names = os.path.dirname(path)[len(top) :].split("/")[1:]
    return tuple("/".join((top, *names[:depth])) for depth in range(len(names) + 1))


def make_group(tree: Hierarchy, controllers: tuple[str, ...], where: Spot) -> list[Group]:
    """Make our folder in `tree`; nothing where the tree may not be written (a user, a read-only mount)."""
    group = Group(
        path=f"{tree.path}/{where.folder}",
        controllers=controllers,
        version=tree.version,
        inner=where.inner,
    )
    for _ in range(8):  # another container's end may take the empty parent away in between
        try:
            _make_folders(above(group.path, tree.path), group)
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


def _make_folders(folders: tuple[str, ...], group: Group) -> None:
    """Make the `folders` above where they are missing, and the group; FileExistsError where the group is not new."""
    for folder in folders[1:]:
        _mkdir(folder)
        inherit_cpuset(folder, group)
    if group.version == 2:
        _enable(folders, group.controllers)
    os.mkdir(group.path, 0o755)
    inherit_cpuset(group.path, group)


def make_inner(group: Group) -> None:
    """Make the group inside a group, once that has its limits: on v1 a new one begins with its parent's."""
    if group.inner:
        os.mkdir(group.innermost, 0o755)
        inherit_cpuset(group.innermost, group)


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


def has_own_parent(group: Group) -> bool:
    """Whether the folder above is ours to remove: of lxc.cgroup.dir others may have made it, with limits of theirs."""
    return os.path.basename(os.path.dirname(group.path)) == PARENT


def has_old_cpuset(group: Group) -> bool:
    """Whether no process may join the group before it has processors (cpuset(7))."""
    return group.version == 1 and "cpuset" in group.controllers


def inherit_cpuset(path: str, group: Group) -> None:
    """Copy at `path` what v1 leaves empty, where that is of `group`'s hierarchy."""
    for name in ("cpuset.cpus", "cpuset.mems") if has_old_cpuset(group) else ():
        if not read(f"{path}/{name}").strip():
            write(f"{path}/{name}", read(f"{os.path.dirname(path)}/{name}").strip())
