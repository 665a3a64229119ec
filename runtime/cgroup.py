"""A container's own control group: below `mktemplate` in each hierarchy that serves, and nowhere else.

On cgroup v2 one folder; on v1 and hybrid hosts one per controller that is needed, and where there is a v2 tree
beside them, one there too: it freezes, kills and counts better (a v1-frozen task dies only when thawed).
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from runtime import devices
from runtime.controlfile import pids_below, read, remove_tree, try_write, words, write
from runtime.errors import HostError
from runtime.hierarchy import (
    Group,
    Hierarchy,
    Spot,
    has_own_parent,
    make_group,
    make_inner,
    mounted,
    spot,
)
from runtime.kernel import bpf
from runtime.limits import Limit, Limits, device_policy, twins
from valuetypes import dataclass

_V1_ALWAYS = ("memory", "pids", "devices")  # what usage, limits and confinement need
_V1_NAMED = "name=systemd"  # systemd as init wants to see it (feasibility A16)
_DELEGATED = (  # /sys/kernel/cgroup/delegate; `tasks` is v1's
    *("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"),
    *("memory.oom.group", "memory.reclaim"),
)
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a container uses; None is not known here."""

    memory: int | None  # bytes
    memory_peak: int | None  # bytes
    pids: int | None
    cpu: float | None  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """The groups of one container. Nothing in here is open; it can be written down and read again."""

    key: str
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()  # default limits that this host cannot give

    @staticmethod
    def make(
        key: str,
        limits: Limits,
        hierarchies: Iterable[Hierarchy] | None = None,
        where: Spot | None = None,
    ) -> Cgroup:
        """Make the groups of `key` with `limits`; HostError (E_CGROUP) where one that was asked for is refused.

        A leftover of the same key without processes is replaced.
        """
        if not _KEY.fullmatch(key):
            raise HostError("E_CGROUP", key, "is no name of a control group")
        trees = tuple(mounted() if hierarchies is None else hierarchies)
        wanted = _wanted(trees, limits)
        made: list[Group] = []
        try:
            for tree in trees:
                controllers = tuple(name for name in tree.controllers if name in wanted)
                if tree.version == 2 or controllers:
                    made += make_group(tree, controllers, where or spot(key))
            notes = _apply(Cgroup(key=key, groups=tuple(made)), limits)
            for group in made:
                make_inner(group)
        except BaseException:
            Cgroup(key=key, groups=tuple(made)).remove()
            raise
        return Cgroup(key=key, groups=tuple(made), notes=notes)

    @staticmethod
    def left(key: str, where: Spot | None = None) -> Cgroup:
        """Return the groups of `key` that are there, also of a start that was killed before it could name them."""
        folder = (where or spot(key)).folder
        places = ((tree, f"{tree.path}/{folder}") for tree in mounted())
        groups = (
            Group(path=path, controllers=tree.controllers, version=tree.version)
            for tree, path in places
            if os.path.isdir(path)
        )
        return Cgroup(key=key, groups=tuple(groups))

    def as_json(self) -> dict[str, Any]:
        """Return this as plain values."""
        groups = [
            [group.path, list(group.controllers), group.version, group.inner]
            for group in self.groups
        ]
        return {"key": self.key, "groups": groups, "notes": list(self.notes)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Cgroup:
        """Return what `as_json` wrote."""
        groups = tuple(
            Group(
                path=str(path),
                controllers=tuple(controllers),
                version=int(version),
                inner="".join(inner),
            )
            for path, controllers, version, *inner in value["groups"]
        )
        return Cgroup(key=str(value["key"]), groups=groups, notes=tuple(value["notes"]))

    def join_files(self) -> tuple[Path, ...]:
        """Return the files that a process joins by writing "0" (or another's pid) to each."""
        return tuple(Path(group.innermost) / "cgroup.procs" for group in self.groups)

    def join_files_of(self, pid: int) -> tuple[Path, ...]:
        """Return the files by which a process gets to where `pid` of this container is on cgroup v2.

        Who divides a group of v2 among groups below it has no process in it any more (cgroups(7), "no internal
        processes"), and nobody can join it: systemd as init is in init.scope.
        """
        return tuple(
            Path(_place_of(pid, group) if group.version == 2 else group.innermost, "cgroup.procs")
            for group in self.groups
        )

    def delegate(self, uid: int, gid: int) -> None:
        """Let `uid` make groups of its own below these; their limits stay ours."""
        for path in self.delegated():
            os.chown(path, uid, gid)

    def delegated(self) -> tuple[str, ...]:
        """Return what `delegate` hands over: the folders, and of their files those that move processes."""
        return tuple(
            path
            for group in self.groups
            for path in (group.innermost, *(f"{group.innermost}/{name}" for name in _DELEGATED))
            if os.path.exists(path)  # v1 has no subtree_control, v2 no tasks
        )

    def pids(self) -> tuple[int, ...]:
        """Return every process in the groups, as numbered here."""
        group = self._counting
        return () if group is None else tuple(sorted(set(pids_below(group.path))))

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process, also new ones; return when all stand still."""
        group, state, frozen = self._freezer("FROZEN")
        write(f"{group.path}/{state}", frozen)
        _wait(self.is_frozen, timeout, f"{group.path}: not every process could be frozen")

    def thaw(self, timeout: float = 10.0) -> None:
        """Let every process go on."""
        group, state, thawed = self._freezer("THAWED")
        write(f"{group.path}/{state}", thawed)
        _wait(lambda: not self.is_frozen(), timeout, f"{group.path}: could not be thawed")

    def is_frozen(self) -> bool:
        """Whether every process stands still."""
        group = self._tree(2) or self._with("freezer")
        if group is None:
            return False
        if group.version == 2:
            return words(f"{group.path}/cgroup.events").get("frozen") == "1"
        return read(f"{group.path}/freezer.state").strip() == "FROZEN"

    def kill(self, timeout: float = 10.0) -> None:
        """Kill every process in the groups, also frozen ones, and return when none is left."""
        group = self._tree(2)
        killed = group is not None and try_write(f"{group.path}/cgroup.kill", "1")
        deadline = time.monotonic() + timeout
        while pids := self.pids():
            if not killed:  # v1, or before Linux 5.14: again and again, as they may fork
                self._signal(pids)
            if time.monotonic() > deadline:
                raise HostError("E_CGROUP", self.key, f"processes {pids[:5]} do not die")
            time.sleep(0.001)

    def usage(self) -> Usage:
        """Return what the groups use now."""
        memory = self._with("memory")
        current, peak = ("memory.current", "memory.peak")
        if memory is not None and memory.version == 1:
            current, peak = ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        pids = self._with("pids")
        return Usage(
            memory=_number(memory, current),
            memory_peak=_number(memory, peak),
            pids=_number(pids, "pids.current") if pids else len(self.pids()),
            cpu=self._cpu(),
        )

    def oom_kills(self) -> int:
        """Return how often the kernel killed in these groups for want of memory."""
        group = self._with("memory")
        if group is None:
            return 0
        name = "memory.oom_control" if group.version == 1 else "memory.events"
        return int(words(f"{group.path}/{name}").get("oom_kill", "0"))

    def set(self, limits: Limits) -> tuple[str, ...]:
        """Apply `limits` to groups that exist; return the notes."""
        return _apply(self, limits)

    def remove(self, timeout: float = 2.0) -> None:
        """Remove the groups and those below, depth first, and a parent of ours when it is empty. Idempotent."""
        for group in self.groups:
            remove_tree(group.path, time.monotonic() + timeout)
            try:
                if has_own_parent(group):
                    os.rmdir(os.path.dirname(group.path))
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY}:
                    raise

    def _tree(self, version: int) -> Group | None:
        return next((group for group in self.groups if group.version == version), None)

    def _with(self, controller: str) -> Group | None:
        return next((group for group in self.groups if controller in group.controllers), None)

    @property
    def _counting(self) -> Group | None:
        return self._tree(2) or self._tree(1)

    def _freezer(self, word: str) -> tuple[Group, str, str]:
        if group := self._tree(2):
            return group, "cgroup.freeze", "1" if word == "FROZEN" else "0"
        if group := self._with("freezer"):
            return group, "freezer.state", word
        raise HostError("E_CGROUP", self.key, "this host has no freezer")

    def _signal(self, pids: Iterable[int]) -> None:
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in self.pids():  # the descriptor is of a process that is ours still (I-16)
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)
        if self.is_frozen():
            self.thaw()

    def _cpu(self) -> float | None:
        if group := self._tree(2):
            used = words(f"{group.path}/cpu.stat").get("usage_usec")
            return None if used is None else int(used) / 1e6
        number = _number(self._with("cpuacct"), "cpuacct.usage")
        return None if number is None else number / 1e9


def _place_of(pid: int, group: Group) -> str:
    """Return the v2 group at or below `group` that `pid` is in. No name in it can be `..` or hold a newline."""
    for line in read(f"/proc/{pid}/cgroup").split("\n"):
        number, _, place = line.partition("::")
        names = group.path.split("/")[1:]
        for depth in range(len(names) if number == "0" else 0):  # what is mounted may begin deeper
            ours = "/" + "/".join(names[depth:])
            if f"{place}/".startswith(f"{ours}/"):
                return group.path + place[len(ours) :]
    return group.innermost


def _wanted(trees: Iterable[Hierarchy], limits: Limits) -> frozenset[str]:
    """Return the controllers that the container needs here."""
    named = {limit.file.partition(".")[0] for limit in (*limits.v2, *limits.v1)}
    two = any(tree.version == 2 for tree in trees)
    alone = () if two else ("freezer", "cpuacct")  # what a v2 tree does by itself
    return frozenset({*named, *_V1_ALWAYS, _V1_NAMED, *alone})


def _apply(cgroup: Cgroup, limits: Limits) -> tuple[str, ...]:
    """Write `limits`, or return why a default one cannot be written."""
    notes: list[str] = []
    ours, missing = _spread(cgroup, limits)
    for limit in missing:
        notes += _lacking(limit, "this host's control groups have nothing like it")
    for limit in ours:
        group = cgroup._with(limit.file.partition(".")[0])
        if group is None:
            notes += _lacking(limit, "this host does not give us that controller")
            continue
        try:
            write(f"{group.path}/{limit.file}", limit.value)
        except OSError as error:
            notes += _lacking(limit, f"{limit.value!r}: {error.strerror}")
    _filter_devices(cgroup, limits)
    return tuple(notes)


def _spread(cgroup: Cgroup, limits: Limits) -> tuple[tuple[Limit, ...], tuple[Limit, ...]]:
    """Return what to write, and what has no place on this host."""
    pure = all(group.version == 2 for group in cgroup.groups)
    if pure and cgroup.groups:
        return tuple(limit for limit in limits.v2 if not limit.file.startswith("devices.")), ()
    one, missing = twins(limits.v2)
    two = cgroup._tree(2)
    here = tuple(limit for limit in missing if two and os.path.exists(f"{two.path}/{limit.file}"))
    return (*one, *limits.v1), tuple(limit for limit in missing if limit not in here)


def _filter_devices(cgroup: Cgroup, limits: Limits) -> None:
    """Attach the device filter where no v1 controller holds the list; refused is an error: it confines (I-20)."""
    policy = device_policy(limits.v2)
    group = cgroup._tree(2)
    if policy is None or cgroup._with("devices") is not None:
        return
    if group is None:
        raise _refused("devices", "there is no control group to hold the list of devices")
    descriptor = os.open(group.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bpf.attach_device_filter(descriptor, devices.program(policy))
    except OSError as error:
        raise _refused(
            "devices", f"the kernel does not take the filter: {error.strerror}"
        ) from None
    finally:
        os.close(descriptor)


def _lacking(limit: Limit, reason: str) -> list[str]:
    if limit.asked:
        raise _refused(limit.file, reason)
    return [f"{limit.file} is not applied: {reason}"]


def _refused(subject: str, reason: str) -> HostError:
    hints = (
        ()
        if os.geteuid() == 0
        else ("your systemd manager must delegate it: Delegate= of user@.service",)
    )
    return HostError("E_CGROUP", subject, reason, hints=hints)


def _number(group: Group | None, name: str) -> int | None:
    try:
        return None if group is None else int(read(f"{group.path}/{name}"))
    except (OSError, ValueError):
        return None


def _wait(done: Callable[[], bool], timeout: float, failure: str) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise HostError("E_CGROUP", "freezer", failure)
        time.sleep(0.0005)
