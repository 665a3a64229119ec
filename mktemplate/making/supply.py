"""Where packages come from, for one request: sources → verified releases → index → the chosen set → archives.

A straight line through the provisioner's first half; the request only says where it begins. A lock is the short cut:
it holds the chosen set, so no index is read.
"""

from __future__ import annotations

import os
import time
from calendar import timegm
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mktemplate.cli.parsing import Build
from mktemplate.console import Console
from mktemplate.making import asking, localdeb, locks, origins
from mktemplate.making.asking import Asking
from mktemplate.making.origins import UNVERIFIED
from mktemplate.template.facts import Target
from mktemplate.template.plan import Plan
from provisioner import lock as lock_file
from provisioner import release as releases
from provisioner.deb.index import DebIndex, read_index
from provisioner.deb.trust import Release
from provisioner.download import cached, download
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy
from provisioner.index import Package
from provisioner.lock import Lock, Provenance
from provisioner.progress import SILENT
from provisioner.resolver import PackageSet, resolve
from provisioner.store import Store
from valuetypes import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """The packages that were chosen, and how to get them."""

    chosen: PackageSet
    fetch: HttpFetch
    store: Store
    target: Target
    offline: bool = False
    origins: tuple[Provenance, ...] = ()  # the suites that they were chosen from
    options: tuple[str, ...] = ()  # how they were chosen, as a lock says it
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def slim(self) -> bool:
        """Whether documentation and translations are left out."""
        return "slim" in self.options

    @property
    def sources(self) -> str:
        """What apt inside is to be told, as deb822."""
        return origins.apt_sources(self.origins, self.target, locks.as_of(self.options))

    def download(self, packages: Sequence[Package], console: Console) -> None:
        """Bring the archives into the store's cache."""
        download(packages, self.store.cache, self.fetch, console, offline=self.offline)

    def prefetch(self, packages: Sequence[Package]) -> None:
        """Do as `download` in a copy of this process: over connections of its own, and telling nobody."""
        self.fetch.close()
        download(packages, self.store.cache, self.fetch, SILENT, offline=self.offline)

    def tell(self, console: Console) -> None:
        """Say what the user should know of where the packages are from."""
        for warning in self.warnings:
            console.warning(warning)
        for note in self.notes:
            console.note(note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the verified sources of one run hold together."""

    index: DebIndex
    releases: tuple[Release, ...]
    fetch: HttpFetch


def supply(plan: Plan, build: Build, store: Store, console: Console, asked: Asking) -> Supply:
    """Return the packages that `plan` comes to: from a lock where one was given, else from what is `asked` for.

    The Essential set is among them unless the plan is of one static program.
    """
    target, base = plan.facts.target, not plan.spec.static
    store.prepare()
    names, local = localdeb.take(plan.rendered.packages, target.arch, store)
    if build.lock:
        return _locked(names, target, build, store, console)
    offer = read_offer(asked, target.arch, build, store, console, local)
    with _closed_on_failure(offer.fetch), timed(console, "resolve"):
        chosen = resolve(names, offer.index, recommends=build.recommends, base=base)
    stale = [note for each in offer.releases for note in each.notes if "accepted as asked" in note]
    unverified = UNVERIFIED in build.grants
    return Supply(
        chosen=chosen,
        fetch=offer.fetch,
        store=store,
        target=target,
        offline=build.offline,
        origins=tuple(map(lock_file.provenance, offer.releases)),
        options=locks.options(build),
        notes=tuple(note for each in offer.releases for note in each.notes if note not in stale),
        warnings=(
            *stale,
            *((f"{UNVERIFIED}: nothing vouches for these packages",) if unverified else ()),
        ),
        degraded=(UNVERIFIED,) if unverified else (),
        timings=console.timings,
    )


def read_offer(
    asked: Asking,
    arch: str,
    build: Build,
    store: Store,
    console: Console,
    local: Sequence[Package] = (),
) -> Offer:
    """Return what the suites that are `asked` offer, each one verified, and files that were given beside them."""
    fetch = asked.fetch
    with _closed_on_failure(fetch), timed(console, "index"):
        found, files = releases.read_suites(
            asked.groups, fetch, store.path, _policy(build), offline=build.offline
        )
        index = read_index(files, store.cache / "lists", arch, local=local)
    return Offer(index=index, releases=found, fetch=fetch)


@contextmanager
def _closed_on_failure(fetch: HttpFetch) -> Iterator[None]:
    """Close connections that nobody will use where the block fails."""
    try:
        yield
    except BaseException:
        fetch.close()
        raise


def _policy(build: Build) -> Policy:
    """Return what counts as fresh; with --as-of it is judged as on that day, and expiry is a note (R-3)."""
    now = time.time()
    if build.as_of:
        now = min(now, float(timegm(time.strptime(build.as_of, "%Y%m%dT%H%M%SZ"))))
    days = origins.allowed_days(build, os.environ)
    return Policy(now=now, allow_stale_days=days, hashes_decide=bool(build.as_of))


def _locked(
    names: Sequence[str], target: Target, build: Build, store: Store, console: Console
) -> Supply:
    """Return what a lock holds; what is kept beside it comes into the cache."""
    from provisioner import keep

    lock = locks.read_file(build.lock)
    locks.check_holds(lock, names, build)
    with timed(console, "index"), store.lock("downloads", shared=True):
        keep.restore(lock, beside=locks.beside(build.lock), cache=store.cache)
    return Supply(
        chosen=lock.chosen,
        fetch=HttpFetch(os.environ),
        store=store,
        target=target,
        offline=build.offline,
        origins=lock.sources,
        options=lock.options,
        timings=console.timings,
    )


def to_lock(got: Supply, epoch: int) -> Lock:
    """Return what a lock keeps of a supply; `epoch` is the latest time inside the layers, 0 where none were built."""
    return Lock(
        tool=locks.tool(),
        distro=got.target.distro,
        release=got.target.release,
        arch=got.target.arch,
        epoch=epoch,
        options=got.options,
        sources=got.origins,
        chosen=got.chosen,
    )


def renewed(old: Lock, build: Build, store: Store, console: Console) -> Lock:
    """Return the lock that today's verified indexes give for what `old` was asked for."""
    store.prepare()
    target = locks.target_of(old)
    build = replace(build, recommends="recommends" in old.options, slim="slim" in old.options)
    groups = origins.groups(target, build, (), locks.mirrors(old))
    locks.check_repositories(old, groups)
    local = [package for package in old.chosen.packages if not package.url]
    versions = {package.name: package.version for package in local}
    offer = read_offer(asking.of(groups), target.arch, build, store, console, local)
    wanted = [
        f"{name}={versions[name]}" if name in versions else name for name in old.chosen.wanted
    ]
    with timed(console, "resolve"):
        chosen = resolve(wanted, offer.index, recommends=build.recommends)
    return replace(
        old,
        tool=locks.tool(),
        epoch=old.epoch if chosen.digest == old.chosen.digest else 0,
        options=locks.options(build),
        sources=tuple(map(lock_file.provenance, offer.releases)),
        chosen=chosen,
        files=(),
    )


class timed:  # noqa: N801  # reads as a word at its use: with timed(…)
    """Add what the body takes to the console's timings; these phases are too short for a bar."""

    def __init__(self, console: Console, name: str) -> None:
        """Tell of the phase `name` on `console`."""
        self._console = console
        self._name = name
        self._start = 0.0

    def __enter__(self) -> None:
        """Begin it."""
        self._start = time.monotonic()
        if not self._console.terminal:
            self._console.step(self._name)

    def __exit__(self, *_: object) -> None:
        """Count it."""
        spent = time.monotonic() - self._start
        self._console.timings[self._name] = self._console.timings.get(self._name, 0.0) + spent


def is_cached(package: Package, store: Store) -> bool:
    """Whether the archive of `package` is in the store already."""
    return cached(package, store.cache) is not None
