"""Namespaces: unshare(2), setns(2), clone(2) and their constants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.kernel.libc import syscall

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x00000080
CLONE_PARENT = 0x00008000

# name as LXC and /proc/PID/ns spell it: flag
FLAGS = {
    "user": CLONE_NEWUSER,
    "mnt": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "net": CLONE_NEWNET,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    syscall("unshare", flags)


def setns(descriptor: int, flags: int) -> None:
    """Join the namespaces `flags` that `descriptor` (of a namespace, or a pidfd) refers to."""
    syscall("setns", descriptor, flags)


@contextmanager
def in_network(netns: int) -> Iterator[None]:
    """Be in the network namespace open as `netns` for the length of the block: only this thread goes there.

    A socket keeps the namespace that it was made in.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
