"""What `lxc.cgroup2.*` asks for, in the terms of what a host has: cgroup v2's own files or their v1 twins."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import HostError
from runtime.readers import device_rule
from runtime.settings import Pairs
from valuetypes import dataclass

# Limits of ours that stand in every config: a host that cannot apply one is a note, not an error (security.md 2.3).
DEFAULTS: dict[str, frozenset[str]] = {
    "pids.max": frozenset({"2048", "4096"}),
    "cpu.weight": frozenset({"100"}),
    "memory.oom.group": frozenset({"0", "1"}),
}


# v2 file → the v1 file that takes the same value, but for `max`
_RENAMED = {"memory.max": "memory.limit_in_bytes", "memory.high": "memory.soft_limit_in_bytes"}
_SAME = frozenset({"pids.max", "cpuset.cpus", "cpuset.mems", "devices.allow", "devices.deny"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One control file and its value."""

    file: str
    value: str
    asked: bool = True  # somebody asked for it: not to get it is an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container's cgroup is to be."""

    v2: tuple[Limit, ...] = ()  # lxc.cgroup2.*
    v1: tuple[Limit, ...] = ()  # lxc.cgroup.*, LXC 6 only


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device rule; -1 is any number."""

    kind: str  # "a", "b" or "c"
    major: int
    minor: int
    access: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePolicy:
    """Everything but `exceptions` is allowed (`open`) or denied."""

    open: bool
    exceptions: tuple[Device, ...]


def limits(cgroup2: Pairs, cgroup1: Pairs = (), *, defaults: Pairs = ()) -> Limits:
    """Return the limits that a config's pairs mean; nobody asked for those that are among `defaults`."""
    return Limits(
        v2=tuple(
            Limit(
                file=file,
                value=value,
                asked=(file, value) not in defaults
                and value not in DEFAULTS.get(file, frozenset()),
            )
            for file, value in cgroup2
        ),
        v1=tuple(Limit(file=file, value=value) for file, value in cgroup1),
    )


def twins(limits: Iterable[Limit]) -> tuple[tuple[Limit, ...], tuple[Limit, ...]]:
    """Return what cgroup v1 writes for v2 `limits`, in an order that it takes, and those that have no twin."""
    found: list[Limit] = []
    missing: list[Limit] = []
    memory = _memory_max(limits)
    for limit in limits:
        pairs = _twin(limit.file, limit.value, memory)
        found += [Limit(file=file, value=value, asked=limit.asked) for file, value in pairs]
        if not pairs:
            missing.append(limit)
    return tuple(found), tuple(missing)


def device_policy(limits: Iterable[Limit]) -> DevicePolicy | None:
    """Return what the device rules among `limits` come to, by the kernel's own rules; None where there are none.

    As devices.allow and devices.deny of cgroup v1: `a` starts afresh, another line adds to an exception's
    access or takes from it (Documentation/admin-guide/cgroup-v1/devices.rst).
    """
    rules = [limit for limit in limits if limit.file in {"devices.allow", "devices.deny"}]
    open_, table = True, dict[tuple[str, int, int], frozenset[str]]()
    for limit in rules:
        rule = device_rule(limit.value)
        if rule is None:
            raise HostError("E_CGROUP", limit.file, f"{limit.value!r} is no device rule")
        kind, major, minor, access = rule
        allow = limit.file == "devices.allow"
        if kind == "a":
            open_, table = allow, {}
            continue
        held = table.get((kind, major, minor), frozenset())
        left = held - set(access) if allow == open_ else held | set(access)
        table[(kind, major, minor)] = left
    exceptions = tuple(
        Device(kind=kind, major=major, minor=minor, access="".join(sorted(access)))
        for (kind, major, minor), access in table.items()
        if access
    )
    return DevicePolicy(open=open_, exceptions=exceptions) if rules else None


def _memory_max(limits: Iterable[Limit]) -> int | None:
    values = [limit.value for limit in limits if limit.file == "memory.max"]
    return _bytes(values[-1]) if values else None


def _bytes(value: str) -> int | None:
    """Return bytes as the kernel's memparse reads them; None for `max` or nonsense, which the kernel refuses."""
    digits, unit = (
        (value[:-1], value[-1].upper()) if value and value[-1].upper() in "KMGT" else (value, "")
    )
    if not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


def _twin(file: str, value: str, memory: int | None) -> tuple[tuple[str, str], ...]:
    if file in _SAME:
        return ((file, value),)
    if file == "memory.swap.max":  # v1 counts both together
        swap = _bytes(value)
        both = "-1" if swap is None or memory is None else str(memory + swap)
        return (("memory.memsw.limit_in_bytes", both),)
    if file == "cpu.max":
        quota, _, period = value.partition(" ")
        quota = "-1" if quota == "max" else quota
        return (("cpu.cfs_period_us", period.strip() or "100000"), ("cpu.cfs_quota_us", quota))
    if file == "cpu.weight":
        shares = max(2, int(value) * 1024 // 100) if value.isascii() and value.isdigit() else value
        return (("cpu.shares", str(shares)),)
    twin = _RENAMED.get(file)
    return ((twin, "-1" if value == "max" else value),) if twin else ()
