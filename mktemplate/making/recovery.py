"""What killed commands left half-done, in the store and beside it: undone by the next command that writes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from provisioner import recovery
from provisioner.errors import StoreFailed
from provisioner.store import Store
from runtime.errors import ResourceError


def recover(path: Path, store: Store) -> None:
    """Undo it, where there is any: a killed create leaves a draft, a killed destroy something in the trash."""
    if not recovery.is_clean(store):
        sweep(path, store)


def sweep(path: Path, store: Store) -> None:
    """Give back what is reserved for containers that do not exist; then let go of what shows that they once did."""
    from runtime import orphans  # few commands have anything to undo

    for name in orphans.names(path):
        with suppress(StoreFailed, ResourceError), store.lock(f"create.{name}", wait=False):
            orphans.release(path, name)  # E_LOCKED: somebody is making or removing it
    recovery.recover(store)
