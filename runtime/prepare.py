"""What a start takes from the host before anything of it runs: control groups, files for /etc, the filter, a Program.

Whatever is taken is given back: by the monitor when the container ends, by the caller's stack when the start fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from runtime import (
    apparmor,
    capabilities,
    cgroup,
    cgroupfs,
    consolepty,
    ending,
    etcfiles,
    hierarchy,
    hooks,
    idmap,
    launch,
    limits,
    monitor,
    seccomp,
    sharing,
    state,
)
from runtime.bundle import Bundle, Port
from runtime.config import ContainerConfig
from runtime.errors import ConfigError, HostError
from runtime.fstab import MountEntry
from runtime.halt import SIGPWR
from runtime.program import Program
from runtime.sockets import NO_SOCKETS, Sockets
from runtime.state import RunState
from valuetypes import dataclass, replace

_STOPS = (("LXC_TARGET", "stop"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A container's name, and where its things are."""

    path: Path
    name: str
    etc: Path  # its hosts, hostname and resolv.conf while it runs

    @property
    def config(self) -> Path:
        """The file of its configuration."""
        return self.path / self.name / "config"


def program(
    place: Place,
    settings: ContainerConfig,
    group: cgroup.Cgroup | None = None,
    files: tuple[MountEntry, ...] = (),
    given: Sockets = NO_SOCKETS,
    join: tuple[Path, ...] = (),
) -> Program:
    """Return the calls of a start of `settings` on this host, by this user, into `group`, or what `join` joins."""
    host = launch.Host(
        name=place.name,
        join=join or (group.join_files() if group else ()),
        hooks=_hooks(place, settings),
        hierarchies=hierarchy.holding(group.groups) if group else (),
        bpf=compiled_filter(settings.seccomp_profile),
        files=files,
        last_capability=capabilities.last(),
        rootless=os.geteuid() != 0,
        sockets=given,
    )
    return launch.decide(settings, host)


def order(
    place: Place,
    settings: ContainerConfig,
    found: Bundle,
    undo: ExitStack,
    listening: int = 0,
    join: tuple[Path, ...] = (),
) -> monitor.Order:
    """Take from the host what the start needs; `undo` gives it back.

    With `listening` sockets of its starter's no port is published: what comes to them comes to the service.
    """
    given = Sockets(count=listening, told=found.record.sockets or "systemd")
    _check_rights(place.name)
    _check_ephemeral(settings, found)
    told = _hooks(place, settings)
    hooks.vouched(settings, place.config)
    apparmor.load(settings)
    told.run("pre-start")
    undo.callback(told.tell, "post-stop", (), _STOPS)
    _make_overlay_folders(settings)
    group = make_group(place, settings, found)
    undo.callback(group.remove)
    files = _make_files(place, settings, found)
    undo.callback(etcfiles.remove, place.etc)
    calls = program(place, settings, group, files, given, join)
    run = RunState(
        name=place.name,
        path=str(place.path),
        phase="STARTING",
        notes=(*group.notes, *calls.notes),
        cgroup=group.as_json() if group.groups else {},
        monitor=state.Identity.of(os.getpid()),
        sockets=listening,
    )
    state.save(run)
    undo.callback(state.save, replace(run, phase="STOPPED", cgroup={}))
    wire = wired(settings, place, () if listening else found.record.ports)

    def release() -> None:
        group.kill()
        group.remove()
        etcfiles.remove(place.etc)
        wire.release()
        told.tell("post-stop", (), _STOPS)

    return monitor.Order(
        program=calls,
        run=run,
        log=Path(settings.console_logfile) if settings.console_logfile else found.log,
        stop_signal=settings.signal_halt or SIGPWR,
        root_ids=root_ids(settings),
        attach=wire.reach,
        release=release,
        after=lambda supervised: ending.leave(
            place.path, place.name, deed(settings, found), supervised=supervised
        ),
        console=consolepty.has(settings),
        hooks=told,
        sockets=given,
    )


def root_ids(settings: ContainerConfig) -> tuple[int, int]:
    """Return the ids of the container's root, as the host numbers it."""
    ids = idmap.from_config(settings.idmap)
    return (0, 0) if ids is None else ids.root()


def _hooks(place: Place, settings: ContainerConfig) -> hooks.Hooks:
    return hooks.of(settings, place.name, place.config)


def deed(settings: ContainerConfig, found: Bundle) -> str:
    """Return what is left to others when the container has ended, in the words of `ending`."""
    if settings.ephemeral:
        return ending.DESTROY
    return "" if found.record.restart == "no" else ending.RESTART


def _check_ephemeral(settings: ContainerConfig, found: Bundle) -> None:
    """Raise ConfigError where a container is to be destroyed and to be started again when it ends."""
    if settings.ephemeral and found.record.restart != "no":
        raise ConfigError(
            "E_CONFIG_VALUE",
            "lxc.ephemeral",
            f"its restart policy is {found.record.restart}: nothing would be left to start",
        )


def _check_rights(name: str) -> None:
    """Raise HostError where root itself may make no namespace, as in most containers of others."""
    if os.geteuid() == 0 and not capabilities.has("sys_admin"):
        raise HostError(
            "E_USERNS_DISABLED",
            name,
            "this root may make no namespaces: it has no CAP_SYS_ADMIN",
            hints=("such a place can create and export; start it elsewhere",),
        )


def _make_files(place: Place, settings: ContainerConfig, found: Bundle) -> tuple[MountEntry, ...]:
    """Write what a container of ours has in /etc while it runs."""
    if not found.record.template or not settings.hostname:
        return ()
    return etcfiles.write(place.etc, settings.hostname, ())


