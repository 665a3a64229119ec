"""Processes: prctl(2), capabilities(7), keyctl(2), close_range(2), inotify(7) and their constants."""

from __future__ import annotations

import struct

from runtime.kernel.libc import Buffer, syscall
from runtime.kernel.libc import path as c_path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

KEYCTL_JOIN_SESSION_KEYRING = 1
CLOSE_RANGE_CLOEXEC = 4
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

IN_CLOSE_WRITE = 0x08
IN_MOVED_TO = 0x80
IN_DELETE = 0x200
IN_CREATE = 0x100
IN_CLOEXEC = 0o2000000

_CAPABILITY_VERSION_3 = 0x20080522


def prctl(option: int, *arguments: int) -> int:
    """Change what the kernel holds about the calling process; missing arguments are 0."""
    return syscall("prctl", option, *(*arguments, 0, 0, 0, 0)[:4])


def capability_header() -> bytes:
    """Return a struct __user_cap_header_struct for the calling thread."""
    return struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)


def capability_data(effective: int, permitted: int, inheritable: int = 0) -> bytes:
    """Return the two struct __user_cap_data_struct of the three sets, given as masks."""
    low = [mask & 0xFFFFFFFF for mask in (effective, permitted, inheritable)]
    high = [mask >> 32 for mask in (effective, permitted, inheritable)]
    return struct.pack("=6I", *low, *high)


def capset(effective: int, permitted: int, inheritable: int = 0) -> None:
    """Set the capability sets of the calling thread."""
    syscall("capset", capability_header(), capability_data(effective, permitted, inheritable))


def capget() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable masks of the calling thread."""
    data = Buffer(24)
    syscall("capget", capability_header(), data)
    words = struct.unpack("=6I", bytes(data))
    return (
        words[0] | words[3] << 32,
        words[1] | words[4] << 32,
        words[2] | words[5] << 32,
    )


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close, or mark as CLOSE_RANGE_CLOEXEC, the descriptors `first` to `last`."""
    syscall("close_range", first, last, flags)


def inotify_init1(flags: int) -> int:
    """Open an inotify instance."""
    return syscall("inotify_init1", flags)


def inotify_add_watch(descriptor: int, name: str, mask: int) -> int:
    """Watch `name` for the events `mask`."""
    return syscall("inotify_add_watch", descriptor, c_path(name), mask)
