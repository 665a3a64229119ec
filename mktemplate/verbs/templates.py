"""`templates`: what there is, what is brought in, and what of that is brought up to date or removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mktemplate.authoring import parcel, proof
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, Several, escape
from mktemplate.making import asked
from mktemplate.template import added, grants, library
from mktemplate.template.added import Added
from mktemplate.template.spec import TemplateSpec
from runtime import bundle
from valuetypes import replace

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def templates(request: Request, console: Console) -> int:
    """List templates, add, update or remove some."""
    if not request.words:
        return _list(request, console)
    act, *words = request.words
    acts = {"add": _add, "update": _update, "remove": _remove}
    if act not in acts or not words:
        raise CommandError(
            "E_USAGE",
            f"templates {escape(act)}",
            "add SOURCE [NAME…], update NAME… or remove NAME…",
            hints=("mktemplate help templates", "mktemplate show TEMPLATE tells of one"),
        )
    return acts[act](words, request, console)


def _list(request: Request, console: Console) -> int:
    """List the templates that can be found; one that is wrong is listed with what is wrong."""
    rows: list[dict[str, object]] = []
    for name, found in library.every(request.template_path, os.environ):
        if isinstance(found, library.Template):
            rows.append(_row(found.spec))
        else:
            console.warning(f"{name}: {found}")
    shown = [{**row, "distros": ",".join(asked.words(row["distros"]))} for row in rows]
    console.result(rows, console.table(("name", "distros", "origin", "summary"), shown))
    return 0


def _row(spec: TemplateSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "summary": spec.summary,
        "distros": list(asked.supported(spec)),
        "origin": spec.origin,
        "trusted": spec.trusted,
        "source": spec.source or None,
    }


def _add(words: list[str], request: Request, console: Console) -> int:
    """Bring in the templates of a source, all or none: each is proved before it is where others find it."""
    source, *wanted = words
    _check_grants(request)
    found = parcel.read(source)
    _check_pin(request.flags.pin, found, source)
    chosen = _chosen(parcel.templates(found), wanted, request.flags.rename, source)
    origin = Added(source=parcel.lasting(source), revision=found.revision)
    console.result(_bring(chosen, origin, request, console), "")
    return 0


def _bring(
    chosen: Mapping[str, dict[str, bytes]], origin: Added, request: Request, console: Console
) -> list[dict[str, object]]:
    """Put templates where others find them, once each of them is proved; what `origin` grants, they are granted."""
    place = library.own_place(request.template_path, os.environ)
    force = request.flags.force or request.words[0] == "update"
    rows = []
    with added.staged(place, chosen) as stage:
        specs = {name: _proved(stage / name, request, console) for name in chosen}
        for name, spec in specs.items():
            granted = _granted(spec, request.build.grants, origin.grants)
            about = replace(
                origin, sha256=parcel.digest(chosen[name]), added=bundle.now(), grants=granted
            )
            added.keep(place, stage, name, about, force=force)
            rows.append(_told(spec, about, place, console))
    return rows


def _update(words: list[str], request: Request, console: Console) -> int:
    """Bring in again what was added, from where it came.

    What it was granted was granted to the files that it had: others have it where --pin or --grant says so.
    """
    _check_grants(request)
    pin = request.flags.pin
    if pin and len(words) > 1:
        raise CommandError("E_USAGE", "--pin", "is the hash of one: update one at a time")
    place = library.own_place(request.template_path, os.environ)
    rows = []
    for name in words:
        library.check_name(name)
        had = added.known(place, name)
        found = parcel.read(had.source)
        _check_pin(pin, found, had.source)
        files = _again(parcel.templates(found), name, had.source)
        same = parcel.digest(files) == had.sha256
        if same and not request.build.grants:
            console.step(f"{name}: is up to date, sha256 {had.sha256}")
            rows.append({"name": name, "updated": False, "sha256": had.sha256})
            continue
        kept = had.grants if pin or same else ()
        origin = Added(source=had.source, revision=found.revision, grants=kept)
        [row] = _bring({name: files}, origin, request, console)
        rows.append({**row, "updated": True})
    console.result(rows, "")
    return 0


def _again(found: Mapping[str, dict[str, bytes]], name: str, source: str) -> dict[str, bytes]:
    """Return the files of the template that was added as `name`, which may not be its name at the source."""
    if name not in found and len(found) != 1:
        raise CommandError(
            "E_NOTFOUND", escape(source), f'holds no template "{escape(name)}"',
            hints=(f"mktemplate templates add SOURCE {next(iter(found))} --as {name} --force",),
        )  # fmt: skip
    return found.get(name) or next(iter(found.values()))


def _check_grants(request: Request) -> None:
    if request.template_path and request.build.grants:
        raise CommandError(
            "E_USAGE", "--grant", "is kept for templates in the usual place, not in --template-path"
        )
    for word in request.build.grants:
        if word.partition(":")[0] not in grants.KEPT:
            raise CommandError(
                "E_PARAM", f"--grant {escape(word)}", "is granted to a container, not for good",
                hints=(f"`templates add` grants {', '.join(grants.KEPT)}",),
            )  # fmt: skip


def _check_pin(pin: str, found: parcel.Parcel, source: str) -> None:
    """Raise E_TRUST_HASH where a pin is neither the hash of the tar nor that of the files."""
    if not pin:
        return
    if _SHA256.fullmatch(pin) is None:
        raise CommandError(
            "E_PARAM", f"--pin {escape(pin)}", "is not 64 hexadecimal digits, lower case"
        )
    files = parcel.digest(found.files)
    if pin not in (files, found.revision):
        raise CommandError(
            "E_TRUST_HASH", escape(source), f"its files have the SHA-256 {files}, not {pin}"
        )


def _chosen(
    found: Mapping[str, dict[str, bytes]], wanted: list[str], rename: str, source: str
) -> dict[str, dict[str, bytes]]:
    """Return the templates that are meant, by the names that they will have."""
    for name in wanted:
        if name not in found:
            raise CommandError("E_NOTFOUND", escape(source), f'holds no template "{escape(name)}"',
                               hints=(f"it holds {', '.join(map(escape, found))}",))  # fmt: skip
    chosen = {name: files for name, files in found.items() if not wanted or name in wanted}
    if rename:
        if len(chosen) != 1:
            raise CommandError("E_USAGE", f"--as {escape(rename)}", f"{len(chosen)} templates are meant",
                               hints=(f"name one of {', '.join(map(escape, chosen))}",))  # fmt: skip
        chosen = {rename: next(iter(chosen.values()))}
    for name in chosen:
        library.check_name(name)
        if library.is_built_in(name):
            raise CommandError(
                "E_EXISTS", name, "is a built-in template, which this one would hide",
                hints=("--as NAME calls it otherwise",),
            )  # fmt: skip
    return chosen


def _proved(place: Path, request: Request, console: Console) -> TemplateSpec:
    """Return the facts of a staged template; raise what is wrong with it."""
    wrong = [each for each in proof.prove(place, request, console) if each.severity == "error"]
    failures = tuple(
        CommandError(
            each.code, f"{each.path}:{each.line}", each.detail, path=each.path, line=each.line
        )
        for each in wrong
    )
    if failures:
        raise failures[0] if len(failures) == 1 else Several(failures)
    return library.from_directory(str(place), "user").spec


def _granted(spec: TemplateSpec, words: Iterable[str], had: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the grants that are kept, of those that it `had`, too; E_PARAM for one that it does not ask for."""
    asks = {word for word, _ in grants.asks(spec)}

    def fits(word: str) -> bool:
        return word in asks or word.startswith("mount:")

    for word in words:
        if not fits(word):
            raise CommandError(
                "E_PARAM", f"--grant {escape(word)}", f"{spec.name} does not ask for it",
                hints=(f"it asks for {', '.join(sorted(asks)) or 'nothing'}",),
            )  # fmt: skip
    return tuple(dict.fromkeys((*filter(fits, had), *words)))


