"""How a root comes about: the layers cloned and id-mapped by the host's root, the overlay made by the container's.

Who makes an overlay needs the container's root as file system id, and pivot_root(2) refuses a root that was attached
before the user namespace was entered. So the stage attaches the layers below a tmpfs that only it can see; init,
which shares that mount namespace until it is told to go, then makes the overlay from relative names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from runtime import steps
from runtime.errors import HostError
from runtime.kernel import mount as m
from runtime.program import Call, Failure, Slot, Struct
from runtime.steps import c
from valuetypes import dataclass

Source = Callable[[Path, str], tuple[Call, ...]]  # what puts the mount of a path into a slot
_CLONE = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What of a root is written to: a folder, and for an overlay the one that it works in.

    A `volatile` overlay is written to a tmpfs of its mount namespace instead: gone with it, and no disk is touched.
    """

    upper: Path
    work: Path | None = None
    volatile: bool = False
    desk: Path | None = None  # the folder that is covered meanwhile, where that is not `upper`


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What the stage clones, what it attaches once the ids are mapped, and how init makes the root of it.

    What is `opened` is so before the stage has a mount namespace of its own.
    """

    clone: tuple[Call, ...]
    attach: tuple[Call, ...]
    root: tuple[Call, ...]
    opened: tuple[Call, ...] = ()


def idmapped(slot: str, path: Path, attributes: int = 0) -> Call:
    """Let the detached mount in `slot` show its owners as the container's: nothing on disk is shifted."""
    return Call(
        name="mount_setattr",
        args=(
            Slot(slot),
            c(""),
            m.AT_EMPTY_PATH,
            Struct("=QQQQ", (m.MOUNT_ATTR_IDMAP | attributes, 0, 0, Slot("userns"))),
            32,
        ),
        why="owners on disk stay as they are inside",
        failure=Failure(
            "E_FS_UNSUITABLE",
            str(path),
            "its file system cannot map owners; use ext4, xfs, btrfs or tmpfs",
        ),
    )


def flagged(slot: str, path: Path, attributes: int) -> Call:
    """Give the detached mount in `slot` its attributes, and no id map."""
    data = m.mount_attributes(attributes)
    return Call(
        name="mount_setattr",
        args=(Slot(slot), c(""), m.AT_EMPTY_PATH, data, len(data)),
        failure=Failure("E_FS_UNSUITABLE", str(path)),
    )


def clone(path: Path, slot: str, flags: int = 0) -> Call:
    """Clone the mount at `path` into a detached one."""
    return Call(
        name="open_tree",
        args=(m.AT_FDCWD, c(str(path)), _CLONE | flags),
        result=slot,
        why="a copy of its mount, attached nowhere yet",
        failure=Failure("E_MOUNT_SOURCE", str(path)),
    )


def cloned(path: Path, slot: str) -> tuple[Call, ...]:
    """Return the calls that put a layer into a slot: a clone of it, where nothing else is said."""
    return (clone(path, slot),)


def stage(
    lowers: tuple[Path, ...],
    written: Written,
    name: str,
    attributes: int,
    *,
    mapped: bool = True,
    source: Source = cloned,
) -> Layers:
    """Return how the root is made of what is `written` alone, or as an overlay of it over `lowers`, topmost first."""
    base = upper = written.upper
    work = written.work
    if lowers:
        if work is None:
            raise HostError("E_OVERLAY_RO", str(upper), "an overlay needs a work directory")
        base = Path(os.path.commonpath([upper, work]))
    volatile = written.volatile and bool(lowers)
    layers = [(f"layer{number}", path) for number, path in enumerate(lowers)]
    desk = (
        *steps.filesystem(
            "tmpfs",
            "desk",
            steps.PLAIN,
            ("source=mktemplate", "mode=0755", "size=64k"),
            why="where the layers have short names",
        ),
        *(
            Call(name="mkdirat", args=(Slot("desk"), c(name), 0o755))
            for name in [*map(str, range(len(layers))), "upper", "root"]
        ),
    )
    change = idmapped if mapped else flagged
    attach = [change(slot, path, m.MOUNT_ATTR_RDONLY) for slot, path in layers]
    writable = attributes & ~m.MOUNT_ATTR_RDONLY if lowers else attributes
    own = [] if volatile else [("upper", base)]
    attach += [change(slot, path, writable) for slot, path in own]
    attach.append(
        Call(
            name="move_mount",
            args=(
                Slot("desk"),
                c(""),
                m.AT_FDCWD,
                c(str(written.desk or upper)),
                m.MOVE_MOUNT_F_EMPTY_PATH,
            ),
            why="a place for the layers that only this mount namespace has",
        )
    )
    if lowers:
        attach += [
            steps.attach(slot, Slot("desk"), slot.removeprefix("layer")) for slot, _ in layers
        ]
        attach += [steps.attach(slot, Slot("desk"), slot) for slot, _ in own]
    return Layers(
        clone=(*(call for slot, path in (*layers, *own) for call in source(path, slot)), *desk),
        attach=tuple(attach),
        root=(
            *(_scratch(upper.name, work.name) if volatile else ()),
            *_overlay(name, len(lowers), (base, upper, work), attributes),
        )
        if work and lowers
        else _alone(),
    )


def _scratch(*folders: str) -> tuple[Call, ...]:
    """Make a tmpfs with `folders` for what an overlay writes; in no other mount namespace, it goes with this one."""
    return (
        *steps.filesystem(
            "tmpfs",
            "upper",
            m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV,
            ("source=mktemplate", "mode=0700"),
            why="lxc.rootfs.options = volatile",
        ),
        *(Call(name="mkdirat", args=(Slot("upper"), c(folder), 0o755)) for folder in folders),
        steps.attach("upper", m.AT_FDCWD, "upper"),
    )


def _overlay(
    name: str, lowers: int, places: tuple[Path, Path, Path], attributes: int
) -> tuple[Call, ...]:
    base, upper, work = places
    return (
        *steps.overlay(
            name,
            lowers,
            str("upper" / upper.relative_to(base)),
            str("upper" / work.relative_to(base)),
            attributes,
        ),
        steps.attach("root", m.AT_FDCWD, "root"),
    )


def _alone() -> tuple[Call, ...]:
    return (
        Call(name="dup3", args=(Slot("upper"), Slot("desk"), os.O_CLOEXEC), result="root"),
        steps.attach("root", m.AT_FDCWD, "root"),
    )
