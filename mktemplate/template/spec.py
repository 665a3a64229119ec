"""template.toml → TemplateSpec. Every problem is reported at once, with file and line; nothing else is read here.

The format is docs/template-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mktemplate.errors import escape, meant
from mktemplate.template import declared, firststart, schema, thirdparty
from mktemplate.template.declared import DataVolume, NeededDevice
from mktemplate.template.firststart import Step
from mktemplate.template.report import Report, document
from mktemplate.template.thirdparty import Download, Repository
from mktemplate.template.values import TYPES, Option, check
from valuetypes import dataclass, field

PROFILES = ("service", "login", "system")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}(?::[a-z0-9-]{1,32})?")
_SOCKETS = ("", "systemd", "nginx")
_SIGNALS = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "PWR", "KILL", "RTMIN+3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """`[ready]`: one of a port (a number, or the option that holds it), a command, a file; none: at once."""

    port: int | str = 0
    send: str = ""  # what the port is told; a character is a byte
    expect: str = ""  # how its answer begins
    command: str = ""
    file: str = ""
    timeout: int = 60  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSpec:
    """The facts of one template."""

    name: str
    summary: str
    origin: str = "built in"
    trusted: bool = True
    source: str = ""  # where `templates add` brought it from
    grants: tuple[str, ...] = ()  # what `templates add` was told to grant it
    profile: str = "service"
    needs_setuid: bool | str = False  # or the bool option that decides
    init_safe: bool = False  # the service handles SIGCHLD and SIGTERM itself, so it may be PID 1
    command: tuple[str, ...] = ()
    service_user: str = "root"  # who runs the command, a name inside
    stop_signal: str = "TERM"
    sockets: str = ""  # how the service takes listening sockets that it is given
    connect: str = ""
    examples: tuple[str, ...] = ()  # command lines
    user: str = ""  # who logs in; empty = the option `user`, else root
    login_keys: bool = False  # takes ssh public keys
    distros: tuple[str, ...] = ()
    ports: tuple[int | str, ...] = ()
    memory: int = 0
    static: str = ""  # the one static program that it is made of, instead of a base of packages
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preseed: Mapping[str, str] = field(default_factory=dict)  # path → text
    options: tuple[Option, ...] = ()
    ready: Readiness = field(default_factory=Readiness)
    first_start: tuple[Step, ...] = ()
    repositories: tuple[Repository, ...] = ()
    downloads: tuple[Download, ...] = ()
    volumes: tuple[DataVolume, ...] = ()
    devices: tuple[NeededDevice, ...] = ()
    keep: tuple[
        str, ...
    ] = ()  # paths that are the container's identity: an upgrade carries them over

    def option(self, name: str) -> Option | None:
        """Return the option `name`, or None."""
        return next((option for option in self.options if option.name == name), None)

    @property
    def secrets(self) -> tuple[Option, ...]:
        """The options that are secrets."""
        return tuple(option for option in self.options if option.type == "secret")


Extend = Callable[[Mapping[str, object], Report], Mapping[str, object]]


def parse(
    name: str, text: str, path: str, *, origin: str, trusted: bool, extend: Extend | None = None
) -> TemplateSpec:
    """Return the checked facts of the template `name`; raise all its problems at once.

    `extend` lays facts that name another template over that one's.
    """
    data = document(text, path)
    report = Report(path, text)
    if extend is not None:
        data = extend(data, report)
    spec = _spec(name, data, report, origin=origin, trusted=trusted)
    report.check()
    return spec


def _spec(
    name: str, data: Mapping[str, object], report: Report, *, origin: str, trusted: bool
) -> TemplateSpec:
    _unknown_keys(data, report)
    options = _options(data.get("options", {}), report)
    spec = TemplateSpec(
        name=name,
        summary=report.text(data, "summary", "summary"),
        origin=origin,
        trusted=trusted,
        profile=_one_of(data, "profile", PROFILES, "service", report),
        needs_setuid=_setuid(data, options, report),
        init_safe=report.truth(data, "init_safe", "init_safe"),
        command=report.strings(data.get("command", []), "command"),
        service_user=report.text(data, "service_user", "service_user", "root"),
        stop_signal=_one_of(data, "stop_signal", _SIGNALS, "TERM", report),
        sockets=_one_of(data, "sockets", _SOCKETS, "", report),
        connect=report.text(data, "connect", "connect"),
        examples=report.strings(data.get("examples", []), "examples"),
        user=report.text(data, "user", "user"),
        login_keys=report.truth(data, "login_keys", "login_keys"),
        distros=report.strings(data.get("distros", []), "distros"),
        ports=_ports(data.get("ports", []), options, report),
        static=report.text(data, "static", "static"),
        memory=report.whole(data, "memory", "memory", default=0, highest=1 << 50),
        packages=_packages(data.get("packages", {}), report),
        preseed=declared.preseed(data.get("preseed", {}), report),
        options=options,
        ready=_ready(data.get("ready", {}), options, report),
        first_start=firststart.steps(data.get("first_start", []), options, report),
        repositories=thirdparty.repositories(data.get("repository", []), report, trusted=trusted),
        downloads=thirdparty.downloads(data.get("download", []), report),
        volumes=declared.volumes(data.get("volume", []), report),
        devices=declared.devices(data.get("device", []), report),
        keep=declared.kept(data.get("keep", []), report),
    )
    _whole(spec, report)
    return spec


def _whole(spec: TemplateSpec, report: Report) -> None:
    """Add what is wrong only when the facts are seen together."""
    if not spec.summary:
        report.add("summary", "is required")
    if not spec.distros:
        report.add(
            "distros", 'is required: distributions or families, such as ["debian"] or ["deb"]'
        )
    if spec.command and not spec.command[0].startswith(("/", "{{")):
        report.add("command", "must begin with an absolute path")
    if declared.ACCOUNT.fullmatch(spec.service_user) is None:
        report.add("service_user", "is no user's name")
    if spec.static and not (declared.is_place(spec.static) and spec.static.startswith("/usr/")):
        report.add("static", "must be the path of a program below /usr")
    if spec.init_safe and not spec.command:
        report.add("init_safe", "needs a command")
    if spec.sockets and not spec.command:
        report.add("sockets", "needs a command")


def _unknown_keys(data: Mapping[str, object], report: Report) -> None:
    for key in data:
        if key not in schema.TOP.names:
            report.add(key, "unknown key", meant(key, schema.TOP.names))


def _one_of(
    data: Mapping[str, object], key: str, known: tuple[str, ...], default: str, report: Report
) -> str:
    value = data.get(key, default)
    if value not in known:
        report.add(key, f"must be one of {', '.join(filter(None, known))}")
        return default
    return str(value)


def _setuid(data: Mapping[str, object], options: tuple[Option, ...], report: Report) -> bool | str:
    value = data.get("needs_setuid", False)
    if isinstance(value, str):
        if not any(option.name == value and option.type == "bool" for option in options):
            report.add("needs_setuid", f'"{escape(value)}" is no bool option of this template')
        return value
    return report.truth(data, "needs_setuid", "needs_setuid")


def _port_option(value: object, options: tuple[Option, ...]) -> bool:
    if isinstance(value, str):
        return any(option.name == value and option.type == "port" for option in options)
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def _ports(value: object, options: tuple[Option, ...], report: Report) -> tuple[int | str, ...]:
    if not isinstance(value, list) or not all(_port_option(item, options) for item in value):
        report.add("ports", "must be a list of port numbers or names of port options")
        return ()
    return tuple(value)


def _packages(value: object, report: Report) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        report.add("packages", "must be a table: family, distro or distro/release → list of names")
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for key, names in value.items():
        found[key] = report.strings(names, f"packages.{key}")
        for name in found[key]:
            if _PACKAGE.fullmatch(name) is None:
                report.add(f"packages.{key}", f'"{escape(name)}" is no package name')
    return found


def _options(value: object, report: Report) -> tuple[Option, ...]:
    if not isinstance(value, dict):
        report.add("options", "must be a table of tables")
        return ()
    return tuple(_option(name, table, report) for name, table in value.items())


def _option(name: str, table: object, report: Report) -> Option:
    where = f"options.{name}"
    if not isinstance(table, dict) or _NAME.fullmatch(name) is None:
        report.add(where, "must be a table, named a-z 0-9 _ from a letter on")
        return Option(name=name, type="str")
    for key in table:
        if key not in schema.OPTION.names:
            report.add(f"{where}.{key}", "unknown key")
    kind = table.get("type")
    if kind not in TYPES:
        report.add(f"{where}.type", f"must be one of {', '.join(TYPES)}")
        return Option(name=name, type="str")
    option = Option(
        name=name,
        type=str(kind),
        default=table.get("default"),
        help=report.text(table, "help", f"{where}.help"),
        choices=report.strings(table.get("choices", []), f"{where}.choices"),
        pattern=report.text(table, "pattern", f"{where}.pattern"),
        packages=report.strings(table.get("packages", []), f"{where}.packages"),
        required=report.truth(table, "required", f"{where}.required"),
        at=report.text(table, "at", f"{where}.at"),
        owner=report.text(table, "owner", f"{where}.owner"),
        made=kind == "secret" and report.truth({"made": True, **table}, "made", f"{where}.made"),
    )
    for detail in check(option):
        report.add(where, detail)
    if option.at and not declared.is_place(option.at):
        report.add(f"{where}.at", "must be an absolute path without .., outside /run and /tmp")
    if option.owner and declared.ACCOUNT.fullmatch(option.owner) is None:
        report.add(f"{where}.owner", "is no account's name")
    return option


def _ready(value: object, options: tuple[Option, ...], report: Report) -> Readiness:
    if not isinstance(value, dict):
        report.add("ready", "must be a table with port, command or file, and timeout")
        return Readiness()
    for key in value:
        if key not in schema.READY.names:
            report.add(f"ready.{key}", "unknown key")
    port = value.get("port", 0)
    if port and not _port_option(port, options):
        report.add("ready.port", "must be a port number or the name of a port option")
        port = 0
    if sum(key in value for key in ("port", "command", "file")) > 1:
        report.add("ready", "port, command and file exclude each other")
    for key in ("send", "expect"):
        if key in value and not (value.get("port") and value.get("expect")):
            report.add(f"ready.{key}", "send needs expect, and expect a port")
    return Readiness(
        port=port,
        send=report.octets(value, "send", "ready.send"),
        expect=report.octets(value, "expect", "ready.expect"),
        command=report.text(value, "command", "ready.command"),
        file=report.text(value, "file", "ready.file"),
        timeout=report.whole(value, "timeout", "ready.timeout", default=60, highest=3600),
    )
