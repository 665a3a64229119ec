"""`upgrade`: today's packages under a new upper; what is the container's own goes with it, what it wrote else is named.

    prepare    while the old generation runs: today's packages, the layers, the texts
    exchange   stop, carry over what is kept, swap, start, wait until it is ready; else the old one again

A lower layer is never swapped beneath a used upper: what an upper holds was written over the files of its own layers
(docs/upgrades.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from mktemplate.cli.parsing import Build, Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.life import edits, written
from mktemplate.life.generations import Trial
from mktemplate.making import (
    asked,
    asking,
    assembly,
    given,
    hostprogram,
    layering,
    locks,
    origins,
    recorded,
    supply,
    volumes,
    workshop,
)
from mktemplate.making.assembly import Built, Parts
from mktemplate.template import keys, library, texts
from provisioner import errand
from provisioner.changes import Change, compare
from provisioner.sandbox import Root
from provisioner.store import Draft, Store
from runtime import bundle, copytree, swap
from runtime import config as configs
from runtime.bundle import Bundle, Record
from runtime.container import Container
from valuetypes import dataclass, replace

# What a container is known by, whatever its template; the template's `keep` is added to it.
IDENTITY = (
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/ssh/ssh_host_*",
    "/var/lib/mktemplate",
)
T = TypeVar("T")  # JSON values
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one container."""

    upgraded: bool
    changes: tuple[Change, ...] = ()
    kept: tuple[str, ...] = ()  # paths that were carried over
    left: tuple[tuple[str, str], ...] = ()  # what else it had written: A, M or D, and the path
    downtime: float = 0.0  # seconds; 0 where it did not run


def upgrade(container: Container, request: Request, console: Console) -> Outcome:
    """Give the container today's packages. CommandError E_UPGRADE where it does not get ready with them."""
    found = container.bundle
    _refuse(found)
    build = recorded.build(found.record, request)
    store = assembly.store_of(container.path, build)
    with (
        closing(store),
        store.lock(f"create.{container.name}", wait=True),
        store.draft("container") as draft,
    ):
        parts = _parts(found, build, request, store, console)
        changes = _changes(found, parts)
        notes = _write(parts, build, found, draft)
        if request.build.dry_run or not _differs(found, parts, draft):
            return Outcome(upgraded=False, changes=changes)
        record = _record(parts, build, found.record, notes)
        bundle.write(Bundle(path=draft.path, record=record))
        trial = Trial(container, store, console)
        kept: list[str] = []
        timeout = request.flags.timeout

        def bring() -> None:
            kept.extend(_carry(found, draft, (*IDENTITY, *parts.built.plan.spec.keep)))
            volumes.take_in(draft.path, found.path)
            swap.complete(draft.path, found.path)
            if not store.place(draft, found.path / swap.INCOMING):
                raise CommandError("E_EXISTS", container.name, "another upgrade is at it")

        trial.take(bring, None if timeout is None else float(timeout))
        left = _written(Bundle(path=found.path / swap.PREVIOUS, record=found.record), store)
    return Outcome(
        upgraded=True,
        changes=changes,
        kept=tuple(kept),
        left=tuple(row for row in left if not _is_kept(row[1], kept)),
        downtime=trial.downtime,
    )


def _refuse(found: Bundle) -> None:
    """Raise E_PARAM for a container that has no layers of packages to exchange."""
    record = found.record
    if record.image:
        locks.of_container(found)  # says why there are none
    for wrong, why in (
        (not record.template, "was not made from a template"),
        (record.shared_host, "shares the host's packages: upgrade the host"),
        (record.flat, "is --flat: what it wrote and what it was made of are one tree"),
    ):
        if wrong:
            raise CommandError("E_PARAM", found.name, why)


def _parts(found: Bundle, build: Build, request: Request, store: Store, console: Console) -> Parts:
    """Decide what the container is to be, and build its layers."""
    held = locks.of_container(found) if found.record.packages else None
    where = request.template_path or recorded.template_path(found.record)
    if library.load(found.record.template, where, os.environ) is None:
        raise CommandError(
            "E_NOTFOUND",
            found.name,
            f"its template {found.record.template} is not there any more",
            hints=(
                "mktemplate templates add SOURCE brings one in",
                "--template-path DIR says where it is",
            ),
        )
    again = Request(
        verb="create",
        words=(found.record.template, found.name),
        build=build,
        template_path=where,
    )
    template, facts = asked.understood(again)
    facts = replace(facts, keys=_keys(found, build) if template.spec.login_keys else ())
    handed = given.found(template.spec, build, store.path, userns=facts.userns)
    facts = hostprogram.lend(template.spec, facts, build, store)
    plan = texts.plan(template, facts, build.packages, store.cache)
    mirrors = locks.mirrors(held) if held else ()
    groups = origins.groups(facts.target, build, template.spec.repositories, mirrors)
    layers, got = layering.build(plan, build, store, console, asking.of(groups))
    built = Built(plan=plan, layers=layers, got=got)
    return Parts(built=built, allotted=None, address=(), handed=handed)


