"""What a failed alternative left behind: new packages that nothing which stays asks for (apt's MarkAndSweep)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provisioner.index import Clause
from provisioner.marking import KEEP, Marker, State, Version


def sweep(marker: Marker) -> None:
    """Unmark the new packages of `marker` that no other package depends on, recommends or suggests."""
    fresh = {state for state in marker.universe.states() if state.install and not state.current}
    if not fresh - _reached(marker, suggests=False):
        return
    for state in fresh - _reached(marker, suggests=True):
        state.install = None
        state.mode = KEEP


def _reached(marker: Marker, *, suggests: bool) -> set[State]:
    roots = [state for state in marker.universe.states() if state.install and _is_root(state)]
    reached = set(roots)
    while roots:
        version = roots.pop().install
        for found in _followed(marker, version, suggests=suggests) if version else ():
            if found.state not in reached:
                reached.add(found.state)
                roots.append(found.state)
    return reached


def _is_root(state: State) -> bool:
    return not state.auto or state.essential or state.protected or state.protect


def _followed(marker: Marker, version: Version, *, suggests: bool) -> Iterator[Version]:
    """Return what will be installed and meets some alternative of `version`."""
    package = version.package
    for clauses in (package.pre_depends, package.depends, package.recommends):
        yield from _meeting(marker, clauses)
    if suggests:
        yield from _meeting(marker, package.suggests)


def _meeting(marker: Marker, clauses: Iterable[Clause]) -> Iterator[Version]:
    for clause in clauses:
        for relation in clause.alternatives:
            found = [
                each
                for each in marker.universe.option(relation).solutions
                if each.state.install is each
            ]
            settled = [each for each in found if each.state.current]  # these suffice
            yield from settled if len(found) > 1 and settled else found
