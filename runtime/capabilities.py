"""Capabilities by name, as sets in a mask (capabilities(7)), and the calls that keep only some."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.kernel import process
from runtime.program import Call

# fmt: off
NAMES = (  # in the order of their numbers, linux/capability.h
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)
# fmt: on
NUMBERS = {name: number for number, name in enumerate(NAMES)}
SERVICE = frozenset(
    {"chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "sys_chroot"}
)
BUILD = SERVICE | {"setfcap"}
LOGIN = SERVICE | {
    "setpcap",
    "net_bind_service",
    "net_raw",
    "mknod",
    "audit_write",
    "setfcap",
}


def mask(names: Iterable[str]) -> int:
    """Return the bits of `names`."""
    return sum(1 << NUMBERS[name] for name in frozenset(names))


def has(name: str) -> bool:
    """Whether `name` is effective in the calling thread."""
    return bool(process.capget()[0] & mask((name,)))


def last() -> int:
    """Return the highest capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def bound(keep: Iterable[str], highest: int) -> tuple[Call, ...]:
    """Drop everything but `keep` from the bounding set."""
    kept = mask(keep)
    return tuple(
        Call(
            name="prctl",
            args=(process.PR_CAPBSET_DROP, number, 0, 0, 0),
            why=NAMES[number] if number < len(NAMES) else "",
        )
        for number in range(highest + 1)
        if not kept >> number & 1
    )


def limit(keep: Iterable[str]) -> tuple[Call, ...]:
    """Make `keep` the permitted and effective set; nothing inheritable, nothing ambient (CVE-2022-29162)."""
    kept = mask(keep)
    return (
        Call(
            name="prctl", args=(process.PR_CAP_AMBIENT, process.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        ),
        Call(
            name="capset",
            args=(process.capability_header(), process.capability_data(kept, kept)),
        ),
    )
