"""The parts of a root, each as the calls that make it: overlay, /dev, /proc, /sys, tmpfs, masks, pivot.

Every path below the rootfs is opened once, with openat2(2), and mounted on by descriptor; what lies on a file system
that we have just made and nobody else can reach is named relative to its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.kernel import mount as m
from runtime.program import Argument, Call, Expect, Failure, Out, Slot

BENEATH = m.RESOLVE_BENEATH | m.RESOLVE_NO_MAGICLINKS
ORDINARY = BENEATH | m.RESOLVE_NO_SYMLINKS
PLAIN = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
MOUNT_NO_SUID_EXEC = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
# fmt: off
MASKED_FILES = (
    "interrupts", "kallsyms", "kcore", "keys", "key-users", "latency_stats", "sched_debug",
    "timer_list", "timer_stats", "sysrq-trigger", "kmsg", "kpagecount", "kpageflags",
    "kpagecgroup", "vmallocinfo", "slabinfo",
)
# fmt: on
MASKED_DIRECTORIES = ("acpi", "asound", "scsi")
READ_ONLY = ("bus", "fs", "irq", "sys", "driver", "mtrr")
MASKED_SYS = (
    "firmware",
    "devices/virtual/powercap",
    "kernel/security",
    "kernel/debug",
    "kernel/tracing",
    "fs/bpf",
    "fs/pstore",
    "fs/selinux",
    "module",
)
_STATX_MODE, _STATX_RDEV = 28, 128  # offsets in struct statx
_STATFS_FLAGS, _ST_RDONLY = 80, 1  # struct statfs of 64-bit Linux
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


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


def attach(source: str, directory: Argument, name: str = "") -> Call:
    """Attach the detached mount in slot `source` at `name`, or on the descriptor itself."""
    flags = m.MOVE_MOUNT_F_EMPTY_PATH | (0 if name else m.MOVE_MOUNT_T_EMPTY_PATH)
    return Call(name="move_mount", args=(Slot(source), c(""), directory, c(name), flags))


def filesystem(
    kind: str,
    result: str,
    attributes: int,
    options: tuple[str, ...] = (),
    *,
    failure: Failure | None = None,
    why: str = "",
) -> tuple[Call, ...]:
    """Make a detached file system of `kind` in slot `result`; options are `key=value` or flags."""
    settings = tuple(
        Call(
            name="fsconfig",
            args=(Slot("fs"), m.FSCONFIG_SET_STRING, c(key), c(value), 0)
            if equals
            else (Slot("fs"), m.FSCONFIG_SET_FLAG, c(key), None, 0),
            failure=failure,
        )
        for key, equals, value in (option.partition("=") for option in options)
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


def host_device(name: str, path: str, number: tuple[int, int]) -> tuple[Call, ...]:
    """Clone the host's device node at `path` into slot `dev:NAME`, after a look at what it is."""
    major, minor = number
    wrong = Failure("E_MOUNT_SOURCE", path, f"is not the character device {major}:{minor}")
    return (
        Call(
            name="open_tree",
            args=(
                m.AT_FDCWD,
                c(path),
                m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_SYMLINK_NOFOLLOW,
            ),
            result=f"dev:{name}",
            why="bound, not made: in a user namespace no node can be made",
            failure=Failure("E_MOUNT_SOURCE", path),
        ),
        Call(
            name="statx",
            args=(Slot(f"dev:{name}"), c(""), m.AT_EMPTY_PATH, 0x7FF, Out(256)),
            why=f"it must be the character device {major}:{minor}",
            expect=(
                Expect(_STATX_MODE, 2, stat.S_IFCHR, 0xF000),
                Expect(_STATX_RDEV, 4, major),
                Expect(_STATX_RDEV + 4, 4, minor),
            ),
            unexpected=wrong,
        ),
    )


