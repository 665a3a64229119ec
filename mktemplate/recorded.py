"""Which options of a request a container is recorded with, as text: what `up` compares and `info` shows."""

from __future__ import annotations

import os

from mktemplate.arguments import Device, Volume
from mktemplate.cli import Request
from runtime.bundle import Port

_SHAPING = (
    "distro release arch packages recommends slim sets share_host flat lock mirror repos keyring as_of allow_stale "
    "grants ssh_keys publish network volumes devices env memory cpus pids restart no_userns"
)


def given_options(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the options of a request that shape a container, as text; never a secret."""
    return tuple(
        (name, _text(_absolute(name, getattr(request.build, name))))
        for name in _SHAPING.split()
        if name in request.given
    )


def option_name(field: str) -> str:
    """Return the option of the command line that fills `field`: `sets` is --set."""
    from mktemplate.options import BUILD

    return next((option.names[0] for option in BUILD if option.field == field), f"--{field}")


def _absolute(name: str, value: object) -> object:
    """Return paths of files as they are wherever a later command stands."""
    if name in ("ssh_keys", "repos") and isinstance(value, tuple):
        return tuple(os.path.abspath(path) for path in value)
    return os.path.abspath(str(value)) if name in ("lock", "keyring") else value


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text_of_item, value))
    return str(value)


def _text_of_item(item: object) -> str:
    if isinstance(item, tuple):
        return "=".join(map(str, item))
    if isinstance(item, Port):
        return f"{item.address}:{item.host}:{item.container}/{item.proto}"
    if isinstance(item, Volume):
        owner = f":owner={item.owner}" if item.owner else ""
        return f"{item.source}:{item.target}{':ro' if item.read_only else ''}{owner}"
    if isinstance(item, Device):
        return f"{item.path}{':group=' if item.group else ''}{item.group}"
    return str(item)
