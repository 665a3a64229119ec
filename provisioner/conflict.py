"""Why packages do not fit together: the dependency that nothing can meet, or the chains that lead to two rivals."""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.deb.relation import spell
from provisioner.errors import Unresolvable
from provisioner.universe import Need, State, Universe

_VERBS = {
    "Pre-Depends": "depends on",
    "Depends": "depends on",
    "Recommends": "recommends",
    "Conflicts": "conflicts with",
    "Breaks": "breaks",
}


class _Forced:
    """What follows from what was asked for without any choice, and how."""

    def __init__(self, universe: Universe, asked: Sequence[State]) -> None:
        self.universe = universe
        self.asked = set(asked)
        installed = [state for state in universe.states() if state.current]
        self.came: dict[State, State | None] = dict.fromkeys((*asked, *installed))
        self.hopeless: tuple[State, Need] | None = None
        queue = list(self.came)
        for state in queue:  # which grows
            for need in universe.needs(state):
                if need.negative or not need.critical:
                    continue
                found = _possible(need)
                if not found and self.hopeless is None:
                    self.hopeless = state, need
                for only in found if len(found) == 1 else ():
                    if only not in self.came:
                        self.came[only] = state
                        queue.append(only)

    def rivals(self) -> tuple[State, Need, State] | None:
        """Return a package, its conflict, and the other that must be there too."""
        for state in self.came:
            for need in self.universe.needs(state):
                for rival in self.universe.known(need.options[0]) if need.negative else ():
                    if rival in self.came and rival is not state:
                        return state, need, rival
        return None

    def chain(self, state: State) -> str:
        """Return how `state` came in, as a person reads it."""
        names = []
        at: State | None = state
        while at is not None:
            names.append(at.name)
            root = at
            at = self.came[at]
        reason = "asked for" if root in self.asked else "part of every container"
        return f"{' → '.join(reversed(names))} ({names[-1]} is {reason})"


def explain(universe: Universe, asked: Sequence[State], broken: State, need: Need) -> Unresolvable:
    """Return what to raise for `asked` in an untouched `universe`; `broken` and its `need` are where marking ended."""
    forced = _Forced(universe, asked)
    if forced.hopeless:
        owner, missing = forced.hopeless
        return Unresolvable(
            "E_NOTFOUND",
            owner.name,
            f"{_VERBS[missing.kind]} {_spell(missing)}, {_newest(universe, missing)}",
            hints=(f"it comes in by {forced.chain(owner)}",),
        )
    rivals = forced.rivals()
    if rivals:
        one, conflict, other = rivals
        return Unresolvable(
            "E_PARAM",
            one.name,
            f"{_VERBS[conflict.kind]} {_spell(conflict)}{_is(other, conflict)}; they cannot be together",
            hints=tuple(f"{each.name} comes in by {forced.chain(each)}" for each in (one, other)),
        )
    return Unresolvable(
        "E_PARAM",
        broken.name,
        f"{_VERBS[need.kind]} {_spell(need)}, which does not fit with the rest of what was asked for",
        hints=tuple(
            f"{state.name} cannot be added to {', '.join(sorted(each.name for each in asked))}"
            for state in _possible(need)[:2]
        ),
    )


def _possible(need: Need) -> list[State]:
    return list(dict.fromkeys(state for option in need.options for state in option.solutions))


def _spell(need: Need) -> str:
    return " | ".join(spell(option.relation) for option in need.options)


def _is(other: State, conflict: Need) -> str:
    asked = conflict.options[0].relation.name
    if asked == other.name:
        return f" ({other.package.version} is chosen)" if other.package else ""
    return f", which {other.name} provides"


def _newest(universe: Universe, need: Need) -> str:
    """Return what there is instead of what `need` asks for."""
    for option in need.options:
        for package in universe.index.versions(option.relation.name)[:1]:
            return f"newest is {package.version}"
        for package in universe.index.providers(option.relation.name)[:1]:
            return f"{package.name} provides another version"
    return f"which is not in {universe.index.label()}"
