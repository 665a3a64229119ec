"""Where packages come from, for one request: sources → verified releases → index → the chosen set → archives.

A straight line through the provisioner's first half; the request only says where it begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mktemplate import localdeb
from mktemplate.cli import Build
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.facts import Target
from provisioner import distro as distros
from provisioner import release as releases
from provisioner import sources
from provisioner.deb.index import IndexFile, read_index
from provisioner.deb.trust import Release
from provisioner.download import download
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy
from provisioner.index import Package
from provisioner.resolver import PackageSet, resolve
from provisioner.sources import Source
from provisioner.store import Store
from provisioner.workers import in_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """The packages that were chosen, and how to get them."""

    chosen: PackageSet
    fetch: HttpFetch
    store: Store
    offline: bool = False
    sources: str = ""  # deb822, for apt inside
    notes: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def download(self, packages: Sequence[Package], console: Console) -> None:
        """Bring the archives into the store's cache."""
        download(packages, self.store.cache, self.fetch, console, offline=self.offline)


def supply(
    wanted: Sequence[str], target: Target, build: Build, store: Store, console: Console
) -> Supply:
    """Return the packages that `wanted` comes to, from verified indexes only."""
    store.prepare()
    fetch = HttpFetch(os.environ)
    groups = _sources(target, build)
    with _timed(console, "index"):
        found = releases.verified_releases(
            groups,
            fetch,
            store.path,
            Policy(now=time.time(), allow_stale_days=build.allow_stale),
            offline=build.offline,
        )
        files = _index_files(found, fetch, store, offline=build.offline)
        names, local = localdeb.take(wanted, store)
        index = read_index(files, store.cache / "lists", target.arch, local=local)
    with _timed(console, "resolve"):
        chosen = resolve(names, index, recommends=build.recommends)
    return Supply(
        chosen=chosen,
        fetch=fetch,
        store=store,
        offline=build.offline,
        sources=_apt_sources(found, target),
        notes=tuple(note for release in found for note in release.notes),
        degraded=("trust:none",) if "trust:none" in build.grants else (),
        timings=console.timings,
    )


class _timed:  # noqa: N801  # reads as a word at its use: with _timed(…)
    """Add what the body takes to the console's timings; these phases are too short for a bar."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()
        if not self._console.terminal:
            self._console.step(self._name)

    def __exit__(self, *_: object) -> None:
        spent = time.monotonic() - self._start
        self._console.timings[self._name] = self._console.timings.get(self._name, 0.0) + spent


def _sources(target: Target, build: Build) -> tuple[tuple[Source, ...], ...]:
    row = distros.find(target.distro)
    groups = sources.choose(
        row,
        target.release,
        target.arch,
        mirror=sources.asked_mirror(build.mirror, os.environ, ""),
        host=sources.host_mirrors(),
        keyring=Path(build.keyring) if build.keyring else None,
    )
    for file in build.repos:
        groups += sources.parse_repository(_read(file), target.arch, where=file)
    if "trust:none" in build.grants:
        groups = tuple(
            tuple(replace(source, unverified=True) for source in group) for group in groups
        )
    return groups


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(1 << 20)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError("E_PARAM", f"--repo {escape(file)}", escape(str(error))) from None


def _index_files(
    found: Sequence[Release], fetch: HttpFetch, store: Store, *, offline: bool
) -> list[IndexFile]:
    lists = store.cache / "lists"
    wanted = [
        (release, component, arch)
        for release in found
        for component in release.source.components
        for arch in release.index_arches
        if release.index(component, arch)
    ]

    def get(item: tuple[Release, str, str]) -> IndexFile:
        release, component, arch = item
        path = releases.fetch_index(release, component, arch, fetch, lists, offline=offline)
        named = release.index(component, arch)
        plain = release.plain_index(component, arch)
        if named is None or plain is None:
            raise CommandError(
                "E_TRUST_COMPONENT", release.source.name, f"signs no plain Packages for {component}"
            )
        third_party = release.source.role == "extra"
        return IndexFile(
            path=path,
            sha256=named[1],
            plain_size=plain[1],
            plain_sha256=plain[0],
            base_url=release.mirror,
            origin=release.origin,
            suite=release.source.suite,
            component=component,
            only=(release.source.only or ()) if third_party else None,
        )

    return in_threads(get, wanted)


def _apt_sources(found: Sequence[Release], target: Target) -> str:
    """Return the deb822 text that lets apt inside go on from where its packages came (sources.list(5))."""
    row = distros.find(target.distro)
    keyring = row.keyring_files[0] if row.keyring_files else ""
    stanzas = []
    for url in dict.fromkeys(release.mirror for release in found if release.source.distro):
        suites = [release.source.suite for release in found if release.mirror == url]
        components = dict.fromkeys(
            part for release in found if release.mirror == url for part in release.source.components
        )
        stanzas.append(
            f"Types: deb\nURIs: {url}\nSuites: {' '.join(suites)}\n"
            f"Components: {' '.join(components)}\n" + (f"Signed-By: {keyring}\n" if keyring else "")
        )
    return "\n".join(stanzas)


def is_cached(package: Package, store: Store) -> bool:
    """Whether the archive of `package` is in the store already."""
    from provisioner.download import cached

    return cached(package, store.cache) is not None
