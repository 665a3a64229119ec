"""A container's configuration and the host's facts → Program: the order of a start, with its reasons.

own mount namespace → init cloned with its user namespace and mapped → layers attached → the other namespaces →
root → /dev → /proc, /sys → entries → cgroup, network (meanwhile, from outside) → pivot → hostname, keyring → ids,
capabilities, no_new_privs, seccomp → exec.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from runtime import (
    apparmor,
    cgroupfs,
    confinement,
    consolepty,
    fstab,
    idmap,
    kernelfs,
    layers,
    mounts,
    procfiles,
    refuse,
    sharing,
    steps,
    way,
)
from runtime.config import ContainerConfig
from runtime.errors import ConfigError
from runtime.fstab import MountEntry
from runtime.hierarchy import Hierarchy, is_pure
from runtime.hooks import NONE, Hooks
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.program import Call, Expect, Failure, Out, Program, Slot, Step, Text
from runtime.sockets import NO_SOCKETS, Sockets
from runtime.steps import c
from valuetypes import dataclass

_PER_LINUX32 = 8
_PR_SCHED_CORE = 62
_TTY = 5  # the group that terminals are of
_ARCHES_OF_32 = frozenset(
    {"arm", "armel", "armhf", "armv7l", "athlon", "i386", "i486", "i586", "i686", "linux32"}
    | {"mips", "mipsel", "ppc", "powerpc", "x86"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a start takes from the host, besides the configuration."""

    name: str  # the container's
    join: tuple[Path, ...] = ()  # cgroup.procs files
    hooks: Hooks = NONE
    hierarchies: tuple[Hierarchy, ...] = ()  # where the container has a group
    bpf: bytes = b""  # the seccomp filter
    files: tuple[MountEntry, ...] = ()  # /etc/hosts, hostname, resolv.conf
    last_capability: int = 40
    rootless: bool = False  # a normal user's: no right outside the user namespace
    sockets: Sockets = NO_SOCKETS  # for init, as its starter gave them
    mapper: tuple[str, ...] = ()  # a command that maps init's ids, whose pid is its %d


def decide(config: ContainerConfig, host: Host) -> Program:
    """Return the calls that start what `config` describes; raise ConfigError for what cannot be."""
    ids = idmap.from_config(config.idmap)
    flags = _namespaces(config)
    if host.sockets.count and not flags & ns.CLONE_NEWPID:
        raise ConfigError(
            "E_CONFIG_VALUE",
            "lxc.namespace",
            "listening sockets are given to process 1 of a pid namespace of its own",
        )
    if host.rootless and ids is None:
        raise ConfigError(
            "E_IDMAP", "lxc.idmap", "a normal user's container needs a user namespace"
        )
    root = layers.layers(config, host.name, ids, rootless=host.rootless)
    entries = mounts.plan(
        (*_fstab(config), *config.mount_entries, *host.files),
        config.rootfs_layers[-1] if config.rootfs_layers else "",
        own_dev=config.autodev,
        ids=config.idmap,
    )
    limits, notes = confinement.resource_limits(config.rlimits)
    clone_flags = flags & (ns.CLONE_NEWUSER | ns.CLONE_NEWPID)
    sources: tuple[Step, ...] = (
        *host.hooks.calls("pre-mount"),
        *(kernelfs.host_devices() if config.autodev else ()),
        *root.clone,
        *entries.stage,
    )
    path = way.way(
        ids,
        flags & ~clone_flags & ~ns.CLONE_NEWCGROUP & ~(0 if host.rootless else ns.CLONE_NEWTIME),
        sources,
        (*root.attach, *(() if host.rootless else entries.host)),
        (host.mapper,) if host.mapper else way.map_commands(ids),
        rootless=host.rootless,
    )
    return Program(
        stage=(
            *limits,
            *root.opened,
            *path.stage,
            *sharing.join(config),
            *(() if host.rootless else procfiles.own_clocks(config)),
            Call(
                name="clone",
                args=(clone_flags | ns.CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0),
                result="init",
                why="init: the user namespace first, so that it owns all others",
                failure=Failure(
                    "E_USERNS_DISABLED",
                    "user namespace",
                    hints=("sysctl user.max_user_namespaces",),
                ),
            ),
        ),
        maps=path.maps,
        host=(
            *sharing.leave(config),
            *path.host,
            *_join(host.join),
            *procfiles.proc_files(config, rootless=host.rootless),
        ),
        init=(
            *way.wait_for_go(ids),
            *way.die_with_parent(confinement.death_signal(config)),
            *path.init,
            Call(name="write", args=(Slot("born"), b"b", 1), why="the network may be attached now"),
            *root.root,
            *_system(config, flags, rootless=host.rootless),
            *entries.init,
            *host.hooks.calls("mount"),
            *host.hooks.calls("autodev"),
            *_network_wait(),
            *_own_cgroups(config, flags, host.hierarchies),
            *apparmor.prepare(config),
            *steps.pivot(),
            *_identity(config),
            *confinement.confine(
                config,
                confinement.User(
                    uid=config.init_uid, gid=config.init_gid, groups=config.init_groups
                ),
                host.bpf,
                host.last_capability,
            ),
            *host.hooks.calls("start"),
            *(_ready_wait() if host.hooks.at("start-host") else ()),
            *apparmor.take_on(config),
            *confinement.execute(config.init_argv, confinement.environment(config), host.sockets),
        ),
        notes=(
            *notes,
            *entries.notes,
            *refuse.notes(config),
            *apparmor.notes(config),
            *_notes(config, flags, host.hierarchies),
        ),
    )


