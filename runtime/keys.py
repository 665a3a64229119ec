"""Every key of lxc.container.conf(5), LXC 6 and 7: where its value goes, who reads it, what becomes of it.

docs/lxc-keys.md is written from these tables (scripts/lxc-keys).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime import netreaders, readers
from valuetypes import dataclass

Reader = Callable[[str], Any]
PairReader = Callable[[str, str], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key whose last line counts; `field` is of ContainerConfig, or of Nic below lxc.net.N."""

    name: str
    field: str
    read: Reader


@dataclass(frozen=True, slots=True)
class ListKey(Key):
    """A key whose lines add up; `read` gives a tuple."""


@dataclass(frozen=True, slots=True)
class PairKey:
    """All keys below `name`; lines add up, or with `replaces` the last one for a name counts."""

    name: str
    field: str
    read: PairReader
    replaces: bool = False


def _raw(value: str) -> tuple[str, ...]:
    return (value,)


KEYS: tuple[Key | PairKey, ...] = (
    ListKey("lxc.include", "include", _raw),
    # general, init, signals, process
    Key("lxc.arch", "arch", readers.arch),
    Key("lxc.uts.name", "hostname", readers.hostname),
    Key("lxc.ephemeral", "ephemeral", readers.boolean),
    Key("lxc.init.cmd", "init_cmd", readers.command),
    Key("lxc.execute.cmd", "execute_cmd", readers.command),
    Key("lxc.init.cwd", "init_cwd", readers.absolute),
    Key("lxc.init.uid", "init_uid", readers.number_id),
    Key("lxc.init.gid", "init_gid", readers.number_id),
    ListKey("lxc.init.groups", "init_groups", readers.group_list),
    Key("lxc.no_new_privs", "no_new_privs", readers.boolean),
    Key("lxc.sched.core", "sched_core", readers.boolean),
    PairKey("lxc.proc", "proc", readers.proc_file, replaces=True),
    PairKey("lxc.prlimit", "rlimits", readers.rlimit, replaces=True),
    PairKey("lxc.sysctl", "sysctls", readers.sysctl, replaces=True),
    ListKey("lxc.environment", "environment", readers.environment),
    ListKey("lxc.environment.runtime", "environment_runtime", readers.environment),
    ListKey("lxc.environment.hooks", "environment_hooks", readers.environment),
    Key("lxc.keyring.session", "keyring_disabled", readers.boolean),
    Key("lxc.signal.halt", "signal_halt", readers.signal_number),
    Key("lxc.signal.reboot", "signal_reboot", readers.signal_number),
    Key("lxc.signal.stop", "signal_stop", readers.signal_number),
    Key("lxc.monitor.unshare", "monitor_unshare", readers.loose_boolean),
    Key("lxc.monitor.signal.pdeath", "monitor_pdeath", readers.signal_number),
    ListKey("lxc.group", "groups", readers.words),
    Key("lxc.start.auto", "start_auto", readers.boolean),
    Key("lxc.start.delay", "start_delay", readers.small),
    Key("lxc.start.order", "start_order", readers.signed),
    # console, tty, /dev
    Key("lxc.console.path", "console_path", readers.text),
    Key("lxc.console.logfile", "console_logfile", readers.text),
    Key("lxc.console.rotate", "console_rotate", readers.boolean),
    Key("lxc.console.buffer.size", "console_buffer_size", readers.console_size),
    Key("lxc.console.size", "console_size", readers.console_size),
    Key("lxc.tty.max", "tty_max", readers.small),
    Key("lxc.tty.dir", "tty_dir", readers.one_name_late),
    Key("lxc.pty.max", "pty_max", readers.small),
    Key("lxc.autodev", "autodev", readers.boolean),
    Key("lxc.autodev.tmpfs.size", "autodev_tmpfs_size", readers.dev_size),
    # mounts, rootfs
    Key("lxc.rootfs.path", "rootfs_path", readers.text),
    Key("lxc.rootfs.mount", "rootfs_mount", readers.text),
    Key("lxc.rootfs.options", "rootfs_options", readers.rootfs_options),
    Key("lxc.rootfs.managed", "rootfs_managed", readers.boolean),
    Key("lxc.mount.fstab", "mount_fstab", readers.text),
    ListKey("lxc.mount.entry", "mount_entries", readers.mount_entry),
    ListKey("lxc.mount.auto", "mount_auto", readers.mount_auto),
    # cgroups
    PairKey("lxc.cgroup2", "cgroup2", readers.cgroup_file),
    PairKey("lxc.cgroup", "cgroup1", readers.cgroup_file),
    Key("lxc.cgroup.dir", "cgroup_dir", readers.relative),
    Key("lxc.cgroup.dir.container", "cgroup_dir_container", readers.relative),
    Key("lxc.cgroup.dir.container.inner", "cgroup_dir_inner", readers.one_name),
    Key("lxc.cgroup.dir.monitor", "cgroup_dir_monitor", readers.relative),
    Key("lxc.cgroup.dir.monitor.pivot", "cgroup_dir_pivot", readers.relative),
    Key("lxc.cgroup.relative", "cgroup_relative", readers.boolean),
    # security
    ListKey("lxc.cap.drop", "cap_drop", readers.dropped),
    ListKey("lxc.cap.keep", "cap_keep", readers.capabilities),
    Key("lxc.apparmor.profile", "apparmor_profile", readers.text),
    Key("lxc.apparmor.allow_incomplete", "apparmor_allow_incomplete", readers.boolean),
    Key("lxc.apparmor.allow_nesting", "apparmor_allow_nesting", readers.boolean),
    ListKey("lxc.apparmor.raw", "apparmor_raw", _raw),
    Key("lxc.selinux.context", "selinux_context", readers.text),
    Key("lxc.selinux.context.keyring", "selinux_keyring", readers.text),
    Key("lxc.seccomp.profile", "seccomp_profile", readers.text),
    Key("lxc.seccomp.allow_nesting", "seccomp_allow_nesting", readers.boolean),
    Key("lxc.seccomp.notify.proxy", "seccomp_notify_proxy", readers.proxy),
    Key("lxc.seccomp.notify.cookie", "seccomp_notify_cookie", readers.text),
    ListKey("lxc.idmap", "idmap", readers.id_map),
    # namespaces
    ListKey("lxc.namespace.clone", "namespace_clone", readers.namespaces),
    ListKey("lxc.namespace.keep", "namespace_keep", readers.namespaces),
    PairKey("lxc.namespace.share", "namespace_share", readers.share, replaces=True),
    Key("lxc.time.offset.boot", "time_boot", readers.time_offset),
    Key("lxc.time.offset.monotonic", "time_monotonic", readers.time_offset),
    # hooks
    Key("lxc.hook.version", "hook_version", readers.boolean),
    PairKey("lxc.hook", "hooks", readers.hook),
    # logging
    Key("lxc.log.file", "log_file", readers.text),
    Key("lxc.log.level", "log_level", readers.log_level),
    Key("lxc.log.syslog", "log_syslog", readers.facility),
)

