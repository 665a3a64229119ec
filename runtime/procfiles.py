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


LOOPBACK_UP = (
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


def time_offsets(config: ContainerConfig) -> tuple[Call, ...]:
    """Set the clocks of the new time namespace, which exec enters (time_namespaces(7))."""
    if "time" in sharing.names(config):
        return ()
    offsets = (("boottime", config.time_boot), ("monotonic", config.time_monotonic))
    lines = [
        f"{clock} {value // 10**9} {value % 10**9}\n".encode() for clock, value in offsets if value
    ]
    if not lines:
        return ()
    data = b"".join(lines)
    failure = Failure("E_KERNEL_FEATURE", "lxc.time.offset")
    return (
        Call(
            name="openat",
            args=(Slot("proc"), c("self/timens_offsets"), os.O_WRONLY | os.O_CLOEXEC),
            result="file",
            failure=failure,
        ),
        Call(name="write", args=(Slot("file"), data, len(data)), failure=failure),
        steps.close("file"),
    )
