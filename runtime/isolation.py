"""What a container cannot do, found by trying it from inside with its init's rights: `info --isolation`.

Each attempt is a system call, made in a process that joined the container; nothing of the container's is executed,
and whatever an attempt would bring about ends with that process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from runtime import enter
from runtime.container import Container
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.kernel.libc import Buffer, raw
from runtime.kernel.libc import number_of as n
from runtime.steps import c
from valuetypes import dataclass

_TIOCSTI = 0x5412
_PTRACE_SEIZE = 0x4206  # does not stop what it traces
_CHARACTER = 0o020666
_NULL_DEVICE = 0x103  # 1:3, as mknod(2) takes it
_PROBE = "/run/mktemplate-probe"
_MASKED = -4096  # beyond every errno: the file is the null device
_REFUSALS = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.ENOSYS,
        errno.EROFS,
        errno.ENOENT,
        errno.ENXIO,
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        -_MASKED,
    }
)  # another error means that only our arguments were at fault


@dataclass(frozen=True, slots=True)
class Verdict:
    """One attempt and how it ended: `refused` is what is wanted of each."""

    attempt: str
    refused: bool
    answer: str  # the error's name, or "it was done"


_BUFFER = Buffer(256)
_STI = b"x\0"
_ALL = process.capability_data((1 << 41) - 1, (1 << 41) - 1)


def _open(path: str, flags: int) -> Callable[[], int]:
    number = n("openat")

    def attempt() -> int:
        descriptor = raw(number, m.AT_FDCWD, c(path), flags, 0)
        if descriptor < 0:
            return descriptor
        status = os.fstat(descriptor)
        os.close(descriptor)
        return _MASKED if status.st_rdev == _NULL_DEVICE else descriptor

    return attempt


def _call(name: str, *arguments: int | bytes | Buffer | None) -> Callable[[], int]:
    number = n(name)
    return lambda: raw(number, *arguments)


_ATTEMPTS: tuple[tuple[str, Callable[[], int]], ...] = (
    ("mount a file system", _call("mount", c("x"), c("/usr"), c("nosuchfs"), 0, None)),
    ("open a file system context", _call("fsopen", c("tmpfs"), 0)),
    ("clone a mount", _call("open_tree", m.AT_FDCWD, c("/"), m.OPEN_TREE_CLONE)),
    ("unmount a file system", _call("umount2", c("/usr"), m.MNT_DETACH)),
    ("pivot the root", _call("pivot_root", c("/"), c("/"))),
    ("unshare a user namespace", _call("unshare", ns.CLONE_NEWUSER)),
    ("unshare a mount namespace", _call("unshare", ns.CLONE_NEWNS)),
    ("unshare a network namespace", _call("unshare", ns.CLONE_NEWNET)),
    ("join a namespace", _call("setns", 0, 0)),
    ("load a BPF program", _call("bpf", 5, bytes(128), 128)),
    ("read performance counters", _call("perf_event_open", bytes(128), 0, -1, -1, 0)),
    ("set up an io_uring", _call("io_uring_setup", 1, bytes(120))),
    ("handle page faults", _call("userfaultfd", 1)),
    ("open a file by handle", _call("open_by_handle_at", m.AT_FDCWD, bytes(64), 0)),
    ("load a kernel module", _call("finit_module", 0, c(""), 0)),
    ("read the kernel's log", _call("syslog", 3, _BUFFER, 256)),
    ("add a key", _call("add_key", c("user"), c("mktemplate"), b"x\0", 1, -3)),
    ("use a keyring", _call("keyctl", 0, -3, 0, 0, 0)),
    ("trace init", _call("ptrace", _PTRACE_SEIZE, 1, 0, 0)),
    ("reboot", _call("reboot", 0, 0, 0, None)),
    ("type on the terminal (TIOCSTI)", _call("ioctl", 0, _TIOCSTI, _STI)),
    ("make a device node", _call("mknodat", m.AT_FDCWD, c(_PROBE), _CHARACTER, _NULL_DEVICE)),
    ("write /proc/sys/kernel/core_pattern", _open("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
    ("write /proc/sysrq-trigger", _open("/proc/sysrq-trigger", os.O_WRONLY | os.O_TRUNC)),
    ("write /proc/irq/0/smp_affinity", _open("/proc/irq/0/smp_affinity", os.O_WRONLY)),
    ("write /sys/kernel/mm/ksm/run", _open("/sys/kernel/mm/ksm/run", os.O_WRONLY)),
    ("read /proc/kcore", _open("/proc/kcore", os.O_RDONLY)),
    ("read /dev/mem", _open("/dev/mem", os.O_RDONLY)),
    ("open a disk of the host's", _open("/dev/vda", os.O_RDONLY)),
    ("open a cgroup's release_agent", _open("/sys/fs/cgroup/release_agent", os.O_WRONLY)),
    ("send a packet as it likes", _call("socket", 17, 3, 0)),
    ("talk to the audit subsystem", _call("socket", 16, 3, 9)),
    ("use the kernel's ciphers", _call("socket", 38, 5, 0)),
    ("change the clock", _call("clock_settime", 0, bytes(16))),
    ("gain a capability", _call("capset", process.capability_header(), _ALL)),
)


def isolation(container: Container) -> list[Verdict]:
    """Return what was tried and how it ended. StateError: E_NOTRUNNING."""
    answer = enter.inside(container, _try_all)
    results = [int(word) for word in answer.split()]
    return [
        Verdict(name, -result in _REFUSALS, _answer(result))
        for (name, _), result in zip(_ATTEMPTS, results, strict=True)
    ]


def _try_all() -> bytes:
    results = [act() for _, act in _ATTEMPTS]
    raw(n("unlinkat"), m.AT_FDCWD, c(_PROBE), 0)
    return b" ".join(b"%d" % result for result in results)


def _answer(result: int) -> str:
    if result == _MASKED:
        return "it is the null device"
    return "it was done" if result >= 0 else errno.errorcode.get(-result, str(-result))
