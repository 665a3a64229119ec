"""What a template is told: the values that a request, a template's options and a distribution's row come to.

Nothing here is of this host, unless the caller put it in: the same facts render to the same bytes everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mktemplate.cli.parsing import Build
from mktemplate.errors import CommandError, escape
from mktemplate.template import grants
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.values import Value, problem
from runtime.bundle import Port
from valuetypes import dataclass, field

_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_WEIGHT = 100_000  # the period of lxc.cgroup2.cpu.max, microseconds
BRIDGE, INTERNAL_BRIDGE = "mkt0", "mkti0"  # the second one leads nowhere
INIT = "/usr/lib/mktemplate"
REAPER = f"{INIT}/reaper"
REAPERS = {
    "amd64": "x86_64",
    "arm64": "aarch64",
}  # where PID 1 for services that do not reap exists
_WORDS = {"bridge": frozenset(("internal", "ipv6"))}  # what may follow a kind of network
SHARED_INIT = "/etc/mktemplate"  # where /usr is the host's


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`--network`: none, host, bridge, macvlan; router is what `--flat` has instead of a bridge."""

    kind: str = "bridge"
    link: str = BRIDGE
    ipv6: bool = False  # on a bridge of ours: it has an address of IPv6, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The distribution that is meant, by its own names."""

    distro: str
    release: str
    arch: str
    family: str = "deb"


def is_meant(distros: tuple[str, ...], target: Target) -> bool:
    """Whether what is for `distros` (families, distributions, releases; empty = all) is for `target`."""
    names = {target.family, target.distro, f"{target.distro}/{target.release}"}
    return not distros or not names.isdisjoint(distros)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the three texts depend on."""

    name: str
    target: Target
    options: Mapping[str, Value] = field(default_factory=dict)
    keys: tuple[str, ...] = ()  # lines of authorized_keys
    env: tuple[str, ...] = ()  # K=V
    network: Network = field(default_factory=Network)
    memory: int = 0
    cpus: float = 0.0
    pids: int = 0
    shared_host: bool = False
    merged_usr: bool = True
    userns: bool = True
    single_id: bool = False  # every account is root
    granted: frozenset[str] = (
        frozenset()
    )  # KIND:VALUE, what the template may have that is not trusted
    program: str = ""  # the SHA-256 of this host's own, in place of packages
    idle: bool = False  # PID 1 waits and reaps, the service is not started (`run`)

    @property
    def cpu_max(self) -> int:
        """The quota of lxc.cgroup2.cpu.max, 0 for none."""
        return round(self.cpus * _WEIGHT)


def network(text: str, *, flat: bool, ports: Sequence[Port] = ()) -> Network:
    """Return what `--network` means; `--flat` names no bridge, because lxc-start makes none (A6).

    A container that publishes one of `ports` on an IPv6 address has one itself.
    """
    kind, colon, link = text.partition(":")
    kind, *words = kind.split(",")
    if (kind == "macvlan") != bool(colon) or not _WORDS.get(kind, frozenset()).issuperset(words):
        kind = "?"
    if kind == "macvlan" and _INTERFACE.fullmatch(link) is None:
        raise CommandError("E_PARAM", "--network", f'"{escape(link)}" is no interface name')
    if kind in ("", "bridge") and flat:
        return Network(kind="router", link="")
    if kind in ("", "bridge"):
        six = "ipv6" in words or any(":" in port.address for port in ports)
        return Network(link=INTERNAL_BRIDGE if "internal" in words else BRIDGE, ipv6=six)
    if kind in ("none", "host", "macvlan"):
        return Network(kind=kind, link=link)
    raise CommandError(
        "E_PARAM",
        "--network",
        f'"{escape(text)}" is none of none, host, bridge[,internal][,ipv6], macvlan:INTERFACE',
    )


def packages(spec: TemplateSpec, facts: Facts, more: tuple[str, ...]) -> tuple[str, ...]:
    """Return the packages that the service needs: the most special list there is, what is for all, the options'."""
    if facts.shared_host:
        return ()
    target = facts.target
    special: tuple[str, ...] = ()
    for key in (f"{target.distro}/{target.release}", target.distro, target.family):
        if key in spec.packages:
            special = spec.packages[key]
            break
    optional = (
        name
        for option in spec.options
        if facts.options.get(option.name) is True
        for name in option.packages
    )
    return tuple(dict.fromkeys((*spec.packages.get("all", ()), *special, *optional, *more)))


