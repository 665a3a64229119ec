"""What a container's configuration says, as typed values. Text becomes these in `config`; nothing here acts."""

from __future__ import annotations

import shlex

from runtime.fstab import MountEntry
from valuetypes import dataclass, field

UNLIMITED = -1  # of an Rlimit: RLIM_INFINITY


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """One extent of a user namespace: `count` ids from `inside` are the host's ids from `outside`."""

    kind: str  # "u" or "g"
    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """A resource limit of init; UNLIMITED is no limit."""

    name: str  # as getrlimit(2), lower case without RLIMIT_, or a number
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program of the user's at a point of a container's life."""

    point: str  # pre-start, mount, post-stop, …
    command: str  # for /bin/sh


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of a nic with its prefix length, as `10.0.0.2/24`."""

    ip: str
    prefix: int
    broadcast: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One `lxc.net.N`; what its type does not know stays at its default."""

    index: int
    kind: str = ""  # veth macvlan ipvlan vlan phys empty none; "" where no type was given
    up: bool = False
    link: str = ""
    name: str = ""
    mac: str = ""
    mtu: int = 0
    l2proxy: bool = False
    ipv4: tuple[Address, ...] = ()
    ipv4_gateway: str = ""  # address, "auto" or "dev"
    ipv6: tuple[Address, ...] = ()
    ipv6_gateway: str = ""
    script_up: str = ""
    script_down: str = ""
    vlan_id: int = 0
    macvlan_mode: str = "private"
    ipvlan_mode: str = "l3"
    ipvlan_isolation: str = "bridge"
    veth_mode: str = "bridge"
    veth_pair: str = ""  # name of the host's end
    veth_rxqueues: int = 1
    veth_txqueues: int = 1
    veth_ipv4_routes: tuple[str, ...] = ()
    veth_ipv6_routes: tuple[str, ...] = ()
    veth_vlan_id: int | None = None  # -1 is "none": untagged frames are dropped
    veth_vlan_tagged: tuple[int, ...] = ()

    @property
    def has_vlans(self) -> bool:
        """Whether its port on a bridge is to be in VLANs."""
        return self.veth_vlan_id is not None or bool(self.veth_vlan_tagged)


Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """Every key of lxc.container.conf(5), LXC 6 and 7, at the value that liblxc would give it."""

    arch: str = ""
    hostname: str = ""
    ephemeral: bool = False
    init_cmd: str = ""
    execute_cmd: str = ""
    init_cwd: str = ""
    init_uid: int = 0
    init_gid: int = 0
    init_groups: tuple[int, ...] = ()
    no_new_privs: bool = False
    sched_core: bool = False
    proc: Pairs = ()  # file below /proc/PID, value
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: Pairs = ()
    environment: Pairs = ()  # of init and of hooks inside
    environment_runtime: Pairs = ()  # of init
    environment_hooks: Pairs = ()
    keyring_disabled: bool = False  # no new session keyring
    signal_halt: int = 0  # 0: SIGPWR, or SIGRTMIN+3 where init blocks it
    signal_reboot: int = 0
    signal_stop: int = 0
    monitor_unshare: bool = False
    monitor_pdeath: int | None = None  # None: SIGKILL; 0: no signal
    groups: tuple[str, ...] = ()
    start_auto: bool = False
    start_delay: int = 0  # seconds
    start_order: int = 0
    console_path: str = ""
    console_logfile: str = ""
    console_rotate: bool = False
    console_buffer_size: int = 0  # bytes
    console_size: int = 0  # bytes
    tty_max: int = 0
    tty_dir: str = ""
    pty_max: int = 0
    autodev: bool = True
    autodev_tmpfs_size: int = 500_000  # bytes
    rootfs_path: str = ""  # [type:]path
    rootfs_mount: str = ""
    rootfs_options: tuple[str, ...] = ()
    rootfs_managed: bool = True
    mount_fstab: str = ""
    mount_entries: tuple[MountEntry, ...] = ()
    mount_auto: tuple[str, ...] = ()
    cgroup2: Pairs = ()  # file, value, in order; devices.allow and devices.deny too
    cgroup1: Pairs = ()  # LXC 6 only
    cgroup_dir: str = ""
    cgroup_dir_container: str = ""
    cgroup_dir_inner: str = ""
    cgroup_dir_monitor: str = ""
    cgroup_dir_pivot: str = ""
    cgroup_relative: bool = False
    cap_drop: tuple[str, ...] = ()
    cap_keep: tuple[str, ...] | None = None  # None: not said; (): none at all
    apparmor_profile: str = ""
    apparmor_allow_incomplete: bool = False
    apparmor_allow_nesting: bool = False
    apparmor_raw: tuple[str, ...] = ()
    selinux_context: str = ""
    selinux_keyring: str = ""
    seccomp_profile: str = ""  # a path
    seccomp_allow_nesting: bool = False
    seccomp_notify_proxy: str = ""
    seccomp_notify_cookie: str = ""
    idmap: tuple[IdMap, ...] = ()
    namespace_clone: tuple[str, ...] = ()
    namespace_keep: tuple[str, ...] = ()
    namespace_share: Pairs = ()
    time_boot: int = 0  # nanoseconds
    time_monotonic: int = 0  # nanoseconds
    hook_version: int = 0
    hooks: tuple[Hook, ...] = ()
    log_file: str = ""
    log_level: str = ""
    log_syslog: str = ""
    nics: tuple[Nic, ...] = ()  # by index
    set_keys: frozenset[str] = field(default_factory=frozenset)  # every key that stood in the text

    @property
    def init_argv(self) -> tuple[str, ...]:
        """The words of `lxc.init.cmd`, or LXC's /sbin/init."""
        return tuple(shlex.split(self.init_cmd)) or ("/sbin/init",)

    @property
    def rootfs_layers(self) -> tuple[str, ...]:
        """The paths of an `overlay:` rootfs, topmost first and the upper last; else the one path there is."""
        kind, colon, rest = self.rootfs_path.partition(":")
        if not colon:
            return (self.rootfs_path,) if self.rootfs_path else ()
        return tuple(rest.split(":")) if kind in {"overlay", "overlayfs"} else (rest,)

    @property
    def rootfs_kind(self) -> str:
        """`overlay`, `dir` or another of LXC's storage types; "" where there is no rootfs."""
        kind, colon, _ = self.rootfs_path.partition(":")
        if not colon:
            return "dir" if self.rootfs_path else ""
        return "overlay" if kind == "overlayfs" else kind