def make_group(place: Place, settings: ContainerConfig, found: Bundle) -> cgroup.Cgroup:
    """Make the control groups, which may be the container's to divide."""
    wanted = limits.limits(settings.cgroup2, settings.cgroup1, defaults=found.record.defaults)
    key = state.key(place.path, place.name)
    group = _limited_group(key, wanted, spot(settings, key))
    if cgroupfs.delegates(settings):
        try:
            group.delegate(*root_ids(settings))
        except BaseException:
            group.remove()
            raise
    return group


def spot(settings: ContainerConfig, key: str) -> hierarchy.Spot:
    """Return where the control groups are, as lxc.cgroup.dir and those below it say."""
    above, own = settings.cgroup_dir, settings.cgroup_dir_container
    usual = hierarchy.spot(key).folder
    folder = own or (f"{above}/{os.path.basename(usual)}" if above else usual)
    return hierarchy.Spot(folder=folder, inner=settings.cgroup_dir_inner)


def _limited_group(key: str, wanted: limits.Limits, where: hierarchy.Spot) -> cgroup.Cgroup:
    """Make the control groups: a normal user's in a scope of its manager, else none and a note of it."""
    if os.geteuid() == 0:
        return cgroup.Cgroup.make(key, wanted, where=where)
    from runtime import usergroup

    # A user's container can make no device and opens none that the user could not: the filter is root's affair.
    kept = tuple(limit for limit in wanted.v2 if not limit.file.startswith("devices."))
    why = usergroup.lacking()
    for limit in kept if why else ():
        if limit.asked:
            raise HostError("E_CGROUP", limit.file, why, hints=usergroup.hints())
    if why:
        return cgroup.Cgroup(key=key, groups=(), notes=(f"default limits are not applied: {why}",))
    made = cgroup.Cgroup.make(key, limits.Limits(v2=kept), (usergroup.scope(key),), where)
    return replace(made, notes=(*made.notes, *usergroup.notes()))


def _make_overlay_folders(settings: ContainerConfig) -> None:
    """Make the upper and the work folder where they are missing, as LXC does."""
    if settings.rootfs_kind == "overlay":
        upper = Path(settings.rootfs_layers[-1])
        for folder, mode in ((upper, 0o755), (upper.with_name("work"), 0o700)):
            with suppress(FileExistsError):
                os.mkdir(folder, mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How a container is attached to its network, and taken off it."""

    etc: Path
    hostname: str
    attach: Callable[[int, int], monitor.Reached] = lambda *_: monitor.Reached()
    release: Callable[[], None] = lambda: None
    join: Callable[[Path], None] = lambda _: (
        None
    )  # with its hosts file: names of the network's others

    def reach(self, namespace: int, init: int) -> monitor.Reached:
        """Attach the network of `init`, whose namespace is open as `namespace`; say so in the files of its /etc."""
        reached = self.attach(namespace, init)
        if self.etc.is_dir():
            etcfiles.write(self.etc, self.hostname, reached.ips, reached.nameserver)
            self.join(self.etc / "hosts")
        return reached


def wired(settings: ContainerConfig, place: Place, ports: tuple[Port, ...]) -> Wire:
    """Return the way to the network, loaded only where there is one; HostError where a user could have none."""
    bare = Wire(etc=place.etc, hostname=settings.hostname)
    if os.geteuid() != 0:
        return _user_wire(bare, settings, place, ports)
    from runtime import network

    if network.shares_host(settings) or "net" in sharing.names(settings):
        return bare
    key = state.key(place.path, place.name)

    def attach(namespace: int, _: int) -> monitor.Reached:
        attached = network.connect(settings, key, namespace, ports)
        return monitor.Reached(ips=attached.ips, notes=attached.notes)

    def join(hosts: Path) -> None:
        from runtime import names

        names.join(key, hosts, settings.hostname)

    return replace(bare, attach=attach, release=lambda: network.release(key), join=join)


def _user_wire(
    bare: Wire, settings: ContainerConfig, place: Place, ports: tuple[Port, ...]
) -> Wire:
    """Return what pasta or slirp4netns does for a normal user; HostError where it could not, before anything runs."""
    if not ports and all(nic.kind in {"empty", "none"} for nic in settings.nics):
        return bare
    from runtime import usernet

    if not usernet.is_wanted(settings, ports):
        return bare
    usernet.check()
    record = usernet.record_of(place.path, place.name)
    return replace(
        bare,
        attach=lambda _, init: usernet.connect(record, init, ports),
        release=lambda: usernet.release(record),
    )


def release_network(path: Path, name: str) -> None:
    """Take back what a run that was killed had of the network. Idempotent."""
    if os.geteuid() == 0:
        from runtime import network

        network.release(state.key(path, name))
    else:
        from runtime import usernet

        record = usernet.record_of(path, name)
        if usernet.has_left(record):
            usernet.release(record)


def remove_group(path: Path, name: str, settings: ContainerConfig | None) -> None:
    """Remove the control groups of a container that does not run; a user's go with the scope of its manager."""
    if os.geteuid() == 0:
        key = state.key(path, name)
        where = spot(settings, key) if settings else hierarchy.spot(key)
        if os.path.basename(where.folder) != key:
            return  # one that others may name, too: the next start of any replaces it where it is empty
        left = cgroup.Cgroup.left(key, where)
        left.kill()
        left.remove()


def forget_network(path: Path, name: str) -> None:
    """Give up the address of a container that is destroyed."""
    if os.geteuid() == 0:
        from runtime import network

        network.forget(state.key(path, name))
    else:
        release_network(path, name)


def compiled_filter(path: str) -> bytes:
    """Return the compiled seccomp profile in the file `path`; nothing where there is none."""
    if not path:
        return b""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        raise ConfigError("E_CONFIG_VALUE", "lxc.seccomp.profile", f"{path}: {error}") from None
    return seccomp.compile_profile(text, path)
