"""Wanted names + an index → the exact set of packages, in the order in which they can be installed. Pure.

Two stages, as mmdebstrap has them: the closure of the packages marked Essential, then what is wanted on top of it as if
that were installed. Each equals `apt-get --solver internal install`, with or without recommendations.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

from provisioner.conflict import explain
from provisioner.deb.relation import spell
from provisioner.errors import Unresolvable
from provisioner.index import Index, Package
from provisioner.marking import Marker
from provisioner.ordering import chain, ordered
from provisioner.sweep import sweep
from provisioner.universe import Universe
from valuetypes import dataclass

_WANTED = re.compile(
    r"([a-z0-9][a-z0-9+.-]+)(?::([a-z0-9-]+))?(?:=((?:[0-9]{1,9}:)?[0-9A-Za-z.+~:-]{1,240}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class PackageSet:
    """What a container is made of."""

    essential: tuple[Package, ...]  # the Essential closure: all that the base layer holds
    added: tuple[Package, ...]  # what is wanted, and what that needs
    wanted: tuple[str, ...] = ()  # the names that were asked for

    @property
    def packages(self) -> tuple[Package, ...]:
        """All of it, in install order."""
        return self.essential + self.added

    @cached_property
    def digest(self) -> str:
        """SHA256 over name, version, architecture and hash of each package, whatever their order."""
        lines = sorted(
            f"{each.name} {each.version} {each.arch} {each.sha256}\n" for each in self.packages
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def resolve(
    wanted: Sequence[str], index: Index, *, recommends: bool = False, base: bool = True
) -> PackageSet:
    """Return the packages that `wanted` (`name`, `name:arch`, `name=version`) comes to.

    Without `base` the Essential set is left out: for a container of static programs.
    Raise Unresolvable where a name does not exist or where the packages do not fit together.
    """
    with _deep_recursion():
        pinned = [_find(word, index) for word in wanted if "=" in word]
        empty = partial(Universe, index, (), pinned, recommends=False)

        def find() -> tuple[Package, ...]:
            return ordered(_mark(empty, index.essential(), recommends=False))

        essential: tuple[Package, ...] = ()
        if base:
            essential = tuple(find() if pinned else index.base(find))
        whole = partial(Universe, index, essential, pinned, recommends=recommends)

        def find_added() -> tuple[Package, ...]:
            asked = [_find(word, index) for word in wanted]
            return ordered(_mark(whole, asked, recommends=recommends))

        added = tuple(index.recall((*wanted, recommends, base), find_added))
        names = {each.name for each in (*essential, *added)}
        meant = tuple(_meant(word, names, index) for word in wanted)
        return PackageSet(essential=essential, added=added, wanted=meant)


def why(chosen: PackageSet, name: str) -> tuple[str, ...]:
    """Return the chain of reasons for `name`, from what was asked for down to it; empty if it is not in `chosen`."""
    by_name = {each.name: each for each in chosen.packages}
    if name not in by_name:
        return ()
    essential = tuple(each.name for each in chosen.packages if each.essential)
    for roots, reason in ((chosen.wanted, "was asked for"), (essential, "is essential")):
        steps = chain(chosen.packages, roots, name)
        if steps or name in roots:
            root = steps[0][0] if steps else name
            return (
                f"{root} {reason}",
                *(f"{owner} asks for {spell(each)}" for owner, each in steps),
            )
    return (f"{name} is part of the Essential closure",)


def _mark(
    make: Callable[[], Universe], asked: Sequence[Package], *, recommends: bool
) -> tuple[Package, ...]:
    """Return what `asked` adds to a universe."""
    universe = make()
    marker = Marker(universe, recommends=recommends)
    marker.request([package.name for package in asked])
    states = universe.states()
    intact = all(state.install for state in states if state.current)  # then its depends are met
    for state in states:
        if marker.clashes(state) if intact and state.current else marker.broken(state):
            need = next(
                each
                for each in universe.needs(state)
                if each.critical and not marker.met(each, state)
            )
            untouched = make()
            raise explain(
                untouched, [untouched.state(package.name) for package in asked], state, need
            )
    sweep(universe)
    return tuple(
        state.package
        for state in universe.states()
        if state.package and state.install and not state.current
    )


def name_of(word: str) -> str:
    """Return the name in `word`, as `resolve` takes it."""
    return word.partition("=")[0].partition(":")[0]


def _find(word: str, index: Index) -> Package:
    """Return the package that `word` means."""
    found = _WANTED.fullmatch(word)
    if not found:
        raise Unresolvable("E_PARAM", word, "is not a package name, name:arch or name=version")
    name, arch, version = found.groups()
    if arch and arch not in (index.arch, "all", "any", "native"):
        raise Unresolvable("E_NOTFOUND", word, f"no package for {arch} in {index.label()}")
    packages = index.versions(name)
    if version and packages:
        return _at_version(packages, version)
    return packages[0] if packages else _only_provider(name, version, index)


def _meant(word: str, chosen: set[str], index: Index) -> str:
    """Return the name of the `chosen` package that `word` means: that name, unless it is a virtual one."""
    name = name_of(word)
    return name if name in chosen else _find(word, index).name


def _at_version(packages: Sequence[Package], version: str) -> Package:
    for package in packages:
        if package.version == version:
            return package
    there = ", ".join(each.version for each in packages[:5])
    raise Unresolvable("E_NOTFOUND", packages[0].name, f"no version {version}; there is {there}")


def _only_provider(name: str, version: str | None, index: Index) -> Package:
    """Return the one package that provides the virtual `name`; several want a choice, as with apt."""
    providers = index.providers(name)
    if len(providers) == 1 and not version:
        return providers[0]
    if providers:
        names = ", ".join(sorted(each.name for each in providers)[:8])
        raise Unresolvable(
            "E_NOTFOUND", name, f"is virtual, provided by {names}", hints=("name one of these",)
        )
    near = index.nearest(name)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise Unresolvable("E_NOTFOUND", name, f"no package in {index.label()}{meant}")


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Let marks nest as deeply as apt's; calls between Python functions use no C stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
