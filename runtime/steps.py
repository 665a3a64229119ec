"""The parts of a root, each as the calls that make it: overlay, /dev, /proc, /sys, tmpfs, masks, pivot.

Every path below the rootfs is opened once, with openat2(2), and mounted on by descriptor; what lies on a file system
that we have just made and nobody else can reach is named relative to its descriptor.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from runtime.kernel import mount as m
from runtime.program import Argument, Call, Expect, Failure, Out, Slot, Step, Text
from valuetypes import replace

BENEATH = m.RESOLVE_BENEATH | m.RESOLVE_NO_MAGICLINKS
ORDINARY = BENEATH | m.RESOLVE_NO_SYMLINKS
PLAIN = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
_TRIES = 8
_STATFS_FLAGS, _ST_RDONLY = 80, 1  # struct statfs of 64-bit Linux


def c(text: str) -> bytes:
    """Return `text` as a C string."""
    return os.fsencode(text) + b"\0"


def how(flags: int, resolve: int, mode: int = 0) -> tuple[bytes, int]:
    """Return a struct open_how (openat2(2)) and its size: the last two arguments of the call."""
    data = b"".join(value.to_bytes(8, "little") for value in (flags | os.O_CLOEXEC, mode, resolve))
    return data, len(data)


def open_directory(directory: Argument, name: str, result: str, failure: Failure | None) -> Call:
    """Open an ordinary directory of the rootfs: no component may be a symlink."""
    return Call(
        name="openat2",
        args=(directory, c(name), *how(os.O_PATH | os.O_DIRECTORY, ORDINARY)),
        result=result,
        failure=failure,
    )


def close(slot: str) -> Call:
    """Close the descriptor in `slot`."""
    return Call(name="close", args=(Slot(slot),))


def tried(
    before: Sequence[Call], attempt: Call, lost: int, undo: Sequence[Call] = ()
) -> tuple[Call, ...]:
    """Do `before` and `attempt`, and where that fails with errno `lost`, `undo` and all once more.

    Each of the eight tries is lost only to another program that is quicker in the microseconds between two calls.
    """
    calls = (*before, attempt)
    for _ in range(_TRIES - 1):
        past = Call(
            name="close",
            args=(-1,),  # fails by design
            ignore=(errno.EBADF,),
            skip=len(undo) + len(calls),
            why="it is ours: the other tries are left out",
        )
        calls = (*before, replace(attempt, ignore=(lost,), skip=1), past, *undo, *calls)
    return calls


def map_ids(
    process: Slot, name: str, data: bytes, failure: Failure, *, why: str = ""
) -> tuple[Call, ...]:
    """Write `data` to uid_map, gid_map or setgroups of a process, by the procfs in slot `host_proc`."""
    return (
        Call(
            name="openat",
            args=(Slot("host_proc"), Text(f"%d/{name}", (process,)), os.O_WRONLY | os.O_CLOEXEC),
            result="map",
            why=why,
            failure=failure,
        ),
        Call(name="write", args=(Slot("map"), data, len(data)), failure=failure),
        close("map"),
    )


def attach(source: str, directory: Argument, name: str = "") -> Call:
    """Attach the detached mount in slot `source` at `name`, or on the descriptor itself."""
    flags = m.MOVE_MOUNT_F_EMPTY_PATH | (0 if name else m.MOVE_MOUNT_T_EMPTY_PATH)
    return Call(name="move_mount", args=(Slot(source), c(""), directory, c(name), flags))


def filesystem(
    kind: str,
    result: str,
    attributes: int,
    options: tuple[str | tuple[str, Argument], ...] = (),
    *,
    failure: Failure | None = None,
    why: str = "",
) -> tuple[Call, ...]:
    """Make a detached file system of `kind` in slot `result`.

    Options are `key=value`, flags, or pairs of a key and what is known only when the call is made.
    """
    settings = tuple(
        Call(
            name="fsconfig",
            args=(Slot("fs"), m.FSCONFIG_SET_FLAG, c(key), None, 0)
            if value is None
            else (Slot("fs"), m.FSCONFIG_SET_STRING, c(key), value, 0),
            failure=failure,
        )
        for key, value in map(_setting, options)
    )
    return (
        Call(
            name="fsopen", args=(c(kind), m.FSOPEN_CLOEXEC), result="fs", why=why, failure=failure
        ),
        *settings,
        Call(
            name="fsconfig",
            args=(Slot("fs"), m.FSCONFIG_CMD_CREATE, None, None, 0),
            failure=failure,
        ),
        Call(
            name="fsmount",
            args=(Slot("fs"), m.FSMOUNT_CLOEXEC, attributes),
            result=result,
            failure=failure,
        ),
        close("fs"),
    )


def _setting(option: str | tuple[str, Argument]) -> tuple[str, Argument]:
    """Return key and value of an option; a flag has none."""
    if not isinstance(option, str):
        return option
    key, equals, value = option.partition("=")
    return key, c(value) if equals else None


def overlay(name: str, lowers: int, upper: str, work: str, attributes: int) -> tuple[Call, ...]:
    """Make the root from the layers attached as 0…`lowers`-1 below the working directory.

    It is made by the container's own root, in its user namespace: the files that overlayfs itself makes then have
    the right owner. Made by another, it comes up read-only without an error; hence the look at its flags.
    """
    failure = Failure("E_OVERLAY_RO", name, "the kernel refuses an overlay of these directories")
    options = (
        f"source={name}",
        f"lowerdir={':'.join(map(str, range(lowers)))}",
        f"upperdir={upper}",
        f"workdir={work}",
        "redirect_dir=nofollow",
        "index=off",
        "metacopy=off",
        "xino=off",
        "userxattr",
    )
    made = filesystem(
        "overlay",
        "root",
        attributes,
        options,
        failure=failure,
        why="by the container's own root: what overlayfs makes then has the right owner",
    )
    if attributes & m.MOUNT_ATTR_RDONLY:
        return made
    return (
        *made,
        Call(
            name="fstatfs",
            args=(Slot("root"), Out(120)),
            why="an overlay that cannot write its work directory comes up read-only, without an error",
            expect=(Expect(_STATFS_FLAGS, 8, 0, _ST_RDONLY),),
            unexpected=Failure("E_OVERLAY_RO", name, "the overlay came up read-only"),
        ),
    )


def ordinary_directory(name: str, result: str) -> tuple[Call, ...]:
    """Make `name` below the root where it is missing, and open it; a symlink is refused (CVE-2019-19921)."""
    failure = Failure("E_ROOTFS_SYMLINK", name, "must be an ordinary directory")
    return (
        Call(
            name="mkdirat",
            args=(Slot("root"), c(name), 0o755),
            ignore=(errno.EEXIST, errno.EROFS),
            failure=failure,
        ),
        open_directory(Slot("root"), name, result, failure),
    )


def scratch(name: str, *options: str, attributes: int = PLAIN) -> tuple[Call, ...]:
    """Mount a fresh tmpfs on the ordinary directory `name` below the root."""
    return (
        *ordinary_directory(name, "target"),
        *filesystem("tmpfs", "scratch", attributes, (f"source={name}", *options)),
        attach("scratch", Slot("target")),
        close("scratch"),
        close("target"),
    )


def pivot() -> tuple[Call, ...]:
    """Make the root the root, and let go of the host's (pivot_root(2), "pivot_root(".", ".")")."""
    return (
        Call(name="fchdir", args=(Slot("root"),)),
        Call(
            name="pivot_root", args=(c("."), c(".")), why="from here on no path leads to the host"
        ),
        Call(
            name="umount2", args=(c("."), m.MNT_DETACH), why="the old root, which lies on the new"
        ),
        Call(name="chdir", args=(c("/"),)),
    )


def before_born(init: tuple[Step, ...], *calls: Call) -> tuple[Step, ...]:
    """Return `init` with `calls` made as soon as its namespaces are there: before it says so in slot `born`."""
    [there] = [
        index
        for index, step in enumerate(init)
        if isinstance(step, Call) and Slot("born") in step.args and step.args[1] == b"b"
    ]
    return (*init[:there], *calls, *init[there:])