def _keys(found: Bundle, build: Build) -> tuple[str, ...]:
    """Return the public keys that may log in: those that could."""
    own = found.path / "ssh/key.pub"
    if found.record.login_keys:
        return found.record.login_keys
    return keys.read(str(own)) if own.exists() else keys.choose(build.ssh_keys, os.environ).lines


def _changes(found: Bundle, parts: Parts) -> tuple[Change, ...]:
    """Return what differs between the package sets."""
    if parts.built.got is None or not found.record.packages:
        return ()  # of a program of the host's, which has no packages
    return compare(locks.of_container(found), supply.to_lock(parts.built.got, 0))


def _write(parts: Parts, build: Build, found: Bundle, draft: Draft) -> tuple[str, ...]:
    """Write the texts of the new generation into the draft: rendered anew, with the owner's changes."""
    os.rename(draft.root, draft.path / swap.TREE)
    lowers = tuple(layer.path for layer in reversed(parts.built.layers))
    root = Root(upper=draft.path / swap.TREE, lowers=lowers, work=draft.work)
    notes = assembly.write_texts(parts, build, found.path.parent, draft, root)
    for name, carried in (("config", edits.config), ("fstab", edits.fstab)):
        fresh, current = _read(draft.path / name) or "", _read(found.path / name) or ""
        text = carried(fresh, current, _read(found.path / f"{name}.made"))
        (draft.path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    configs.load(draft.path / "config")  # raises what is wrong with the two of them together
    return notes


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _differs(found: Bundle, parts: Parts, draft: Draft) -> bool:
    """Whether the new generation is another one: other layers, or other texts."""
    if tuple(layer.digest for layer in parts.built.layers) != found.record.layers:
        return True
    names = ("config", "fstab", "seccomp")
    return any(_read(draft.path / name) != _read(found.path / name) for name in names)


def _record(parts: Parts, build: Build, old: Record, notes: Sequence[str]) -> Record:
    request = Request(verb="create", words=(old.template, old.name), build=build)
    made = assembly.record_of(parts, request, tuple(notes))
    return replace(
        made,
        name=old.name,
        created=old.created,
        upgraded=bundle.now(),
        options=old.options,
        ports=old.ports,
        id_range=old.id_range,
        connect=old.connect,
        degraded=tuple(dict.fromkeys((*old.degraded, *made.degraded))),
    )


@contextmanager
def _opened(*places: Path) -> Iterator[list[int]]:
    with ExitStack() as stack:
        handles = []
        for place in places:
            handles.append(os.open(place, _OPEN))
            stack.callback(os.close, handles[-1])
        yield handles


def _as_their_root(top: Path, function: Callable[[], T]) -> T:
    """Return what `function` returns, called as the root of the tree at `top`: a normal user's ids own it."""
    owners = workshop.owners()
    return function() if owners is None else errand.send(owners, Root(upper=top), function)


def _is_kept(path: str, kept: Sequence[str]) -> bool:
    """Whether `path` is what was carried over, in it, or a folder on the way to it."""
    return any(f"{one}/".startswith(f"{path}/") or path.startswith(f"{one}/") for one in kept)


def _written(found: Bundle, store: Store) -> list[tuple[str, str]]:
    """Return what a generation has written over its layers: `A`, `M` or `D`, and the path."""
    layers = [store.layer(digest) for digest in found.record.layers]
    if None in layers:
        raise CommandError("E_CORRUPT", found.name, "one of its layers is gone")
    upper = found.path / swap.TREE
    with _opened(upper, *(layer.path for layer in reversed(layers) if layer)) as handles:
        rows = _as_their_root(upper, partial(written.changes, handles[0], handles[1:]))
    return [(kind, path) for kind, path in rows]


def _carry(found: Bundle, draft: Draft, names: Sequence[str]) -> list[str]:
    """Copy what is kept from the old upper into the new one; return the paths."""
    new = draft.path / swap.TREE
    with _opened(found.path / swap.TREE, new) as (old, fresh):
        rows = _as_their_root(new, partial(copytree.carry, old, fresh, names))
    return [f"/{path}" for path, _ in rows]
