"""A container from a plan: chosen packages → layers → PATH/NAME, all or nothing.

Everything is written into staging and becomes PATH/NAME by one rename; whatever goes wrong before leaves nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from mktemplate.cli.parsing import Build, Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.making import given, hostpart, hostprogram, layering, locks, volumes, workshop
from mktemplate.making.asking import Asking
from mktemplate.making.recorded import given_options
from mktemplate.making.recovery import recover
from mktemplate.making.supply import Supply, to_lock
from mktemplate.template import keys, library, sharehost, texts
from mktemplate.template.facts import Facts, login_user, port
from mktemplate.template.facts import packages as packages_of
from mktemplate.template.plan import Plan
from mktemplate.template.spec import TemplateSpec
from provisioner.lock import write as write_lock
from provisioner.sandbox import Root
from provisioner.store import Draft, Layer, Store
from provisioner.tree import File
from runtime import bundle, idmap
from runtime import config as configs
from runtime.bundle import Bundle, Ready, Record
from runtime.seccomp_profile import default_profile
from valuetypes import dataclass, replace

_SINGLE = "single id: every user inside is root, and you outside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A container that was made."""

    bundle: Bundle
    timings: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a container is made of: a template's packages, or an image that was brought."""

    plan: Plan
    layers: tuple[Layer, ...]
    got: Supply | None = None
    image: str = ""  # where from, and its digest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What was decided and built before the container itself is written."""

    built: Built
    allotted: idmap.Allocation | None
    address: tuple[tuple[str, str], ...]  # lines of its nic
    handed: given.Handed


def store_of(path: Path, build: Build) -> Store:
    """Return the store below PATH."""
    return workshop.store(path, durable=not build.no_sync)


def refuse_existing(path: Path, name: str) -> None:
    """Raise E_EXISTS where PATH/NAME is taken."""
    place = path / name
    if not os.path.lexists(place):
        return
    created = ""
    with suppress(Exception):  # whatever lies there, it is there
        created = bundle.read(place).record.created
    raise CommandError(
        "E_EXISTS",
        name,
        f"already exists (created {created or 'by something else'})",
        hints=(f"mktemplate destroy {name} removes it", f"mktemplate up {name} starts it"),
    )


def make(
    template: library.Template,
    facts: Facts,
    request: Request,
    path: Path,
    console: Console,
    asked: Asking,
) -> Made:
    """Make the container that `facts` describe below `path`; raise with nothing left behind."""
    facts = _with_host(facts)

    def build(store: Store, draft: Draft) -> Built:
        lent = hostprogram.lend(template.spec, facts, request.build, store)
        plan = _plan(template, lent, request.build, draft, store.cache)
        layers, got = layering.build(plan, request.build, store, console, asked)
        return Built(plan=plan, layers=layers, got=got, notes=hostprogram.notes(plan.spec, lent))

    return assemble(template.spec, facts, build, request, path, console)


def assemble(
    spec: TemplateSpec,
    facts: Facts,
    make_parts: Callable[[Store, Draft], Built],
    request: Request,
    path: Path,
    console: Console,
) -> Made:
    """Make a container below `path` of what `make_parts` builds; raise with nothing left behind."""
    build = request.build
    started = time.monotonic()
    if os.geteuid() != 0:
        idmap.allocate(path, facts.name, single=facts.single_id)  # raises what a user lacks
    elif facts.single_id:
        raise CommandError("E_USAGE", "--single-id", "is a normal user's: root has ids enough")
    hostpart.check_path(path)
    refuse_existing(path, facts.name)
    handed = given.read(spec, build, path / ".store", userns=facts.userns)
    store = store_of(path, build)
    for weaker in (*workshop.degraded(), *((_SINGLE,) if facts.single_id else ())):
        console.warning(f"degraded: {weaker}")
    store.prepare()
    recover(path, store)
    with (
        closing(store),
        store.lock(f"create.{facts.name}", wait=build.wait),
        store.draft("container") as draft,
    ):
        refuse_existing(path, facts.name)
        built = make_parts(store, draft)
        got = built.got
        with (
            _ids(path, facts) as allotted,
            hostpart.address(path, facts.name, facts.network) as address,
        ):
            parts = Parts(built=built, allotted=allotted, address=address, handed=handed)
            record = _write(parts, request, path, draft)
            console.timings["total"] = time.monotonic() - started
            record = replace(record, timings=tuple(console.timings.items()))
            bundle.write(Bundle(path=draft.path, record=record))
            if not store.place(draft, path / facts.name):
                refuse_existing(path, facts.name)
                raise CommandError("E_EXISTS", facts.name, "was made by another command meanwhile")
    for note in record.notes:
        if got is None or note not in got.warnings:  # those were told before
            console.note(note)
    return Made(bundle=Bundle(path=path / facts.name, record=record), timings=console.timings)