def _namespaces(config: ContainerConfig) -> int:
    """Return the CLONE_NEW* flags: all, or those that lxc.namespace.clone or keep leave."""
    names = {"mnt", "pid", "uts", "ipc", "net", "cgroup"}
    if config.namespace_clone:
        names = set(config.namespace_clone)
    names -= {*config.namespace_keep, *sharing.names(config)}
    if any(nic.kind == "none" for nic in config.nics):
        names.discard("net")
    if config.idmap:
        names.add("user")
    if "mnt" not in names:
        raise ConfigError(
            "E_CONFIG_VALUE", "lxc.namespace.keep", "a container has a mount namespace of its own"
        )
    if procfiles.has_clocks(config):
        names.add("time")
    return sum(ns.FLAGS[name] for name in names)


def _fstab(config: ContainerConfig) -> tuple[MountEntry, ...]:
    if not config.mount_fstab:
        return ()
    try:
        with open(config.mount_fstab, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(
            "E_CONFIG_VALUE", "lxc.mount.fstab", f"{config.mount_fstab}: {error.strerror}"
        ) from None
    return fstab.parse(text, config.mount_fstab)


def _join(files: tuple[Path, ...]) -> tuple[Call, ...]:
    """Put init into its cgroups while it is busy: on cgroup v1 the kernel takes a grace period for it."""
    calls: list[Call] = []
    for path in files:
        failure = Failure("E_CGROUP", str(path))
        calls += (
            Call(
                name="openat",
                args=(m.AT_FDCWD, c(str(path)), os.O_WRONLY | os.O_CLOEXEC),
                result="cgroup",
                failure=failure,
            ),
            Call(
                name="write",
                args=(Slot("cgroup"), Text("%d       ", (Slot("init"),)), 8),
                failure=failure,
            ),
            steps.close("cgroup"),
        )
    return tuple(calls)


def _own_cgroups(
    config: ContainerConfig, flags: int, hierarchies: tuple[Hierarchy, ...]
) -> tuple[Call, ...]:
    """Return the cgroup namespace, and its view of the groups where it is asked for."""
    if not flags & ns.CLONE_NEWCGROUP:
        return ()
    return (
        Call(
            name="unshare",
            args=(ns.CLONE_NEWCGROUP,),
            why="after the cgroups are joined: they are its root from now on",
        ),
        *cgroupfs.mounts(config, hierarchies),
    )


def _notes(config: ContainerConfig, flags: int, hierarchies: tuple[Hierarchy, ...]) -> list[str]:
    """Return what of lxc.mount.auto = cgroup this host cannot give."""
    if not cgroupfs.wanted(config) or is_pure():
        return []
    if not flags & ns.CLONE_NEWCGROUP:
        return ["lxc.mount.auto = cgroup: not mounted without a cgroup namespace of its own"]
    return [] if hierarchies else ["lxc.mount.auto = cgroup: not mounted: it has no control group"]


def _system(config: ContainerConfig, flags: int, *, rootless: bool) -> tuple[Call, ...]:
    """Return /dev, /proc and /sys as lxc.autodev, lxc.pty.max and lxc.mount.auto ask."""
    calls: list[Call] = []
    words = dict(word.partition(":")[::2] for word in config.mount_auto)
    if config.autodev:
        calls += kernelfs.device_directory(config.autodev_tmpfs_size)
        if config.pty_max + config.tty_max:
            ids = idmap.from_config(config.idmap)
            group = ids is None or ids.maps_group(_TTY)
            calls += kernelfs.terminals(config.pty_max + config.tty_max, group=group)
        if consolepty.has(config):
            calls += consolepty.make()
    calls += kernelfs.new_proc()
    calls += procfiles.sysctls(config, flags)
    if rootless:  # what the host's root does for others
        calls += procfiles.time_offsets(config, "proc")
        calls += procfiles.loopback(flags)
    if "proc" in words:
        calls += kernelfs.attach_proc()
        calls += _mixed(config, flags) if words["proc"] != "rw" else ()
    if "sys" in words:
        calls += kernelfs.sysfs(words["sys"])
    return tuple(calls)


def _mixed(config: ContainerConfig, flags: int) -> tuple[Call, ...]:
    """Return what makes of /proc read-only what is the host's, for one who administers its own network but that."""
    covered = kernelfs.read_only("proc", kernelfs.READ_ONLY)
    if flags & ns.CLONE_NEWNET and confinement.keeps(config, "net_admin"):
        return kernelfs.writable("proc", "sys/net", covered)
    return covered


def _network_wait() -> tuple[Call, ...]:
    return (
        Call(
            name="read",
            args=(Slot("net_go"), Out(1), 1),
            why="until the network is attached",
            expect=(Expect(0, 1, ord("g")),),
            unexpected=Failure("E_INIT_DIED", "monitor", "it ended before its time"),
        ),
    )


def _ready_wait() -> tuple[Call, ...]:
    return (
        Call(name="write", args=(Slot("born"), b"r", 1), why="only the execve is left"),
        Call(
            name="read",
            args=(Slot("net_go"), Out(1), 1),
            why="until lxc.hook.start-host has ended",
            expect=(Expect(0, 1, ord("s")),),
            unexpected=Failure("E_INIT_DIED", "monitor", "it ended before its time"),
        ),
    )


def _identity(config: ContainerConfig) -> tuple[Call, ...]:
    """Return hostname, session keyring, session, standard streams."""
    calls: list[Call] = []
    if config.hostname and "uts" not in sharing.names(config):
        name = config.hostname.encode()
        calls.append(Call(name="sethostname", args=(name, len(name))))
    if config.arch in _ARCHES_OF_32:
        calls.append(Call(name="personality", args=(_PER_LINUX32,)))
    if config.sched_core:
        calls.append(
            Call(
                name="prctl",
                args=(_PR_SCHED_CORE, 1, 0, 1, 0),
                ignore=(errno.ENODEV,),
                why="a core-scheduling cookie of its own; without SMT there is none",
                failure=Failure("E_KERNEL_FEATURE", "lxc.sched.core"),
            )
        )
    calls += confinement.keyring(config)
    calls += confinement.session(console=consolepty.has(config))
    if config.init_cwd:
        calls += confinement.stand_in(config.init_cwd)
    return tuple(calls)