def host_devices() -> tuple[Call, ...]:
    """Clone the six nodes that every program may expect."""
    return tuple(
        call
        for name, number in DEVICES.items()
        for call in host_device(name, f"/dev/{name}", number)
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


def device_directory(size: int = 1 << 20) -> tuple[Call, ...]:
    """Mount a fresh tmpfs on /dev and fill it; the image's own /dev is never used (CVE-2025-31133)."""
    attributes = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC | m.MOUNT_ATTR_STRICTATIME
    links = {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }
    return (
        *ordinary_directory("dev", "target"),
        *filesystem(
            "tmpfs",
            "dev",
            attributes,
            ("source=dev", "mode=0755", f"size={size}", "nr_inodes=512"),
            why="the image's own /dev is never used (CVE-2025-31133)",
        ),
        attach("dev", Slot("target")),
        close("target"),
        *(call for name in DEVICES for call in device_node(name)),
        *(
            Call(name="symlinkat", args=(c(target), Slot("dev"), c(name)))
            for name, target in links.items()
        ),
        *(
            Call(name="mkdirat", args=(Slot("dev"), c(name), 0o755))
            for name in ("pts", "shm", "mqueue")
        ),
    )


def device_node(name: str) -> tuple[Call, ...]:
    """Bind the node cloned as `dev:NAME` into the fresh /dev."""
    return (
        Call(name="mknodat", args=(Slot("dev"), c(name), stat.S_IFREG | 0o666, 0)),
        attach(f"dev:{name}", Slot("dev"), name),
    )


def new_proc() -> tuple[Call, ...]:
    """Make a detached procfs of the container's own processes."""
    failure = Failure(
        "E_KERNEL_FEATURE",
        "proc",
        "the host's /proc is partly covered, so no new one may be mounted",
    )
    return filesystem(
        "proc",
        "proc",
        PLAIN,
        ("source=proc",),
        failure=failure,
        why="shows the processes of our own pid namespace",
    )


def attach_proc() -> tuple[Call, ...]:
    """Mount that procfs on /proc."""
    return (*ordinary_directory("proc", "target"), attach("proc", Slot("target")), close("target"))


def proc() -> tuple[Call, ...]:
    """Mount a procfs of the container's own processes on /proc."""
    return (*new_proc(), *attach_proc())


def sysfs(attributes: int) -> tuple[Call, ...]:
    """Mount a sysfs, which shows the container's own network, on /sys."""
    failure = Failure("E_KERNEL_FEATURE", "sysfs", "it needs a network namespace of its own")
    return (
        *ordinary_directory("sys", "target"),
        *filesystem(
            "sysfs",
            "sys",
            PLAIN | attributes,
            ("source=sysfs",),
            failure=failure,
            why="shows our own network namespace",
        ),
        attach("sys", Slot("target")),
        close("target"),
    )


def terminals(most: int) -> tuple[Call, ...]:
    """Mount a devpts of its own, of `most` terminals, on /dev/pts."""
    attributes = MOUNT_NO_SUID_EXEC
    options = ("source=devpts", "ptmxmode=0666", "mode=0620", f"max={most}")
    return (
        *filesystem(
            "devpts",
            "pts",
            attributes,
            (*options, "gid=5"),
            why="terminals of our own; 5 is the group tty",
        ),
        attach("pts", Slot("dev"), "pts"),
    )


def mask_files(directory: str, names: tuple[str, ...]) -> tuple[Call, ...]:
    """Cover files of our own procfs or sysfs with the null device."""
    calls: list[Call] = []
    for name in names:
        calls += (
            Call(
                name="openat2",
                args=(Slot(directory), c(name), *how(os.O_PATH, ORDINARY)),
                result="target",
                ignore=_ABSENT,
                skip=4,
            ),
            Call(
                name="open_tree",
                args=(Slot("dev"), c("null"), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC),
                result="mask",
            ),
            attach("mask", Slot("target")),
            close("mask"),
            close("target"),
        )
    return tuple(calls)


def mask_directories(directory: str, names: tuple[str, ...]) -> tuple[Call, ...]:
    """Cover directories of our own procfs or sysfs with an empty read-only tmpfs (slot `empty`)."""
    calls: list[Call] = []
    for name in names:
        calls += (
            Call(
                name="openat2",
                args=(Slot(directory), c(name), *how(os.O_PATH | os.O_DIRECTORY, ORDINARY)),
                result="target",
                ignore=_ABSENT,
                skip=4,
            ),
            Call(
                name="open_tree",
                args=(
                    Slot("empty"),
                    c(""),
                    m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH,
                ),
                result="mask",
            ),
            attach("mask", Slot("target")),
            close("mask"),
            close("target"),
        )
    return tuple(calls)


def read_only(directory: str, names: tuple[str, ...]) -> tuple[Call, ...]:
    """Bind paths of our own procfs over themselves, read-only."""
    attributes = m.mount_attributes(m.MOUNT_ATTR_RDONLY | PLAIN)
    calls: list[Call] = []
    for name in names:
        calls += (
            Call(
                name="open_tree",
                args=(Slot(directory), c(name), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC),
                result="mask",
                why="to be mounted over itself, read-only",
                ignore=_ABSENT,
                skip=3,
            ),
            Call(
                name="mount_setattr",
                args=(Slot("mask"), c(""), m.AT_EMPTY_PATH, attributes, len(attributes)),
            ),
            attach("mask", Slot(directory), name),
            close("mask"),
        )
    return tuple(calls)


def scratch(name: str, *options: str, attributes: int = PLAIN) -> tuple[Call, ...]:
    """Mount a fresh tmpfs on the ordinary directory `name` below the root."""
    return (
        *ordinary_directory(name, "target"),
        *filesystem("tmpfs", "scratch", attributes, (f"source={name}", *options)),
        attach("scratch", Slot("target")),
        close("scratch"),
        close("target"),
    )


def empty() -> tuple[Call, ...]:
    """Make the empty tmpfs that masks are cloned from."""
    return filesystem(
        "tmpfs",
        "empty",
        PLAIN | m.MOUNT_ATTR_RDONLY,
        ("source=masked", "mode=0555", "size=4k", "nr_inodes=2"),
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
