"""`why`: which chain of dependencies brought a package into a container, and where it came from.

`outdated`: what the archive has newer by now.
"""

from __future__ import annotations

import os
from contextlib import closing

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape, exit_status, meant
from mktemplate.making import asking, locks, origins, recorded, workshop
from mktemplate.making.origins import Groups
from mktemplate.making.recorded import Options
from mktemplate.making.supply import Offer, read_offer
from mktemplate.places import containers_path
from mktemplate.template import library
from provisioner import lock as lock_file
from provisioner.deb import version
from provisioner.index import Package
from provisioner.lock import Lock
from provisioner.resolver import why as chain_to
from provisioner.store import Store
from runtime import bundle
from runtime.bundle import Bundle, Record
from runtime.container import containers
from valuetypes import dataclass

_FOUND = 1  # exit status where something is outdated


def why(request: Request, console: Console) -> int:
    """Tell the reasons for one package, from what was asked for down to it."""
    name, wanted = container_name(request.words[0]), request.words[1]
    held = locks.of_container(bundle.read(containers_path(request) / name))
    package = _find(held, wanted, name)
    reasons = chain_to(held.chosen, package.name)
    value: dict[str, object] = {
        "name": name,
        "package": package.name,
        "version": package.version,
        "arch": package.arch,
        "layer": "base" if package in held.chosen.essential else "service",
        "origin": package.origin,
        "repository": repository(package, held),
        "url": package.url or None,
        "chain": list(reasons),
    }
    where = value["repository"] or "a file that was given"
    head = f"{package.name} {package.version}, from {package.origin}: {where}"
    console.result(value, "\n".join((head, *(f"  {reason}" for reason in reasons))))
    return 0


def repository(package: Package, held: Lock) -> str | None:
    """Return the mirror and suites that a package's archive may be from; None for one that was given as a file."""
    found = [source for source in held.sources if package.url.startswith(f"{source.url}/")]
    if not found:
        return package.url or None
    return f"{found[0].url} {' or '.join(dict.fromkeys(source.suite for source in found))}"


def _find(held: Lock, wanted: str, name: str) -> Package:
    """Return the package that is meant: by its name, or by what it provides."""
    packages = held.chosen.packages
    for package in packages:
        if package.name == wanted.partition(":")[0]:
            return package
    for package in packages:
        if any(provided.name == wanted for provided in package.provides):
            return package
    names = tuple(package.name for package in packages)
    hint = meant(wanted, names, f"mktemplate info {name} --json lists all")
    raise CommandError("E_NOTFOUND", escape(wanted), f"is not in {name}", hints=(hint,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Newer:
    """One package of a container of which the archive has a newer version."""

    name: str
    installed: str
    available: str
    origin: str
    security: bool


def outdated(request: Request, console: Console) -> int:
    """Tell which packages have newer versions in the verified index; exit 1 where there are some."""
    path, status = containers_path(request), 0
    rows: list[dict[str, object]] = []
    shown: list[dict[str, object]] = []
    words = request.words or tuple(each.name for each in containers(path))
    with closing(workshop.store(path)) as store:
        archives = _Archives(request, store, console)
        for word in words:
            try:
                made = bundle.read(path / container_name(word))
                if not request.words and not _has_packages(made.record):
                    continue
                found = archives.newer(made)
            except Exception as failure:
                if not hasattr(failure, "code"):
                    raise
                console.error(failure, to_stdout=False)
                status = status or exit_status(failure.code)
                continue
            rows.append(_row(word, found))
            shown += [{"container": word, **_cells(each)} for each in found]
    columns = ("container", "name", "installed", "available", "origin", "security")
    console.result(rows, console.table(columns, shown) if shown else "")
    return status or (_FOUND if shown else 0)


def _has_packages(record: Record) -> bool:
    """Whether a container is of packages of its own: not of its host's, nor of an image."""
    return bool(record.packages)


def _row(name: str, found: list[Newer]) -> dict[str, object]:
    packages = [
        {
            "name": each.name,
            "installed": each.installed,
            "available": each.available,
            "origin": each.origin,
            "security": each.security,
        }
        for each in found
    ]
    return {"name": name, "packages": packages, "security": sum(each.security for each in found)}


def _cells(each: Newer) -> dict[str, object]:
    return {
        "name": each.name,
        "installed": each.installed,
        "available": each.available,
        "origin": each.origin,
        "security": "security" if each.security else "",
    }


class _Archives:
    """What the sources of containers offer today; what containers have in common is asked once."""

    def __init__(self, request: Request, store: Store, console: Console) -> None:
        self._request = request
        self._store = store
        self._console = console
        self._offers: dict[tuple[Groups, str], Offer] = {}
        self._made: dict[tuple[str, str, Options], Offer] = {}  # by template, lock and options
        self._newer: dict[tuple[int, str, str], Newer | None] = {}  # by offer, name and version

    def newer(self, made: Bundle) -> list[Newer]:
        """Return what there is newer than what the container has."""
        record = made.record
        key = record.template, locks.head_of_container(made), record.options
        offer = self._made.get(key)
        if offer is None:
            offer = self._made[key] = self._offer(made, key[1])
        found = []
        for name, installed, _ in record.packages:
            which = id(offer), name, installed
            if which not in self._newer:
                self._newer[which] = _newest(name, installed, offer)
            if newest := self._newer[which]:
                found.append(newest)
        return found

    def _offer(self, made: Bundle, head: str) -> Offer:
        held = lock_file.read_head(head, str(made.path / locks.NAME))
        build = recorded.build(made.record, self._request)
        place = self._request.template_path or recorded.template_path(made.record)
        template = library.load(made.record.template, place, os.environ)
        groups = origins.groups(
            locks.target_of(held),
            build,
            template.spec.repositories if template else (),
            locks.mirrors(held),
        )
        offer = self._offers.get((groups, held.arch))
        if offer is None:
            offer = read_offer(asking.of(groups), held.arch, build, self._store, self._console)
            self._offers[groups, held.arch] = offer
        return offer


def _newest(name: str, installed: str, offer: Offer) -> Newer | None:
    """Return the newest version of a package, None where that is not newer than the installed one."""
    newest = next(iter(offer.index.versions(name)), None)
    if newest is None or version.compare(installed, newest.version) >= 0:
        return None
    return Newer(
        name=name,
        installed=installed,
        available=newest.version,
        origin=newest.origin,
        security=_is_security(newest, offer),
    )


def _is_security(package: Package, offer: Offer) -> bool:
    """Whether only a -security suite can have brought it."""
    suites = [
        release.source.role
        for release in offer.releases
        if package.url.startswith(f"{release.mirror}/")
    ]
    return bool(suites) and set(suites) == {"security"}
