"""/dev, /proc and /sys of a container: fresh, its own, and with what it need not see covered."""

from __future__ import annotations

import errno
import os
import stat

from runtime.kernel import mount as m
from runtime.program import Call, Expect, Failure, Out, Slot
from runtime.steps import (
    ORDINARY,
    PLAIN,
    attach,
    c,
    close,
    filesystem,
    how,
    ordinary_directory,
)

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
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger", "driver", "mtrr")
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
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


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
        "the host's /proc is partly covered, or the pid namespace another's: no new one may be mounted",
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


def sysfs(how: str) -> tuple[Call, ...]:
    """Mount a sysfs, which shows the container's own network, on /sys: ro, rw, or read-only but for its network."""
    attributes = 0 if how == "rw" else m.MOUNT_ATTR_RDONLY
    network = () if how in {"ro", "rw"} else writable("sys", "devices/virtual/net", ())
    failure = Failure(
        "E_KERNEL_FEATURE",
        "sysfs",
        "it needs a network namespace of its own; take sys out of lxc.mount.auto",
    )
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
        *network,
    )


def terminals(most: int, *, group: bool) -> tuple[Call, ...]:
    """Mount a devpts of its own, of `most` terminals, on /dev/pts; they are the group tty's where that is mapped."""
    attributes = MOUNT_NO_SUID_EXEC
    options = ("source=devpts", "ptmxmode=0666", "mode=0620", f"max={most}")
    return (
        *filesystem(
            "devpts",
            "pts",
            attributes,
            (*options, "gid=5") if group else options,
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
    """Cover directories of our own procfs or sysfs, each with an empty read-only tmpfs.

    One for each: before Linux 6.15 a mount that is attached nowhere cannot be cloned.
    """
    calls: list[Call] = []
    for name in names:
        mask = (
            *filesystem(
                "tmpfs",
                "mask",
                PLAIN | m.MOUNT_ATTR_RDONLY,
                ("source=masked", "mode=0555", "size=4k", "nr_inodes=2"),
            ),
            attach("mask", Slot("target")),
            close("mask"),
            close("target"),
        )
        calls += (
            Call(
                name="openat2",
                args=(Slot(directory), c(name), *how(os.O_PATH | os.O_DIRECTORY, ORDINARY)),
                result="target",
                ignore=_ABSENT,
                skip=len(mask),
            ),
            *mask,
        )
    return tuple(calls)


def writable(directory: str, name: str, below: tuple[Call, ...]) -> tuple[Call, ...]:
    """Let the folder `name` of a file system of ours stay writable where `below` makes what is above it read-only."""
    attributes = m.mount_attributes(PLAIN, m.MOUNT_ATTR_RDONLY)
    return (
        Call(
            name="open_tree",
            args=(Slot(directory), c(name), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC),
            result="kept",
            why="its own network's, which stays writable as LXC has it",
        ),
        Call(
            name="mount_setattr",
            args=(Slot("kept"), c(""), m.AT_EMPTY_PATH, attributes, len(attributes)),
        ),
        *below,
        attach("kept", Slot(directory), name),
        close("kept"),
    )


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
