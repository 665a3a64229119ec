"""Which options of a request a container is recorded with, as text: `up` compares, `info` shows, `upgrade` asks again.

Each value stands by itself, spelled as the command line takes it, paths absolute. Never a secret.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from mktemplate.cli.arguments import Device, Volume, is_package_file
from mktemplate.cli.options import BUILD, FROM, GLOBAL
from mktemplate.cli.parsing import Build, Request
from runtime.bundle import Port, Record
from valuetypes import replace

_SHAPING = (
    "distro release arch packages recommends slim sets share_host flat lock mirror repos keyring as_of allow_stale "
    "grants ssh_keys publish network volumes devices env memory cpus pids restart no_userns single_id "
    "allow_degraded"
)
_FILES = frozenset(("ssh_keys", "repos", "lock", "keyring"))
_OF_ITS_DAY = frozenset(("as_of", "lock", "allow_stale"))  # they chose the packages of that day

Options = tuple[tuple[str, str], ...]


def given_options(request: Request, mounts: Collection[str] = ()) -> Options:
    """Return the options of a request that shape a container, one pair for each value; never a secret.

    `mounts` are the options of its template that name paths of the host.
    """
    found = [
        (name, _absolute(name, _text(item), mounts))
        for name in _SHAPING.split()
        if name in request.given
        for item in _items(getattr(request.build, name))
    ]
    if request.compose:
        found.append(("compose", request.compose))
    if request.template_path:
        found.append(("template_path", os.path.abspath(request.template_path)))
    return tuple(found)


def shown(options: Options) -> dict[str, str]:
    """Return recorded options as people read them: the values of one option side by side."""
    return {name: ", ".join(values) for name, values in values_of(options).items()}


def values_of(options: Options) -> dict[str, list[str]]:
    """Return the recorded values of each option."""
    found: dict[str, list[str]] = {}
    for name, text in options:
        found.setdefault(name, []).append(text)
    return found


def template_path(record: Record) -> str:
    """Return where the template was looked for first, "" for the usual places."""
    return shown(record.options).get("template_path", "")


def build(record: Record, today: Request) -> Build:
    """Return what a container was asked to be, asked for today: the packages of its day are left behind.

    `today` may say otherwise where packages come from (--mirror, --keyring, --offline …).
    """
    by_field = {option.field: option for option in BUILD}
    found: dict[str, object] = {}
    past = "as_of" in shown(record.options)  # then its mirror is a pattern for days gone by
    for name, text in record.options:
        if name not in by_field or name in _OF_ITS_DAY or (name == "mirror" and past):
            continue
        option = by_field[name]
        value = option.convert(text) if option.metavar else True
        if option.many:
            known = found.get(name, ())
            items = value if isinstance(value, tuple) and name == "packages" else (value,)
            found[name] = (*known, *items) if isinstance(known, tuple) else items
        else:
            found[name] = value
    fresh = {
        option.field: getattr(today.build, option.field)
        for option in FROM
        if option.field in today.given
    }
    made = Build(**found | fresh)  # type: ignore[arg-type]  # each option's convert gives its field's type
    return replace(made, distro=record.distro, release=record.release, arch=record.arch)


def option_name(field: str) -> str:
    """Return the option of the command line that fills `field`: `sets` is --set."""
    return next(
        (option.names[0] for option in (*BUILD, *GLOBAL) if option.field == field), f"--{field}"
    )


def _items(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def is_same(had: str, wanted: str) -> bool:
    """Whether a value of a request is the one that was recorded; a --set may name a path from where its caller is."""
    key, _, path = wanted.partition("=")
    return had in (wanted, f"{key}={os.path.abspath(path)}")


def _absolute(name: str, text: str, mounts: Collection[str]) -> str:
    """Return paths of files as they are wherever a later command stands."""
    key, _, path = text.partition("=")
    if name == "sets" and key in mounts and path:
        return f"{key}={os.path.abspath(os.path.expanduser(path))}"
    if name in _FILES or (name == "packages" and is_package_file(text)):
        return os.path.abspath(text)
    return text


def _text(item: object) -> str:
    if isinstance(item, tuple):
        return "=".join(map(str, item))
    if isinstance(item, Port):
        address = f"[{item.address}]" if ":" in item.address else item.address
        return f"{address}:{item.host}:{item.container}/{item.proto}"
    if isinstance(item, Volume):
        owner = f":owner={item.owner}" if item.owner else ""
        source = os.path.abspath(item.source)
        return f"{source}:{item.target}{':ro' if item.read_only else ''}{owner}"
    if isinstance(item, Device):
        return f"{item.path}{':group=' if item.group else ''}{item.group}"
    return str(item)
