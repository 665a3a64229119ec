"""`adopt`: an LXC container that is there already becomes one of ours, without a byte of it being changed."""

from __future__ import annotations

import os
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.life.views import container_object
from mktemplate.places import containers_path
from runtime import config as configs
from runtime.errors import ConfigError
from runtime.refuse import notes, refuse


def adopt(request: Request, console: Console) -> int:
    """Name DIR below PATH; `destroy` takes only the name away again."""
    path, given = containers_path(request), Path(os.path.abspath(request.words[0]))
    name = container_name(given.name)
    if not (given / "config").is_file():
        raise CommandError(
            "E_USAGE", escape(str(given)), "is no LXC container: it has no file called config"
        )
    settings = configs.load(given / "config")
    if _runs_under_lxc(given):
        raise CommandError(
            "E_RUNNING",
            name,
            "runs under LXC",
            hints=(f"lxc-stop -P {given.parent} -n {name}",),
        )
    place = path / name
    if not os.path.lexists(place):
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        place.symlink_to(given, target_is_directory=True)
    elif not place.samefile(given):
        raise CommandError(
            "E_EXISTS", name, "already exists", hints=(f"mktemplate rename {name} NEW",)
        )
    try:
        refuse(settings)
    except ConfigError as error:
        console.warning(f"{name}: start will refuse {error.subject}: {error.detail}")
    for note in notes(settings):
        console.note(f"{name}: {note}")
    if console.json:
        console.document(container_object(path, name))
    console.step(f"{name}: adopted; mktemplate start {name}")
    return 0


def _runs_under_lxc(directory: Path) -> bool:
    """Whether liblxc's monitor listens for the container (lxc's commands.c: an abstract socket)."""
    wanted = os.fsencode(f"@{directory}/command")
    with open("/proc/net/unix", "rb") as file:
        return any(line.rstrip(b"\n").endswith(b" " + wanted) for line in file)
