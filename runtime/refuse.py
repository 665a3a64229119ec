"""Keys of LXC that a start of ours does not do: refused or noted by name, so that none is silently without effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime import apparmor, sharing
from runtime.config import ContainerConfig
from runtime.errors import ConfigError
from runtime.keys import NOTED, REFUSED
from runtime.settings import Nic

_NOT_YET = "is not in this version"
_SELINUX = Path("/sys/fs/selinux/enforce")


def _has_mount(config: ContainerConfig, kind: str) -> bool:
    return any(word.partition(":")[0] == kind for word in config.mount_auto)


def _nic(asks: Callable[[Nic], bool]) -> Callable[[ContainerConfig], bool]:
    """Return whether one of the nics asks for it."""
    return lambda config: any(asks(nic) for nic in config.nics)


# what is refused, by key: whether the configuration asks for it
_RULES: tuple[tuple[str, Callable[[ContainerConfig], bool], str], ...] = (
    (
        "lxc.namespace.share",
        lambda config: any(name in {"user", "mnt"} for name, _ in config.namespace_share),
        "user and mnt: the layers are mapped and mounted for one container alone",
    ),
    (
        "lxc.cgroup.relative",
        lambda config: config.cgroup_relative,
        "a start is written down before its caller is known; name the place in lxc.cgroup.dir",
    ),
    (
        "lxc.cgroup.dir.container",
        lambda config: bool(config.cgroup_dir_container) != bool(config.cgroup_dir_monitor),
        "and lxc.cgroup.dir.monitor go together, as in LXC",
    ),
    (
        "lxc.mount.auto = shmounts",
        lambda config: _has_mount(config, "shmounts"),
        "no mount of the host's gets into a container that runs; name it in lxc.mount.entry",
    ),
    (
        "lxc.selinux.context",
        lambda config: bool(config.selinux_context) and _SELINUX.exists(),
        "no context is set here; take it out: namespaces, capabilities and seccomp confine all the same",
    ),
    (
        "lxc.rootfs.path",
        lambda config: config.rootfs_kind not in {"overlay", "dir", "loop"},
        "only overlay:, dir:, loop: and a plain path are in this version; mount it, and name the folder",
    ),
    (
        "lxc.net.N.l2proxy",
        _nic(lambda nic: nic.l2proxy),
        "nothing of ours answers ARP for others; set proxy_arp on the host's interface",
    ),
    (
        "lxc.net.N.ipv6.gateway",
        _nic(lambda nic: nic.ipv6_gateway == "auto" and not nic.ipv6),
        "auto needs an lxc.net.N.ipv6.address beside it, as in LXC",
    ),
    (
        "lxc.net.N.veth.vlan",
        _nic(lambda nic: nic.has_vlans and (nic.veth_mode != "bridge" or not nic.link)),
        "only a port of a bridge is in VLANs: lxc.net.N.link names the bridge",
    ),
    (
        "lxc.net.N.link",
        _nic(lambda nic: nic.kind == "phys" and nic.link.endswith("+")),
        f"a pattern ending in + {_NOT_YET}; name the interface",
    ),
    (
        "lxc.console.path",
        lambda config: config.console_path not in {"", "none"},
        f"{_NOT_YET}: unset, it is a terminal of the container's own; none: init writes to the log alone",
    ),
    (
        "lxc.apparmor.raw",
        lambda config: bool(config.apparmor_raw and apparmor.profile(config)),
        "nothing is added to our profile: load one of your own and name it in lxc.apparmor.profile",
    ),
)


_OF_NAMESPACES = (
    ("net", "lxc.net"),
    ("net", "lxc.sysctl.net"),
    ("ipc", "lxc.sysctl.fs.mqueue"),
    ("ipc", "lxc.sysctl.kernel"),
    ("uts", "lxc.uts.name"),
    ("time", "lxc.time.offset"),
)


def refuse(config: ContainerConfig) -> None:
    """Raise ConfigError (E_CONFIG_KEY) for the first key that a start cannot do."""
    for name, reason in REFUSED.items():
        if name in config.set_keys:
            raise ConfigError("E_CONFIG_KEY", name, reason)
    for name, asks, reason in _RULES:
        if asks(config):
            raise ConfigError("E_CONFIG_KEY", name, reason)


def notes(config: ContainerConfig) -> tuple[str, ...]:
    """Return what a start leaves out that confines nothing: to be said, not refused."""
    said = [f"{key}: {NOTED[key]}" for key in NOTED if key in config.set_keys]
    if config.tty_max:
        said.append("lxc.tty.max: no /dev/tty1 and up are made")
    said += [
        f"{key}: not applied, the {name} namespace is another's"
        for name, key in _OF_NAMESPACES
        if name in sharing.names(config) and any(one.startswith(key) for one in config.set_keys)
    ]
    return tuple(said)
