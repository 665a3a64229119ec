"""A compose file → the services that it asks for, in the order in which they start. Its form is docs/compose.md.

A service's keys are the options of `up`: they go through the command line's own grammar and mean the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import parse
from mktemplate.errors import CommandError, escape, meant
from mktemplate.keywords import UpOptions, argument
from mktemplate.template.report import Report, document
from valuetypes import dataclass, field

_OWN = ("template", "depends_on")
_OPTIONS = tuple(sorted(set(UpOptions.__annotations__) - {"path", "template_path"}))
_LARGEST = 1 << 20  # bytes
# What a compose.yaml calls it, and what that is here.
_DOCKERS = {
    "image": "template; an image is brought by mktemplate pull",
    "build": "template; an application of your own is python-app, node-app or static-app",
    "ports": "publish",
    "environment": "env",
    "volumes": "volume",
    "devices": "device",
    "secrets": "secret",
    "networks": "network",
    "mem_limit": "memory",
    "container_name": "the name of the table",
    "command": "what the template's options say: mktemplate show TEMPLATE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One container that a file asks for."""

    name: str
    template: str
    depends_on: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        """The command line that makes it."""
        words = ["up", self.template, self.name]
        for key, value in self.options.items():
            words += argument(f"--{key.replace('_', '-')}", value)
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a file asks for."""

    file: Path
    services: tuple[Service, ...]  # each one behind those that it depends on


def read(file: str) -> Fleet:
    """Return what the compose file says; raise all its problems at once."""
    shown = escape(file)
    try:
        with open(file, "rb") as opened:
            text = opened.read(_LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        detail = getattr(error, "strerror", "") or "is not UTF-8"
        raise CommandError("E_PARAM", shown, detail) from None
    if file.endswith((".yaml", ".yml")):
        raise CommandError(
            "E_PARAM", shown, "is YAML; a compose file of ours is TOML",
            hints=("docs/compose.md shows the same in TOML",),
        )  # fmt: skip
    report = Report(shown, text, code="E_PARAM")
    services = _services(document(text, shown, code="E_PARAM"), report)
    report.check()
    ordered = _ordered(services, report)
    report.check()
    return Fleet(file=Path(os.path.abspath(file)), services=ordered)


def _services(data: Mapping[str, object], report: Report) -> tuple[Service, ...]:
    for key in data:
        if key not in ("services", "defaults"):
            report.add(key, "unknown key: there is services and defaults")
    defaults, tables = data.get("defaults", {}), data.get("services", {})
    if not isinstance(defaults, dict) or not isinstance(tables, dict) or not tables:
        report.add("services", "must be tables, each written as [services.NAME]")
        return ()
    _known(defaults, "defaults", report)
    return tuple(_service(name, table, defaults, report) for name, table in tables.items())


def _service(name: str, table: object, defaults: Mapping[str, object], report: Report) -> Service:
    where = f"services.{name}"
    if not isinstance(table, dict):
        report.add(where, "must be a table")
        return Service(name=name, template="")
    _known(table, where, report)
    options = {key: value for key, value in {**defaults, **table}.items() if key in _OPTIONS}
    service = Service(
        name=name,
        template=report.text(table, "template", f"{where}.template", name),
        depends_on=report.strings(table.get("depends_on", []), f"{where}.depends_on"),
        options=options,
    )
    try:
        container_name(name)
    except CommandError as error:
        report.add(where, error.detail)
    for key, value in options.items():
        one = Service(name="x", template="x", options={key: value})
        try:
            parse(one.argv)
        except CommandError as error:
            report.add(f"{where}.{key}", error.detail, *error.hints[:1])
    return service


def _known(table: Mapping[str, object], where: str, report: Report) -> None:
    known = (*(() if where == "defaults" else _OWN), *_OPTIONS)
    for key in table:
        if key not in known:
            ours = _DOCKERS.get(key)
            hint = f"here it is {ours}" if ours else meant(key, known)
            report.add(f"{where}.{key}", "unknown key", hint)


def _ordered(services: tuple[Service, ...], report: Report) -> tuple[Service, ...]:
    """Return the services, each behind those that it depends on, else as in the file."""
    by_name = {service.name: service for service in services}
    for service in services:
        for other in service.depends_on:
            if other not in by_name:
                where = f"services.{service.name}.depends_on"
                detail = f'"{escape(other)}" is no service of this file'
                report.add(where, detail, meant(other, tuple(by_name)))
    if report.failures:
        return ()
    graph = {service.name: service.depends_on for service in services}
    try:
        return tuple(by_name[name] for name in TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        report.add(f"services.{error.args[1][0]}.depends_on", f"goes round in a circle: {circle}")
        return ()