# lxc.net.N.NAME; `type` comes before what only its type knows
NET_KEYS: tuple[Key, ...] = (
    Key("type", "kind", netreaders.net_kind),
    Key("flags", "up", bool),
    Key("link", "link", netreaders.link),
    Key("l2proxy", "l2proxy", readers.boolean),
    Key("mtu", "mtu", netreaders.mtu),
    Key("name", "name", netreaders.interface),
    Key("hwaddr", "mac", netreaders.mac),
    ListKey("ipv4.address", "ipv4", netreaders.ipv4_address),
    Key("ipv4.gateway", "ipv4_gateway", netreaders.ipv4_gateway),
    ListKey("ipv6.address", "ipv6", netreaders.ipv6_address),
    Key("ipv6.gateway", "ipv6_gateway", netreaders.ipv6_gateway),
    Key("script.up", "script_up", readers.text),
    Key("script.down", "script_down", readers.text),
    Key("vlan.id", "vlan_id", netreaders.vlan),
    Key("macvlan.mode", "macvlan_mode", readers.one_of("private", "vepa", "bridge", "passthru")),
    Key("ipvlan.mode", "ipvlan_mode", readers.one_of("l3", "l3s", "l2")),
    Key("ipvlan.isolation", "ipvlan_isolation", readers.one_of("bridge", "private", "vepa")),
    Key("veth.mode", "veth_mode", readers.one_of("bridge", "router")),
    Key("veth.pair", "veth_pair", netreaders.interface),
    Key("veth.n_rxqueues", "veth_rxqueues", readers.small),
    Key("veth.n_txqueues", "veth_txqueues", readers.small),
    ListKey("veth.ipv4.route", "veth_ipv4_routes", netreaders.ipv4_route),
    ListKey("veth.ipv6.route", "veth_ipv6_routes", netreaders.ipv6_route),
    Key("veth.vlan.id", "veth_vlan_id", netreaders.port_vlan),
    ListKey("veth.vlan.tagged.id", "veth_vlan_tagged", netreaders.tagged_vlan),
)