def _with_host(facts: Facts) -> Facts:
    """Return the facts with what `--share-host` must know of this host."""
    if not facts.shared_host:
        return facts
    host = sharehost.os_release().get("ID", "")
    if host != facts.target.distro:
        raise CommandError(
            "E_PARAM",
            "--share-host",
            f"this host is {host or 'unknown'}, not {facts.target.distro}",
        )
    return replace(facts, merged_usr=sharehost.merged_usr())


def _plan(
    template: library.Template, facts: Facts, build: Build, draft: Draft, cache: Path
) -> Plan:
    """Return the checked texts, with the keys that may log in; a pair is made in the draft where there are none."""
    if template.spec.login_keys:
        chosen = keys.choose(build.ssh_keys, os.environ)
        lines = chosen.lines
        if chosen.made:
            lines = (keys.make_pair(draft.path / "ssh", facts.name),)
        facts = replace(facts, keys=lines)
    plan = texts.plan(template, facts, build.packages, cache)
    if facts.shared_host and plan.spec.static:
        hostprogram.check(plan.spec)
    elif facts.shared_host:
        own = {node.path for node in plan.tree.nodes if isinstance(node, File)}
        packages = packages_of(plan.spec, replace(facts, shared_host=False), ())
        sharehost.check_programs(
            packages, (each for each in plan.rendered.programs if each not in own)
        )
    return plan


@contextmanager
def _ids(path: Path, facts: Facts) -> Iterator[idmap.Allocation | None]:
    """Allot ids for the length of the block, and for good if it succeeds."""
    if not facts.userns:
        yield None
        return
    allotted = idmap.allocate(path, facts.name, single=facts.single_id)
    try:
        yield allotted
    except BaseException:
        idmap.release(path, allotted.first)
        raise


def _write(parts: Parts, request: Request, path: Path, draft: Draft) -> Record:
    """Write everything of the container into the draft and return its record."""
    built, allotted = parts.built, parts.allotted
    layers, got = built.layers, built.got
    build = request.build
    root = draft.path / ("rootfs" if build.flat else "upper")
    os.rename(draft.root, root)
    if build.flat:
        from provisioner.flatten import flatten

        flatten(layers, root, workshop.owners())
        draft.work.rmdir()
        if allotted:
            os.chown(draft.path, *allotted.idmap.root())  # lxc-start reads fstab as that root
    notes = write_texts(parts, build, path, draft, _root(root, layers, draft, flat=build.flat))
    found = (*got.warnings, *got.notes) if got else built.notes
    closed = hostpart.closed_parent(path) if build.flat and allotted else ""
    if closed:
        notes += (f"lxc-start will refuse it until others may walk through: chmod o+x {closed}",)
    return record_of(parts, request, (*found, *(allotted.notes if allotted else ()), *notes))


