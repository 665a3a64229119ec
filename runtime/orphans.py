"""What is still reserved for containers that are not there: ids, addresses, run state, locks.

A create that was killed had reserved it, a destroy that was killed had not given it back yet.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runtime import bundle, etcfiles, idmap, lease, prepare, state


def names(path: Path) -> frozenset[str]:
    """Return the names below `path` for which something is reserved and nothing is there."""
    known = {*idmap.reserved(path).values(), *_run_states(path), *_leases(path)}
    return frozenset(
        name for name in known if bundle.is_name(name) and not os.path.lexists(path / name)
    )


def release(path: Path, name: str) -> None:
    """Give back what is reserved for `name`, unless it is there or runs.

    The caller sees to it that nobody creates `name` meanwhile. ResourceError: E_LOCKED where another command is at it.
    """
    with state.lock(path, name, wait=False):
        run = state.load(path, name)
        if os.path.lexists(path / name) or (run is not None and _is_alive(run)):
            return
        idmap.release_all(path, name)
        etcfiles.remove(state.folder(path) / f"{name}.etc")
        prepare.remove_group(path, name, None)
        prepare.forget_network(path, name)
        state.forget(path, name)


def _is_alive(run: state.RunState) -> bool:
    for who in (run.monitor, run.init):
        descriptor = who.open()
        if descriptor is not None:
            os.close(descriptor)
            return True
    return False


def _run_states(path: Path) -> set[str]:
    found = set()
    with suppress(FileNotFoundError):
        for entry in os.listdir(state.folder(path)):
            name, _, kind = entry.rpartition(".")
            if kind in ("json", "lock", "etc"):
                found.add(name)
    return found


def _leases(path: Path) -> set[str]:
    if os.geteuid() != 0 or not lease.FOLDER.is_dir():
        return set()
    with lease.ledger() as book:
        keys = list(book.book.leases)
    prefix = state.key(path, "")
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
