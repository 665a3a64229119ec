"""lxc.namespace.share.*: namespaces that a container does not make, because they are another's.

Root's affair: who joins a namespace needs rights in the user namespace that owns it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from runtime import state, steps
from runtime.config import ContainerConfig
from runtime.errors import ConfigError, HostError, StateError
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.program import Call, Failure, Slot
from runtime.steps import c

_NS_GET_NSTYPE = 0xB703  # ioctl_nsfs(2)


def names(config: ContainerConfig) -> frozenset[str]:
    """Return which namespaces are another's, as LXC and /proc/PID/ns spell them."""
    return frozenset(name for name, _ in config.namespace_share)


def opened(config: ContainerConfig, path: Path, given: ExitStack) -> dict[str, int]:
    """Return a descriptor of each by the slot's name; `given` closes them. Containers are looked for below `path`.

    StateError: E_NOTFOUND, E_NOTRUNNING. ConfigError: E_CONFIG_VALUE for what is no such namespace.
    """
    if config.namespace_share and os.geteuid() != 0:
        raise HostError(
            "E_KERNEL_FEATURE", "lxc.namespace.share", "only root may join another's namespaces"
        )
    found = {}
    for name, whose in config.namespace_share:
        descriptor = _open(name, whose, path)
        given.callback(os.close, descriptor)
        found[_slot(name)] = descriptor
    return found


def join(config: ContainerConfig) -> tuple[Call, ...]:
    """Enter them, before init is cloned."""
    own = Call(
        name="openat",
        args=(m.AT_FDCWD, c("/proc/self/ns/cgroup"), os.O_RDONLY | os.O_CLOEXEC),
        result="own cgroup",
    )
    return (own,) * ("cgroup" in names(config)) + tuple(
        Call(
            name="setns",
            args=(Slot(_slot(name)), ns.FLAGS[name]),
            why=f"lxc.namespace.share.{name} = {whose}",
            failure=Failure("E_KERNEL_FEATURE", f"lxc.namespace.share.{name}", "cannot be joined"),
        )
        for name, whose in config.namespace_share
    )


def leave(config: ContainerConfig) -> tuple[Call, ...]:
    """Come back from the cgroup namespace, when init is cloned: from inside none of its groups can be joined."""
    if "cgroup" not in names(config):
        return ()
    return (
        Call(
            name="setns",
            args=(Slot("own cgroup"), ns.CLONE_NEWCGROUP),
            why="init's group is not seen from the shared namespace (cgroups(7))",
        ),
        steps.close("own cgroup"),
    )


def _slot(name: str) -> str:
    return f"shared {name}"


def _open(name: str, whose: str, path: Path) -> int:
    key = f"lxc.namespace.share.{name}"
    if not whose.startswith("/"):
        pid = int(whose) if whose.isascii() and whose.isdigit() else _init(whose, path)
        whose = f"/proc/{pid}/ns/{name}"
    try:
        descriptor = os.open(whose, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError("E_CONFIG_VALUE", key, f"{whose}: {error.strerror}") from None
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != ns.FLAGS[name]:
        os.close(descriptor)
        raise ConfigError("E_CONFIG_VALUE", key, f"{whose}: is no {name} namespace")
    return descriptor


def _init(container: str, path: Path) -> int:
    """Return the pid of the init of the container of this name."""
    run = state.load(path, container)
    if run is not None:
        with run.init.alive() as pidfd:
            if pidfd is not None:
                return run.init.pid
    raise StateError(
        "E_NOTRUNNING",
        container,
        "does not run, and a namespace of it is to be shared",
        hints=(f"mktemplate start {container}",),
    )
