"""`prune`: drop what nothing uses."""

from __future__ import annotations

from contextlib import suppress

from mktemplate.cli import Request
from mktemplate.console import Console, bytes_text
from mktemplate.places import containers_path
from provisioner.store import Store
from runtime.container import containers


def prune(request: Request, console: Console) -> int:
    """Remove layers of no container and all downloads (one kind if it is named); --dry-run only says what."""
    path, flags = containers_path(request), request.flags
    store = Store(path / ".store")
    both = flags.layers == flags.downloads
    used: set[str] = set()
    for container in containers(path):
        used |= set(container.bundle.record.layers)
    freed = store.prune(
        used,
        layers=both or flags.layers,
        downloads=both or flags.downloads,
        dry_run=flags.dry_run,
    )
    if both and not flags.dry_run:
        _bridge(console)
    value = {
        "layers": list(freed.layers),
        "downloads": freed.downloads,
        "size": freed.size,
        "busy": list(freed.busy),
        "dry_run": flags.dry_run,
    }
    verb = "would free" if flags.dry_run else "freed"
    console.result(
        value,
        f"{verb} {bytes_text(freed.size)}: {len(freed.layers)} layers, {freed.downloads} downloads",
    )
    return 0


def _bridge(console: Console) -> None:
    """Take down the bridge when no container is on it."""
    from runtime import network

    with suppress(OSError):
        if network.remove_bridge_if_unused():
            console.step("took down the bridge mkt0")
