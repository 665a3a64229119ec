"""In which order preinsts run, and what must be configured before each: Pre-Depends (Policy 7.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioner.index import Clause, Package
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """When a package's preinst runs, and which packages of the same set dpkg must have configured by then."""

    number: int
    before: tuple[str, ...] = ()


def turns(packages: Sequence[Package], *, configured: bool) -> Mapping[str, Turn]:
    """Return each package's turn. Where nothing is `configured` yet, nothing can be before: that is the base."""
    names = {package.name: package for package in packages}
    providers = {
        relation.name: package for package in reversed(packages) for relation in package.provides
    }
    graph = _Graph({**providers, **names})
    found: dict[str, Turn] = {}
    for package in packages:
        _take(package, graph, found)
    if configured:
        return found
    return {name: Turn(number=turn.number) for name, turn in found.items()}


def _take(package: Package, graph: _Graph, found: dict[str, Turn]) -> None:
    """Give `package` its turn, after those that it pre-depends on."""
    before = graph.closure(package)
    for earlier in (*before, package):
        found.setdefault(earlier.name, Turn(number=len(found)))
    names = tuple(each.name for each in before if each.name != package.name)
    found[package.name] = Turn(number=found[package.name].number, before=names)


class _Graph:
    """Who fulfils what, within the set."""

    def __init__(self, offers: Mapping[str, Package]) -> None:
        self._offers = offers

    def closure(self, package: Package) -> tuple[Package, ...]:
        """Return what `package` pre-depends on with all that this needs to be configured, needed ones first."""
        done: dict[str, Package] = {}
        for needed in self._needed(package.pre_depends):
            self._visit(needed, done, set())
        return tuple(done.values())

    def _visit(self, package: Package, done: dict[str, Package], entered: set[str]) -> None:
        if package.name in entered:
            return  # a cycle, which dpkg breaks by itself
        entered.add(package.name)
        for needed in self._needed((*package.pre_depends, *package.depends)):
            if needed.name not in done:
                self._visit(needed, done, entered)
        done[package.name] = package

    def _needed(self, clauses: Sequence[Clause]) -> list[Package]:
        chosen = (
            next((self._offers[a.name] for a in c.alternatives if a.name in self._offers), None)
            for c in clauses
        )
        return [package for package in chosen if package is not None]