def write_texts(
    parts: Parts, build: Build, path: Path, draft: Draft, root: Root
) -> tuple[str, ...]:
    """Write config, fstab, seccomp and lock of the container below `path` into the draft; return notes.

    `root` is the container's as its volumes will see it. What is written stays beside as config.made and fstab.made,
    by which `upgrade` tells what its owner changed.
    """
    built, allotted = parts.built, parts.allotted
    plan = built.plan
    inside = volumes.Place(root=root, draft=draft.path, final=path / plan.facts.name)
    more = given.hand_over(plan, parts.handed, build, inside)
    place = hostpart.Place(
        path=path / plan.facts.name,
        layers=tuple(layer.path for layer in built.layers),
        no_new_privs=plan.no_new_privs,
        flat=build.flat,
        idmap=allotted.lines if allotted else (),
        network=parts.address,
    )
    config, clamped = hostpart.clamp_limits(plan.rendered.config)
    config += hostpart.lines(place) + configs.render(more.config)
    fstab = plan.rendered.fstab + more.fstab
    for name, text in (
        ("config", config),
        ("config.made", config),
        ("fstab", fstab),
        ("fstab.made", fstab),
        ("seccomp", _profile(plan, build)),
    ):
        (draft.path / name).write_bytes(text.encode())
    if built.got:
        lock = write_lock(to_lock(built.got, built.layers[-1].epoch))
        (draft.path / locks.NAME).write_bytes(lock.encode())
    return clamped


def _profile(plan: Plan, build: Build) -> str:
    """Return the seccomp profile."""
    return default_profile(
        plan.spec.profile, frozenset(build.grants), single_id=plan.facts.single_id
    )


def _root(root: Path, layers: tuple[Layer, ...], draft: Draft, *, flat: bool) -> Root:
    """Return the container's root as its volumes will see it."""
    if flat:
        return Root(upper=root)
    lowers = tuple(layer.path for layer in reversed(layers))
    return Root(upper=root, lowers=lowers, work=draft.work)


def record_of(parts: Parts, request: Request, notes: tuple[str, ...]) -> Record:
    """Return what is recorded of a container that is made now."""
    built, build, allotted = parts.built, request.build, parts.allotted
    spec, facts, got = built.plan.spec, built.plan.facts, built.got
    return Record(
        name=facts.name,
        template=spec.name,
        image=built.image,
        distro=facts.target.distro,
        release=facts.target.release,
        arch=facts.target.arch,
        created=bundle.now(),
        profile=spec.profile,
        layers=() if build.flat else tuple(layer.digest for layer in built.layers),
        packages=tuple(
            (each.name, each.version, each.arch) for each in (got.chosen.packages if got else ())
        ),
        ports=build.publish,
        exposes=tuple(f"{port(each, facts)}/tcp" for each in spec.ports),
        ready=Ready() if facts.idle else _ready(parts.built.plan),
        stop_signal=spec.stop_signal,
        sockets=spec.sockets,
        connect=built.plan.rendered.connect.replace("{name}", facts.name),
        login_keys=facts.keys,
        login_user=login_user(spec, facts) if spec.login_keys else "root",
        options=given_options(
            request, [option.name for option in spec.options if option.type == "mount"]
        ),
        secrets=tuple(each.name for each in spec.secrets if each.name not in parts.handed.secrets),
        shared_host=facts.shared_host,
        flat=build.flat,
        degraded=(
            *build.allow_degraded,
            *(got.degraded if got else ()),
            *workshop.degraded(),
            *(() if facts.userns else ("user namespace",)),
            *(("single id",) if facts.single_id else ()),
        ),
        notes=notes,
        restart=build.restart,
        defaults=(("memory.max", str(spec.memory)),) if spec.memory and not build.memory else (),
        id_range=(allotted.first, allotted.count) if allotted else (0, 0),
    )


def _ready(plan: Plan) -> Ready:
    ready = plan.spec.ready
    for kind, value in (
        ("port", str(port(ready.port, plan.facts)) if ready.port else ""),
        ("command", plan.rendered.ready),
        ("file", ready.file),
    ):
        if value:
            return Ready(
                kind=kind,
                value=value,
                timeout=float(ready.timeout),
                send=ready.send,
                expect=ready.expect,
            )
    return Ready()
