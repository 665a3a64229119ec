"""Mount entries (fstab, lxc.mount.entry) as calls: sources cloned by the stage, targets opened beneath the root."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from runtime import fstab, ownership, rootfs, steps
from runtime.fstab import MountEntry, MountFlags
from runtime.kernel import mount as m
from runtime.program import Call, Failure, Slot
from runtime.settings import IdMap
from runtime.steps import c
from valuetypes import dataclass, field

ANY = tuple(range(1, 134))  # every errno: of an optional entry


@dataclass(slots=True)
class Mounts:
    """What a set of entries asks of the three lists."""

    stage: list[Call] = field(default_factory=list)
    host: list[Call] = field(default_factory=list)
    init: list[Call] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ids: tuple[IdMap, ...] = ()  # the container's


def plan(
    entries: tuple[MountEntry, ...], root: str, *, own_dev: bool, ids: tuple[IdMap, ...] = ()
) -> Mounts:
    """Return the calls for `entries` in order; `root` is the rootfs path that absolute targets count from."""
    mounts = Mounts(ids=ids)
    for number, entry in enumerate(entries):
        target = fstab.inside(entry, root)
        if target is None:
            mounts.notes.append(
                f"{entry.target}: absolute target outside the rootfs, ignored as LXC does"
            )
            continue
        _add(mounts, number, entry, target, own_dev=own_dev)
    return mounts


def _add(mounts: Mounts, number: int, entry: MountEntry, target: str, *, own_dev: bool) -> None:
    meaning = fstab.flags(entry.options)
    slot = f"mount{number}"
    attributes = _attributes(entry, meaning, target)
    if not meaning.bind:
        body = _filesystem(entry, meaning, target, attributes)
    elif entry.relative:
        body = (*_inner_source(entry, meaning, attributes), steps.attach("source", Slot("target")))
    elif entry.source == "/dev/null" and own_dev:
        body = _null(entry, attributes)
    else:
        _host_source(mounts, slot, entry, meaning, attributes)
        body = (_attach(slot, entry, target), _close(slot))
    if meaning.propagation:
        body = (*body, _propagation(meaning, entry))
    opened = _open(entry, target, len(body) + 1)
    mounts.init += (*_create(entry, target), opened, *body, _close("target"))


def _close(slot: str) -> Call:
    """Close a descriptor that an optional entry may not have got."""
    return Call(name="close", args=(Slot(slot),), ignore=(errno.EBADF,))


def _attributes(entry: MountEntry, meaning: MountFlags, target: str) -> int:
    """Return the MOUNT_ATTR_* to set: no device nodes but in our own /dev, unless `dev` stands there."""
    forced = 0 if "dev" in entry.options or target.startswith("dev/") else m.MOUNT_ATTR_NODEV
    return meaning.set | forced


def _tolerance(entry: MountEntry) -> tuple[int, ...]:
    return ANY if entry.optional else ()


def _host_source(
    mounts: Mounts, slot: str, entry: MountEntry, meaning: MountFlags, attributes: int
) -> None:
    """Clone a path of the host, by the host's root, before it is out of reach."""
    recursive = m.AT_RECURSIVE if meaning.recursive else 0
    tolerance = _tolerance(entry)
    source = entry.source if entry.source.startswith("/") else f"/{entry.source}"
    if meaning.idmap.startswith("device:"):
        mounts.stage += ownership.device(slot, source, meaning.idmap, mounts.ids)
        return
    mounts.stage.append(
        Call(
            name="open_tree",
            args=(
                m.AT_FDCWD,
                c(source),
                m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | recursive,
            ),
            result=slot,
            ignore=tolerance,
            skip=1,
            failure=Failure("E_MOUNT_SOURCE", source),
        )
    )
    data = m.mount_attributes(attributes, meaning.clear & ~m.MOUNT_ATTR_ATIME)
    mounts.stage.append(
        Call(
            name="mount_setattr",
            args=(Slot(slot), c(""), m.AT_EMPTY_PATH | recursive, data, len(data)),
            ignore=tolerance,
            failure=Failure("E_MOUNT_SOURCE", source),
        )
    )
    if ownership.is_ours(meaning.idmap):
        mounts.stage += ownership.owned(slot, source, meaning.idmap, mounts.ids)
    elif meaning.idmap:
        mounts.host.append(rootfs.idmapped(slot, Path(source)))


