"""What a start writes below /proc for a container: lxc.proc, lxc.sysctl, lxc.time.offset."""

from __future__ import annotations

import errno
import os

from runtime import sharing, steps
from runtime.config import ContainerConfig
from runtime.errors import ConfigError
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.program import Call, Failure, Slot, Text
from runtime.steps import c

_IFREQ = b"lo".ljust(16, b"\0") + (0x41).to_bytes(2, "little") + bytes(22)  # IFF_UP, IFF_RUNNING


def loopback(flags: int) -> tuple[Call, ...]:
    """Bring lo up in a network of our own."""
    if not flags & ns.CLONE_NEWNET:
        return ()
    return (
        Call(name="socket", args=(2, 2 | os.O_CLOEXEC, 0), result="socket"),
        Call(
            name="ioctl",
            args=(Slot("socket"), 0x8914, _IFREQ),
            why="SIOCSIFFLAGS: lo up, which nobody outside may do for a normal user",
        ),
        steps.close("socket"),
    )


def proc_files(config: ContainerConfig, *, rootless: bool) -> tuple[Call, ...]:
    """Write lxc.proc.* from outside, where the host's rights count."""
    calls: list[Call] = []
    for name, value in config.proc:
        data = value.encode(errors="surrogateescape")
        failure = Failure("E_CONFIG_VALUE", f"lxc.proc.{name}")
        calls += (
            Call(
                name="openat",
                args=(
                    m.AT_FDCWD if rootless else Slot("host_proc"),
                    Text(
                        f"{'/proc/' if rootless else ''}%d/{name.replace('.', '/')}",
                        (Slot("init"),),
                    ),
                    os.O_WRONLY | os.O_CLOEXEC,
                ),
                result="file",
                failure=failure,
            ),
            Call(name="write", args=(Slot("file"), data, len(data)), failure=failure),
            steps.close("file"),
        )
    return tuple(calls)


def sysctls(config: ContainerConfig, flags: int) -> tuple[Call, ...]:
    """Write lxc.sysctl.* through our own procfs, which is not read-only yet (CVE-2025-52881)."""
    calls: list[Call] = []
    shared = sharing.names(config)
    for name, value in config.sysctls:
        if ("net" if name.startswith("net.") else "ipc") in shared:
            continue
        if name.startswith("net.") and not flags & ns.CLONE_NEWNET:
            raise ConfigError("E_SYSCTL", name, "the network, and so the sysctl, is the host's")
        if not name.startswith("net.") and not flags & ns.CLONE_NEWIPC:
            raise ConfigError(
                "E_SYSCTL", name, "the IPC namespace, and so the sysctl, is the host's"
            )
        failure = Failure("E_SYSCTL", name)
        data = value.encode(errors="surrogateescape")
        calls += (
            Call(
                name="openat2",
                args=(
                    Slot("proc"),
                    c(f"sys/{name.replace('.', '/')}"),
                    *steps.how(os.O_WRONLY, steps.ORDINARY | m.RESOLVE_NO_XDEV),
                ),
                result="file",
                ignore=(errno.ENOENT,) if name.startswith("net.ipv6.") else (),
                skip=2,
                failure=failure,
            ),
            Call(name="write", args=(Slot("file"), data, len(data)), failure=failure),
            steps.close("file"),
        )
    return tuple(calls)


def has_clocks(config: ContainerConfig) -> bool:
    """Whether it has a time namespace of its own."""
    return bool(config.time_boot or config.time_monotonic) and "time" not in sharing.names(config)


def own_clocks(config: ContainerConfig) -> tuple[Call, ...]:
    """Let who is cloned next have clocks of its own, set from outside.

    Init itself may not set them in a user namespace: having changed its ids it is not dumpable, so what is below its
    own /proc is root's of the host (proc(5)).
    """
    if not has_clocks(config):
        return ()
    failure = Failure("E_KERNEL_FEATURE", "lxc.time.offset")
    unshare = Call(
        name="unshare",
        args=(ns.CLONE_NEWTIME,),
        why="a time namespace that the next child is in",
        failure=failure,
    )
    return (unshare, *time_offsets(config, "host_proc"))


def time_offsets(config: ContainerConfig, proc: str) -> tuple[Call, ...]:
    """Set the clocks of the time namespace that our children will be in, by the procfs in slot `proc`."""
    if not has_clocks(config):
        return ()
    offsets = (("boottime", config.time_boot), ("monotonic", config.time_monotonic))
    data = b"".join(
        f"{clock} {value // 10**9} {value % 10**9}\n".encode() for clock, value in offsets if value
    )
    failure = Failure("E_KERNEL_FEATURE", "lxc.time.offset")
    return (
        Call(
            name="openat",
            args=(Slot(proc), c("self/timens_offsets"), os.O_WRONLY | os.O_CLOEXEC),
            result="file",
            failure=failure,
        ),
        Call(name="write", args=(Slot("file"), data, len(data)), failure=failure),
        steps.close("file"),
    )
