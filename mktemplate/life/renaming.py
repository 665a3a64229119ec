"""`rename`: a container that is stopped gets another name; its address, its ids and its snapshots go with it."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

from mktemplate.errors import CommandError
from mktemplate.life import copies
from mktemplate.making import assembly
from runtime import bundle, idmap, lease, state, swap
from runtime.bundle import Bundle
from runtime.container import Container
from runtime.errors import StateError
from valuetypes import replace


def rename(container: Container, name: str) -> None:
    """Give `container` the name `name`. StateError: E_RUNNING. CommandError: E_EXISTS."""
    path, old = container.path, container.name
    found = container.bundle
    assembly.refuse_existing(path, name)
    if container.state() not in {"STOPPED", "ABORTING"}:
        raise StateError("E_RUNNING", old, "is running", hints=(f"mktemplate stop {old}",))
    moved = copies.Moved(path=path, old=old, new=name)
    with ExitStack() as stack:
        for locked in sorted((old, name)):
            stack.enter_context(state.lock(path, locked))
        fresh = _texts(found, moved)
        for text, data in fresh.items():
            bundle.replace_file(found.path / f"{text}.renamed", data, 0o644)
        try:
            os.rename(found.path, path / name)
        except OSError as error:
            for text in fresh:
                os.unlink(found.path / f"{text}.renamed")
            raise CommandError("E_EXISTS", name, f"{error.strerror}") from None
        for text in fresh:
            os.rename(path / name / f"{text}.renamed", path / name / text)
        swap.forget(path / name)  # they name the old place
        _keep_ids(path, name, found.record.id_range[0])
        if os.geteuid() == 0:
            _keep_address(state.key(path, old), state.key(path, name))
        state.forget(path, old)


def _texts(found: Bundle, moved: copies.Moved) -> dict[str, bytes]:
    """Return the container's texts under its new name."""
    record = found.record
    config = found.config.read_text(encoding="utf-8", errors="surrogateescape")
    texts = {"config": copies.told_anew(config, moved).encode("utf-8", "surrogateescape")}
    with suppress(FileNotFoundError):
        fstab = (found.path / "fstab").read_text(encoding="utf-8", errors="surrogateescape")
        texts["fstab"] = moved(fstab).encode("utf-8", "surrogateescape")
    if record.created:
        connect = record.connect.replace(f" {moved.old}", f" {moved.new}")
        texts["state.json"] = bundle.encode(replace(record, name=moved.new, connect=connect))
    return texts


def _keep_ids(path: Path, name: str, first: int) -> None:
    """Let the reservation of the ids say whose they are now."""
    if first in idmap.reserved(path):
        place = path / ".store" / "ids"
        draft = place.with_name(f".ids.{first}.{os.getpid()}")
        os.symlink(name, draft)
        os.rename(draft, place / str(first))


def _keep_address(old: str, new: str) -> None:
    """Let the lease of the address say whose it is now."""
    if not lease.FOLDER.is_dir():
        return
    with lease.ledger() as ledger:
        held = ledger.book.leases.get(old)
        if held is None:
            return
        left = {key: one for key, one in ledger.book.leases.items() if key != old}
        book = replace(ledger.book, leases=left)
        ledger.save(book.put(held._replace(key=new)))
