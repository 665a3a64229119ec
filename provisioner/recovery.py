"""What killed commands left in the store, and how it goes: half-built drafts, half-deleted trees, unfinished files.

Who builds holds the lock of the draft's journal, who deletes holds the trash; the kernel takes both from the dead, in
whatever pid namespace they were. So nothing here asks for process ids, and nothing of the living is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from provisioner.store import Store, journal

_DRAFTS = (
    "",
    "cache/lists",
    "trust",
    "ids",
)  # where single files are written under a hidden name, then renamed
_STALE = 3600  # seconds after which nobody finishes one
_ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB


def is_clean(store: Store) -> bool:
    """Whether no command was killed while it built or deleted something; True also while one is at it."""
    with contextlib.suppress(BlockingIOError), store.deleting(_ALONE):
        if _listed(store.path / "trash"):
            return False
    return not any(_is_dead(draft) for draft in _drafts(store))


def recover(store: Store) -> None:
    """Remove what killed commands left. Idempotent, and may itself be killed anywhere."""
    store.prepare()
    for draft in _drafts(store):
        with _taken(draft) as dead:
            if dead:
                store.discard(draft)
    for folder in _DRAFTS:
        _sweep(store.path / folder)
    # Where somebody is deleting, the next command sweeps the trash.
    with contextlib.suppress(BlockingIOError), store.deleting(_ALONE):
        for name in _listed(store.path / "trash"):
            store.remove(store.path / "trash" / name)


def _drafts(store: Store) -> list[Path]:
    staging = store.path / "staging"
    return [staging / name for name in {name.removesuffix(".json") for name in _listed(staging)}]


@contextlib.contextmanager
def _taken(draft: Path) -> Iterator[bool]:
    """Hold a draft whose builder is dead; False where that one lives."""
    try:
        fd = os.open(journal(draft), os.O_RDONLY)
    except FileNotFoundError:  # it went before, or after, the draft: there is nobody
        yield True
        return
    try:
        yield is_free(fd)
    finally:
        os.close(fd)


def is_free(fd: int) -> bool:
    """Whether nobody had the lock of the open file; now we have it, until it is closed."""
    try:
        fcntl.flock(fd, _ALONE)
    except BlockingIOError:
        return False
    return True


def _is_dead(draft: Path) -> bool:
    with _taken(draft) as dead:
        return dead


def _sweep(folder: Path) -> None:
    """Remove the drafts of single files that nobody finished."""
    for name in _listed(folder):
        if name.startswith(".") and name != ".lock":
            with contextlib.suppress(FileNotFoundError):  # another recover was faster
                if time.time() - os.lstat(folder / name).st_mtime > _STALE:
                    os.unlink(folder / name)


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
