"""`copy`, `rename`, `snapshot`: more of a container, or the same under another name."""

from __future__ import annotations

from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.life.snapshots import Snapshot
from mktemplate.life.views import container_object
from mktemplate.places import containers_path
from runtime.container import Container

_ACTIONS = "create [SNAP], list, restore SNAP or delete SNAP"


def copy(request: Request, console: Console) -> int:
    """Make a container like another."""
    from mktemplate.life import copies

    path = containers_path(request)
    old, new = (container_name(word) for word in request.words)
    for note in copies.make(Container(path, old), new):
        console.note(f"{new}: {note}")
    _tell(path, new, console, f"{new}: copied from {old}; mktemplate start {new}")
    return 0


def rename(request: Request, console: Console) -> int:
    """Give a container another name."""
    from mktemplate.life import renaming

    path = containers_path(request)
    old, new = (container_name(word) for word in request.words)
    renaming.rename(Container(path, old), new)
    _tell(path, new, console, f"{new}: was {old}")
    return 0


def _tell(path: Path, name: str, console: Console, text: str) -> None:
    if console.json:
        console.document(container_object(path, name))
    console.step(text)


def snapshot(request: Request, console: Console) -> int:
    """Keep a container as it is, show what is kept, go back to it, drop it."""
    from mktemplate.life import snapshots

    container = Container(containers_path(request), container_name(request.words[0]))
    action, *rest = request.words[1:]
    name = rest[0] if rest else ""
    if action == "list" and not rest:
        rows = [_row(one) for one in snapshots.found(container)]
        console.result(rows, console.table(("name", "created", "layers"), rows))
    elif action == "create":
        made = snapshots.create(container, name)
        console.result(_row(made), "")
        console.step(f"{container.name}: kept as {made.name}")
    elif action == "restore" and name:
        snapshots.restore(container, name)
        console.result({"name": name, "container": container.name}, "")
        console.step(f"{container.name}: is as it was at {name}")
    elif action == "delete" and name:
        snapshots.delete(container, name)
        console.result({"name": name, "container": container.name}, "")
        console.step(f"{container.name}: dropped {name}")
    else:
        raise CommandError(
            "E_USAGE",
            f"snapshot {escape(action)}",
            _ACTIONS,
            hints=("mktemplate help snapshot",),
        )
    return 0


def _row(one: Snapshot) -> dict[str, object]:
    return {"name": one.name, "created": one.created, "layers": len(one.record.layers)}