def _inner_source(entry: MountEntry, meaning: MountFlags, attributes: int) -> tuple[Call, ...]:
    """Clone a path of the rootfs itself."""
    recursive = m.AT_RECURSIVE if meaning.recursive else 0
    data = m.mount_attributes(attributes, 0)
    failure = Failure("E_MOUNT_SOURCE", entry.source, "inside the rootfs")
    tolerance = _tolerance(entry)
    return (
        Call(
            name="openat2",
            args=(Slot("root"), c(entry.source.lstrip("/")), *steps.how(os.O_PATH, steps.BENEATH)),
            result="path",
            ignore=tolerance,
            skip=3,
            failure=failure,
        ),
        Call(
            name="open_tree",
            args=(
                Slot("path"),
                c(""),
                m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH | recursive,
            ),
            result="source",
            ignore=tolerance,
            failure=failure,
        ),
        Call(
            name="mount_setattr",
            args=(Slot("source"), c(""), m.AT_EMPTY_PATH | recursive, data, len(data)),
            ignore=tolerance,
            failure=failure,
        ),
        _close("path"),
    )


def _null(entry: MountEntry, attributes: int) -> tuple[Call, ...]:
    """Cover the target with the null device of our own /dev, whose number was looked at."""
    data = m.mount_attributes(attributes & ~m.MOUNT_ATTR_NODEV)
    return (
        Call(
            name="open_tree",
            args=(Slot("dev"), c("null"), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC),
            result="source",
        ),
        Call(name="mount_setattr", args=(Slot("source"), c(""), m.AT_EMPTY_PATH, data, len(data))),
        _attach("source", entry, entry.target),
        _close("source"),
    )


def _filesystem(
    entry: MountEntry, meaning: MountFlags, target: str, attributes: int
) -> tuple[Call, ...]:
    failure = Failure("E_MOUNT_TARGET", target, f"mounting {entry.kind}")
    calls = steps.filesystem(
        entry.kind, "source", attributes, (f"source={entry.source}", *meaning.data), failure=failure
    )
    if entry.optional:
        calls = tuple(
            Call(
                name=call.name,
                args=call.args,
                result=call.result,
                ignore=ANY,
                failure=call.failure,
            )
            for call in calls
        )
    return (*calls, _attach("source", entry, target), _close("source"))


def _attach(slot: str, entry: MountEntry, target: str) -> Call:
    call = steps.attach(slot, Slot("target"))
    return Call(
        name=call.name,
        args=call.args,
        ignore=_tolerance(entry),
        failure=Failure("E_MOUNT_TARGET", target),
    )


def _propagation(meaning: MountFlags, entry: MountEntry) -> Call:
    recursive = m.AT_RECURSIVE if meaning.propagation & fstab.MS_REC else 0
    data = m.mount_attributes(0, 0, meaning.propagation & ~fstab.MS_REC)
    return Call(
        name="mount_setattr",
        args=(Slot("source"), c(""), m.AT_EMPTY_PATH | recursive, data, len(data)),
        ignore=ANY if entry.optional else (errno.EINVAL, errno.EBADF),
    )


def _open(entry: MountEntry, target: str, skip: int) -> Call:
    return Call(
        name="openat2",
        args=(Slot("root"), c(target or "."), *steps.how(os.O_PATH, steps.BENEATH)),
        result="target",
        ignore=_tolerance(entry),
        skip=skip,
        failure=Failure(
            "E_MOUNT_TARGET", target, "a component is missing, or a symlink that leaves the rootfs"
        ),
    )


def _create(entry: MountEntry, target: str) -> tuple[Call, ...]:
    """Make what is missing of the target, one component at a time, never through a path (CVE-2024-45310)."""
    if not entry.create:
        return ()
    parts = target.split("/")
    calls: list[Call] = []
    for depth, part in enumerate(parts):
        is_file = entry.create == "file" and depth == len(parts) - 1
        parent = "/".join(parts[:depth])
        where: Slot = Slot("root")
        if parent:
            where = Slot("parent")
            calls.append(
                Call(
                    name="openat2",
                    args=(
                        Slot("root"),
                        c(parent),
                        *steps.how(os.O_PATH | os.O_DIRECTORY, steps.BENEATH),
                    ),
                    result="parent",
                    ignore=_tolerance(entry),
                    skip=2,
                    failure=Failure(
                        "E_MOUNT_TARGET",
                        target,
                        f'component "{parent}" is a symlink that leaves the rootfs, or no directory',
                    ),
                )
            )
        calls.append(
            Call(
                name="mknodat" if is_file else "mkdirat",
                args=(where, c(part), stat.S_IFREG | 0o644, 0)
                if is_file
                else (where, c(part), 0o755),
                ignore=_tolerance(entry) or (errno.EEXIST, errno.EROFS),
                failure=Failure("E_MOUNT_TARGET", target, "it cannot be made"),
            )
        )
        if parent:
            calls.append(_close("parent"))
    return tuple(calls)