def _told(spec: TemplateSpec, about: Added, place: Path, console: Console) -> dict[str, object]:
    """Tell of a template that was added: its hash, and what it asks for that nobody granted."""
    console.step(f"{spec.name}: {spec.summary}")
    console.step(f"added to {place / spec.name}, sha256 {about.sha256}")
    for repository in spec.repositories:
        console.note(f"it takes packages from {' '.join(repository.uris)}, with a key of its own")
    for each in spec.downloads:
        console.note(f"it downloads {each.url}, pinned by its hash")
    missing = [(word, what) for word, what in grants.asks(spec) if word not in about.grants]
    for word, what in missing:
        console.note(f"it may want {what}: --grant {word}, at `up` or, for good, here")
    row = {
        **_row(spec),
        "origin": "added",
        "source": about.source,
        "revision": about.revision or None,
    }
    return {
        **row,
        "sha256": about.sha256,
        "grants": list(about.grants),
        "asks": [word for word, _ in missing],
    }


def _remove(words: list[str], request: Request, console: Console) -> int:
    """Remove templates that were brought in."""
    place = library.own_place(request.template_path, os.environ)
    for name in words:
        library.check_name(name)
        added.forget(place, name)
        console.step(f"{name}: removed; containers made of it stay, and cannot be upgraded")
    console.result([{"name": name, "removed": True} for name in words], "")
    return 0