BY_NAME = {key.name: key for key in KEYS}
NET_BY_NAME = {key.name: key for key in NET_KEYS}
PAIR_KEYS = tuple(key for key in KEYS if isinstance(key, PairKey))

# Only one of the two versions knows these.
VERSION = {"lxc.environment.runtime": 7, "lxc.environment.hooks": 7, "lxc.cgroup": 6}

_NO_PROXY = "there is no notification proxy of ours; a profile without `notify` needs none"
# What `start` refuses, and why.
REFUSED = {
    "lxc.seccomp.notify.proxy": _NO_PROXY,
    "lxc.seccomp.notify.cookie": _NO_PROXY,
}
# What has no effect on a start, in LXC neither.
IGNORED = {
    "lxc.execute.cmd": "only lxc-execute reads it",
    "lxc.group": "only lxc-autostart reads it; `autostart` starts every group",
    "lxc.signal.reboot": "only lxc-stop -r reads it; `restart` stops and starts",
    "lxc.rootfs.mount": "where LXC mounts the root on its way; ours is mounted where nobody sees it",
    "lxc.rootfs.managed": "only lxc-destroy reads it; `destroy` never removes what lies outside PATH/NAME",
    "lxc.monitor.unshare": "every start has a mount namespace of its own",
    "lxc.log.file": "liblxc's own log; ours is standard error",
    "lxc.log.level": "liblxc's own log; ours is -v",
    "lxc.log.syslog": "liblxc's own log; ours is standard error",
    "lxc.apparmor.allow_incomplete": "a kernel without all of AppArmor's mediations is taken as it is",
    "lxc.apparmor.allow_nesting": "our profile forbids no mount that a nested container needs",
    "lxc.selinux.context.keyring": "no context is applied",
    "lxc.seccomp.allow_nesting": "there is no notification proxy of ours",
}
# What a start leaves out, and says so: it confines nothing.
NOTED = {
    "lxc.signal.stop": "what does not stop is killed with SIGKILL, all of it at once",
    "lxc.tty.dir": "no /dev/tty1 and up are made",
    "lxc.console.rotate": "the log rotates by size in any case",
    "lxc.console.buffer.size": "there is no ring buffer; `logs` reads the log",
    "lxc.console.size": "the log rotates at a size of its own",
    "lxc.cgroup.dir.monitor": "the monitor stays in its starter's control group",
    "lxc.cgroup.dir.monitor.pivot": "the monitor stays in its starter's control group",
}


def nic_kind(name: str) -> str:
    """Return the type of nic that alone knows the subkey `name`, or nothing."""
    head = name.partition(".")[0]
    return head if head in {"veth", "macvlan", "ipvlan", "vlan"} else ""
