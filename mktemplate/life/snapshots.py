"""Snapshots: PATH/NAME/snapshots/SNAP holds the container's texts, its record and a copy of what it wrote.

The layers below are shared. A snapshot goes with its container; while one is there, its layers stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from mktemplate.errors import CommandError, escape
from mktemplate.life import copies
from mktemplate.making import workshop
from runtime import bundle
from runtime.bundle import Bundle, Record
from runtime.container import Container
from valuetypes import dataclass, replace

FOLDER = "snapshots"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_TEXTS = ("config", *copies.TEXTS, "state.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot on disk."""

    name: str
    path: Path
    created: str  # RFC 3339, UTC
    record: Record


def found(container: Container) -> tuple[Snapshot, ...]:
    """Return the snapshots of a container, oldest first."""
    folder = container.bundle.path / FOLDER
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return ()
    return tuple(sorted((_read(folder / name) for name in names), key=lambda one: one.created))


def layers(directory: Path) -> set[str]:
    """Return the digests of the layers that the snapshots below the container's `directory` are made of."""
    used: set[str] = set()
    with suppress(FileNotFoundError):
        for name in os.listdir(directory / FOLDER):
            used |= set(_read(directory / FOLDER / name).record.layers)
    return used


def create(container: Container, name: str) -> Snapshot:
    """Keep the container as it is now; one that runs stands still meanwhile."""
    current = container.bundle
    folder = current.path / FOLDER
    name = name or _free_name(folder)
    _check_name(name)
    place = folder / name
    if os.path.lexists(place):
        raise CommandError(
            "E_EXISTS",
            f"{container.name} {name}",
            "already exists",
            hints=(f"mktemplate snapshot {container.name} delete {name}",),
        )
    with (
        closing(workshop.store(container.path)) as store,
        store.lock(f"create.{container.name}"),
        store.draft("container") as draft,
    ):
        for text in _TEXTS:
            with suppress(FileNotFoundError):
                (draft.path / text).write_bytes((current.path / text).read_bytes())
        copies.copy_trees(container, current.path, draft)
        draft.work.rmdir()
        created = bundle.now()
        (draft.path / "taken").write_text(created + "\n", encoding="ascii")
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        store.place(draft, place)
    return _read(place)


def restore(container: Container, name: str) -> None:
    """Make a container that is stopped what it was; the snapshot stays. What it wrote since is gone."""
    snapshot = _one(container, name)
    current = container.bundle
    _must_be_stopped(container)
    with (
        closing(workshop.store(container.path)) as store,
        store.lock(f"create.{container.name}"),
        store.draft("container") as draft,
    ):
        copies.copy_trees(container, snapshot.path, draft)
        texts = texts_of(Bundle(path=snapshot.path, record=snapshot.record), container)
        with stopped(container):
            _swap_trees(draft.path, current.path)
            for text, data in texts.items():
                bundle.replace_file(current.path / text, data, _mode(current.path / text))


def restore_into(container: Container, name: str, copy: Container) -> None:
    """Make `copy`, a stopped copy of `container`, what that was; ids, address and texts stay the copy's own."""
    snapshot = _one(container, name)
    with (
        closing(workshop.store(container.path)) as store,
        store.lock(f"create.{copy.name}"),
        store.draft("container") as draft,
    ):
        copies.copy_trees(container, snapshot.path, draft)
        with stopped(copy):
            _swap_trees(draft.path, copy.bundle.path)


def _swap_trees(draft: Path, place: Path) -> None:
    """Put the trees of a draft at `place`, and what was there into the draft."""
    for tree in copies.trees_of(draft):
        os.rename(place / tree, draft / f"{tree}.old")
        os.rename(draft / tree, place / tree)


def delete(container: Container, name: str) -> None:
    """Remove a snapshot."""
    snapshot = _one(container, name)
    with closing(workshop.store(container.path)) as store:
        store.prepare()
        store.trash(snapshot.path)
    with suppress(OSError):
        os.rmdir(snapshot.path.parent)


def texts_of(kept: Bundle, container: Container) -> dict[str, bytes]:
    """Return the files of a state that was kept as they are to be for a container that may have been renamed since."""
    record = kept.record
    moved = copies.Moved(path=container.path, old=record.name or container.name, new=container.name)
    texts = {}
    for name in ("config", *copies.TEXTS):
        with suppress(FileNotFoundError):
            text = (kept.path / name).read_text(encoding="utf-8", errors="surrogateescape")
            text = copies.told_anew(text, moved) if name == "config" else moved(text)
            texts[name] = text.encode("utf-8", "surrogateescape")
    if record.created:
        texts["state.json"] = bundle.encode(replace(record, name=container.name))
    return texts


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o644


@contextmanager
def stopped(container: Container) -> Iterator[None]:
    """Hold the container's lock, so that nobody starts it, for the length of the block."""
    from runtime import state

    with state.lock(container.path, container.name):
        if (run := container.run) is not None and run.phase not in {"STOPPED", "STARTING"}:
            _must_be_stopped(container)
        yield


def _must_be_stopped(container: Container) -> None:
    if container.state() not in {"STOPPED", "ABORTING"}:
        raise CommandError(
            "E_RUNNING",
            container.name,
            f"is {container.state()}",
            hints=(f"mktemplate stop {container.name}",),
        )


def _one(container: Container, name: str) -> Snapshot:
    _check_name(name)
    path = container.bundle.path / FOLDER / name
    if not path.is_dir():
        raise CommandError(
            "E_NOTFOUND",
            f"{container.name} {name}",
            "there is no such snapshot",
            hints=(f"mktemplate snapshot {container.name} list",),
        )
    return _read(path)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise CommandError("E_NAME", f'"{escape(name)}"', "is no name of a snapshot")


def _free_name(folder: Path) -> str:
    number = 0
    while os.path.lexists(folder / f"snap{number}"):
        number += 1
    return f"snap{number}"


def _read(path: Path) -> Snapshot:
    record = bundle.read(path).record
    try:
        created = (path / "taken").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        created = record.created
    return Snapshot(name=path.name, path=path, created=created, record=record)