def setuid(spec: TemplateSpec, facts: Facts) -> bool:
    """Return whether programs inside may gain rights by setuid: the template's word, or an option's."""
    if isinstance(spec.needs_setuid, str):
        return facts.options.get(spec.needs_setuid) is True
    return spec.needs_setuid


def port(value: int | str, facts: Facts) -> int:
    """Return a port of template.toml: the number, or that of the option it names."""
    found = facts.options[value] if isinstance(value, str) else value
    return found if isinstance(found, int) else 0


def login_user(spec: TemplateSpec, facts: Facts) -> str:
    """Return who logs in with ssh keys: the template's `user`, else what its option `user` says, else root."""
    return spec.user or str(facts.options.get("user", "root"))


def values(spec: TemplateSpec, facts: Facts) -> dict[str, object]:
    """Return what the files of the template may name."""
    user = login_user(spec, facts)
    return {
        "name": facts.name,
        "template": {
            "name": spec.name,
            "profile": spec.profile,
            "stop_signal": spec.stop_signal,
        },
        "distro": {
            "name": facts.target.distro,
            "release": facts.target.release,
            "arch": facts.target.arch,
            "family": facts.target.family,
        },
        "options": dict(facts.options),
        "keys": list(facts.keys),
        "env": list(facts.env),
        "network": {"kind": facts.network.kind, "link": facts.network.link},
        "limits": {
            "memory": facts.memory or spec.memory,
            "pids": facts.pids,
            "cpu": facts.cpu_max,
        },
        "setuid": setuid(spec, facts),
        "shared_host": facts.shared_host,
        "static": spec.static,
        "merged_usr": facts.merged_usr,
        "userns": facts.userns,
        "single_id": facts.single_id,
        "reaper": facts.target.arch in REAPERS,
        "idle": facts.idle,
        "init_folder": SHARED_INIT if facts.shared_host and not spec.static else INIT,
        "volumes": [
            {"name": each.name, "path": each.path, "owner": each.owner, "mode": f"{each.mode:04o}"}
            for each in spec.volumes
        ],
        "login_keys": spec.login_keys,
        "login_user": user,
        "login_home": "/root" if user == "root" else f"/home/{user}",
    }


def gather(
    spec: TemplateSpec, build: Build, name: str, target: Target, options: Mapping[str, Value]
) -> Facts:
    """Return the facts that a request comes to, without keys and without anything of the host."""
    if target.distro not in spec.distros and target.family not in spec.distros:
        raise CommandError(
            "E_USAGE",
            spec.name,
            f"has no part for {target.distro}",
            hints=(f"it has: {', '.join(spec.distros)}",),
        )
    _check_system(spec, build)
    _check_single(spec, build)
    grants.check(spec, build.grants, options)
    for key, text in build.env:
        wrong = problem(text)
        if wrong:
            raise CommandError("E_ENV", escape(key), wrong)
    return Facts(
        name=name,
        target=target,
        options=options,
        env=tuple(f"{key}={value}" for key, value in build.env),
        network=network(build.network, flat=build.flat, ports=build.publish),
        memory=build.memory,
        cpus=build.cpus,
        pids=build.pids,
        shared_host=build.share_host,
        userns=not build.no_userns,
        single_id=build.single_id,
        granted=grants.given(spec, build.grants),
    )


def _check_single(spec: TemplateSpec, build: Build) -> None:
    """Raise E_USAGE, E_SUBUID_MISSING for what takes more users than one."""
    if build.single_id and build.no_userns:
        raise CommandError("E_USAGE", "--single-id", "is a user namespace; leave --no-userns out")
    without = spec.static or build.share_host or spec.origin == "image"
    if build.single_id and not without:
        raise CommandError(
            "E_SUBUID_MISSING",
            spec.name,
            "its packages have files of other users, and with --single-id there is none",
            hints=(
                "--share-host takes this host's programs",
                "mktemplate doctor tells how to get ids",
            ),
        )


def _check_system(spec: TemplateSpec, build: Build) -> None:
    """Raise E_USAGE for what an init that makes control groups and namespaces of its own cannot do without."""
    if spec.profile != "system":
        return
    for given, option, detail in (
        (build.no_userns, "--no-userns", "profile system needs a user namespace"),
        (build.share_host, "--share-host", "a system has packages of its own"),
        (build.single_id, "--single-id", "a system has users of its own"),
    ):
        if given:
            raise CommandError("E_USAGE", option, f"{spec.name}: {detail}")
