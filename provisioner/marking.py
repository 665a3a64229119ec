"""The rules of apt's internal solver: how marking one package for installation marks what it needs.

This follows pkgDepCache::MarkInstall of apt 3.0 (apt-pkg/depcache.cc) step by step, so that a plan equals what `apt-get
--solver internal install` would do. It is no search: alternatives are tried in their order, real packages before
providers, and what a failed alternative marked on its way stays marked until `sweep` drops what nothing needs.

In a root that we make ourselves a name has one version: the one that is installed, is the one that could be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby

from provisioner.universe import Need, Option, State, Universe

KEEP, INSTALL, DELETE = range(3)
_PRIORITY = {"": 0, "required": 1, "important": 2, "standard": 3, "optional": 4}
_DEEPEST = 3000  # nested marks, where apt gives up


class Marker:
    """Marks packages for installation in a universe where some are installed."""

    def __init__(self, universe: Universe, *, recommends: bool) -> None:
        """Take the states of `universe` as they are."""
        self.universe = universe
        self.requested: list[State] = []
        self._needs = universe.needs
        self._recommends = recommends

    def request(self, names: Sequence[str]) -> None:
        """Mark `names` as a person who asks for them does: all first, then what each of them needs."""
        for name in names:
            state = self.universe.state(name)
            state.protect = True
            self.requested.append(state)
            self.mark(state, auto=False, user=True)
        for state in self.requested:
            self.mark(state, user=True)

    def met(self, need: Need, owner: State) -> bool:
        """Tell whether what will be installed satisfies `need`, or does not violate it."""
        if need.negative:
            return not any(self._rivals(need, owner))
        for option in need.options:
            for state in option.solutions:
                if state.install:
                    return True
        return False

    def broken(self, state: State, *, policy: bool = False) -> bool:
        """Tell whether a need of what will be installed of `state` is not met."""
        if not state.install:
            return False
        for need in self._needs(state):
            if (need.critical or (policy and self._recommends)) and not self.met(need, state):
                return True
        return False

    def clashes(self, state: State) -> bool:
        """Tell whether something that will be installed violates a need of what is installed of `state`."""
        return any(not self.met(need, state) for need in self.universe.rivalries(state))

    def mark(self, state: State, *, auto: bool = True, depth: int = 0, user: bool = False) -> bool:
        """Mark `state` for installation, with `auto` all that it needs; False where that cannot be."""
        settled = state.protect and state.mode == KEEP and state.candidate and state.current
        if not (settled or self._may(state, INSTALL, depth, user)) or not state.candidate:
            return False
        if not state.protect and not self.broken(state, policy=True):
            if state.current:
                return state.install or self.keep(state, depth=depth)
            if state.mode == INSTALL:
                return True
        if not self._possible(state, auto):
            return False
        if user or not auto:
            self._take(state, user)
        return not auto or self._mark_needs(state, depth, user)

    def keep(self, state: State, *, depth: int = 0) -> bool:
        """Leave `state` as it is installed, or not installed."""
        if not self._may(state, KEEP, depth, False):
            return False
        if state.mode != KEEP:
            self._set(state, KEEP, state.current)
        return True

    def delete(self, state: State, *, depth: int = 0) -> bool:
        """Mark `state` for removal."""
        if not self._may(state, DELETE, depth, False):
            return False
        if state.mode == DELETE or not state.install:
            return True
        if not state.current and not state.auto:
            return False
        self._set(state, DELETE if state.current else KEEP, False)
        return True

    def candidates(self, need: Need) -> list[list[State]]:
        """Return the candidates that satisfy `need`, best first: installed ones, then alternative by alternative.

        Those in one list are equal but for apt's package ID, which is looked up only when one of them is to be chosen.
        """
        installed: list[list[State]] = []
        fresh: list[list[State]] = []
        for option in need.options:
            found = [state for state in option.solutions if state.candidate]
            for equals in self._ranked(found, option.name) if len(found) > 1 else [found]:
                allowed = [state for state in equals if not _excluded(state)]
                if allowed:
                    (installed if allowed[0].current else fresh).append(allowed)
        return [each for each, _ in groupby(installed + fresh)]  # twice in a row counts once

    def _ranked(self, found: list[State], name: str) -> Iterator[list[State]]:
        def rank(state: State) -> tuple[bool | int, ...]:
            return _rank(state, name)

        return (list(equals) for _, equals in groupby(sorted(found, key=rank), rank))

    # What follows is in the order in which `mark` comes by it.

    def _may(self, state: State, mode: int, depth: int, user: bool) -> bool:
        """Tell whether `state` may change to `mode` (IsModeChangeOk)."""
        if depth > _DEEPEST or state.package is None:
            return False
        if user or state.mode == mode:
            return True
        return not state.protect and not (mode == DELETE and (state.essential or state.protected))

    def _possible(self, state: State, auto: bool) -> bool:
        """Tell whether candidates could meet every hard need; `state` is no candidate any more where not."""
        if not auto or state.current:
            return True
        for need in self._needs(state):
            if need.negative or not need.critical or any(map(self._conceivable, need.options)):
                continue
            if not state.protect:
                self.universe.discard(state)
                state.mode = state.mode if state.mode == DELETE else KEEP
            return False
        return True

    def _conceivable(self, option: Option) -> bool:
        """Tell what apt remembers: a discarded candidate counts until something that `option` may mean changes."""
        for state in option.solutions:
            if state.candidate or state.install or self.universe.remembers(state, option.key):
                return True
        return False

    def _take(self, state: State, user: bool) -> None:
        """Decide for `state` (MarkInstall_StateChange)."""
        if state.protect and state.install == state.candidate:
            return
        if not state.current:
            state.auto = not user
        self._set(state, KEEP if state.current else INSTALL, True)

    def _mark_needs(self, state: State, depth: int, user: bool) -> bool:
        fail_early = not state.protect and not user
        wants, rivals = self._collect(state)
        removals: list[State] = []
        good = self._clear(state, rivals, depth, user, removals)
        if not good and fail_early:
            return False
        if not user:
            self._take(state, user)
        already = state.protect
        state.protect = True  # until all of this is done
        try:
            good = self._install(state, wants, depth, user, already) and good
            if good or not fail_early:
                good = all([self.delete(rival, depth=depth) for rival in removals]) and good
            if not good and fail_early:
                self._give_up(state)
        finally:
            state.protect = already
        return good

    def _collect(self, owner: State) -> tuple[list[Need], list[Need]]:
        """Return the needs of `owner` to install for and those to clear rivals for."""
        wants: list[Need] = []
        rivals: list[Need] = []
        for need in self._needs(owner):
            if (need.critical or self._recommends) and (owner.protect or not self.met(need, owner)):
                (rivals if need.negative else wants).append(need)
        return wants, rivals

    def _rivals(self, need: Need, owner: State) -> Iterator[State]:
        """Return what will be installed and violates `need`; nothing conflicts with itself."""
        for state in self.universe.known(need.options[0]):
            if state.install and state is not owner:
                yield state

    def _clear(
        self, owner: State, rivals: list[Need], depth: int, user: bool, removals: list[State]
    ) -> bool:
        """Keep out, or list for removal, what `owner` conflicts with (MarkInstall_RemoveConflicts…)."""
        good = True
        propagate = owner.protect
        for need in rivals:
            if propagate:
                self.universe.ban(need.options[0], owner)  # what nobody has looked at yet
            for rival in self.universe.known(need.options[0]):
                if rival is owner or not rival.candidate:
                    continue
                if not self._oust(rival, propagate, depth, removals):
                    good = False
                    if not propagate and not user:
                        return False
        return good

    def _oust(self, rival: State, propagate: bool, depth: int, removals: list[State]) -> bool:
        if rival.current:
            return self._remove(rival, propagate, depth, removals)
        if rival.mode == INSTALL and not self.keep(rival, depth=depth):
            return False
        if propagate:
            self.universe.discard(rival)
            rival.protect = True
        return True

    def _remove(self, rival: State, propagate: bool, depth: int, removals: list[State]) -> bool:
        if propagate:
            if rival.mode != DELETE and not self.delete(rival, depth=depth + 1):
                return False
            self.universe.discard(rival)
            rival.protect = True
            return True
        if rival.mode == DELETE:
            return True
        if not self._may(rival, DELETE, depth, False):
            return False
        removals.append(rival)
        return True

    def _install(
        self, owner: State, wants: list[Need], depth: int, user: bool, propagate: bool
    ) -> bool:
        """Mark what meets `wants` (MarkInstall_InstallDependencies)."""
        good = True
        for need in wants:
            if self.met(need, owner):
                good = (not propagate or self._pass_on(need, depth)) and good
                continue
            if owner.current and not need.critical:
                continue  # an installed package's open recommendations stay open
            if not self._first(need, depth, propagate) and need.critical:
                good = False
                if not propagate and not user:
                    return False
        return good

    def _pass_on(self, need: Need, depth: int) -> bool:
        """Protect the only thing that meets `need`, now that it is met already."""
        if not need.critical:
            return True
        found = {
            state
            for option in need.options
            for state in option.solutions
            if (state.candidate or state.current) and not _excluded(state)
        }
        if len(found) != 1:
            return True
        only = found.pop()
        if only.protect:
            return True
        only.protect = True
        return self.mark(only, depth=depth + 1)

    def _first(self, need: Need, depth: int, propagate: bool) -> bool:
        """Mark the first solution of `need` that can be."""
        found = self.candidates(need)
        alone = sum(map(len, found)) == 1
        for state in chain.from_iterable(map(self._by_number, found)):
            if not state.candidate:
                continue  # any more
            if propagate and need.critical and alone:
                if not self.mark(state, auto=False, depth=depth + 1):
                    continue
                state.protect = True
            if self.mark(state, depth=depth + 1):
                return True
        return False

    def _give_up(self, state: State) -> None:
        """Undo the mark of `state` and let it be no candidate any more (MarkInstall_DiscardInstall)."""
        if state.mode == KEEP and state.install and state.current:
            return
        self._set(state, KEEP, state.current)
        if not state.install:
            self.universe.discard(state)

    def _set(self, state: State, mode: int, install: bool) -> None:
        state.mode = mode
        state.install = install
        self.universe.touch(state)

    def _by_number(self, equals: list[State]) -> list[State]:
        """Return `equals` by descending package ID, as apt's CompareProviders ends."""
        return equals if len(equals) == 1 else sorted(equals, key=self.universe.order, reverse=True)


def _rank(state: State, name: str) -> tuple[bool | int, ...]:
    """Return what apt's CompareProviders sorts by, but for the package ID."""
    return (
        not state.protect,
        not (state.current and state.package and state.package.multi_arch == "same"),
        not state.current,
        state.name != name,
        not state.essential,
        not state.protected,
        _PRIORITY.get(state.package.priority if state.package else "", 5),
    )


def _excluded(state: State) -> bool:
    """Tell whether `state` is bound not to be installed."""
    return state.protect and (state.mode == DELETE or (state.mode == KEEP and not state.current))
