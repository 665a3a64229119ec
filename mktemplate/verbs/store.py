"""`prune`: drop what nothing uses. `store verify`: find what is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from mktemplate.cli.parsing import Request
from mktemplate.console import Console, bytes_text
from mktemplate.errors import CommandError, escape, exit_status
from mktemplate.life import generations, snapshots, warm
from mktemplate.making import workshop
from mktemplate.making.recovery import sweep
from mktemplate.places import containers_path
from provisioner import collect
from runtime.container import containers
from runtime.errors import StateError


def prune(request: Request, console: Console) -> int:
    """Remove layers of no container, warm snapshots of no copy, and all downloads; --dry-run only says what."""
    path, flags = containers_path(request), request.flags
    store = workshop.store(path)
    both = flags.layers == flags.downloads
    if not flags.dry_run and store.path.exists():
        sweep(path, store)
    layers = both or flags.layers
    dropped = warm.prune(path, store, dry_run=flags.dry_run) if layers else ()
    freed = collect.prune(
        store,
        partial(_used, path, dropped),
        layers=layers,
        downloads=both or flags.downloads,
        dry_run=flags.dry_run,
    )
    if both and not flags.dry_run:
        _bridge(console)
    value = {
        "layers": list(freed.layers),
        "downloads": freed.downloads,
        "snapshots": list(dropped),
        "size": freed.size,
        "busy": list(freed.busy),
        "dry_run": flags.dry_run,
    }
    verb = "would free" if flags.dry_run else "freed"
    more = f", {len(dropped)} warm snapshots" if dropped else ""
    console.result(
        value,
        f"{verb} {bytes_text(freed.size)}: {len(freed.layers)} layers, {freed.downloads} downloads{more}",
    )
    return 0


def store(request: Request, console: Console) -> int:
    """Hash every layer and download again; what is damaged goes into quarantine and is made again when it is needed."""
    if request.words != ("verify",):
        raise CommandError("E_USAGE", "store", f"{escape(request.words[0])}: there is store verify")
    with closing(workshop.store(containers_path(request))) as opened:
        found = collect.verify(opened)
    value = {
        "layers": found.layers,
        "downloads": found.downloads,
        "damaged": list(found.damaged),
        "quarantine": str(opened.path / "quarantine") if found.damaged else None,
    }
    text = f"{found.layers} layers and {found.downloads} downloads hashed, {len(found.damaged)} damaged"
    console.result(value, text)
    for name in found.damaged:
        damaged = CommandError("E_CORRUPT", name, f"is damaged; moved to {value['quarantine']}")
        console.error(damaged, to_stdout=False)
    return exit_status("E_CORRUPT") if found.damaged else 0


def _used(path: Path, dropped: Sequence[str]) -> set[str]:
    """Return the digests of the layers that containers are made of, at this moment; those `dropped` do not count."""
    used: set[str] = set()
    for container in containers(path):
        if container.name in dropped:
            continue
        with suppress(StateError):  # E_NOTFOUND: destroyed since it was listed
            used |= set(container.bundle.record.layers)
            used |= snapshots.layers(container.directory) | generations.layers(container.directory)
    return used


def _bridge(console: Console) -> None:
    """Take down the bridge when no container is on it."""
    from runtime import bridges

    with suppress(OSError):
        if bridges.remove_if_unused():
            console.step("took down the bridge mkt0")
