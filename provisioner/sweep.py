"""What a failed alternative left behind: new packages that nothing which stays asks for (apt's MarkAndSweep)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from provisioner.index import Relation
from provisioner.universe import State, Universe


def sweep(universe: Universe) -> None:
    """Unmark the new packages of `universe` that no package which stays depends on, recommends or suggests."""
    staying = [state for state in universe.states() if state.install]
    fresh = {state for state in staying if not state.current}
    if not fresh - _reached(universe, fresh, suggests=False):
        return  # so it is mostly, and then nobody needs to look at what is installed
    if fresh - _reached(universe, staying, suggests=False):
        for state in fresh - _reached(universe, staying, suggests=True):
            state.install = False
            state.mode = 0  # marking.KEEP


def _reached(universe: Universe, among: Iterable[State], *, suggests: bool) -> set[State]:
    """Return what the roots in `among` lead to, themselves included."""
    queue = [state for state in among if _is_root(state)]
    reached = set(queue)
    for state in queue:  # which grows
        for relation in _relations(state, suggests=suggests):
            found = [each for each in universe.known(universe.option(relation)) if each.install]
            settled = [each for each in found if each.current]  # these suffice
            for each in settled if len(found) > 1 and settled else found:
                if each not in reached:
                    reached.add(each)
                    queue.append(each)
    return reached


def _is_root(state: State) -> bool:
    return not state.auto or state.essential or state.protected or state.protect


def _relations(state: State, *, suggests: bool) -> Iterator[Relation]:
    package = state.package
    if package:
        for clauses in (package.pre_depends, package.depends, package.recommends):
            for clause in clauses:
                yield from clause.alternatives
        for clause in package.suggests if suggests else ():
            yield from clause.alternatives
