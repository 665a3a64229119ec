"""The rules of apt's internal solver: how marking one package for installation marks what it needs.

This follows pkgDepCache::MarkInstall of apt 3.0 (apt-pkg/depcache.cc) step by step, so that a plan equals what `apt-get
--solver internal install` would do. It is no search: alternatives are tried in their order, real packages before
providers, and what a failed alternative marked on its way stays marked until `sweep` drops what nothing needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.index import Clause, Index, Package, Relation

KEEP, INSTALL, DELETE = range(3)
_PRIORITY = {"": 0, "required": 1, "important": 2, "standard": 3, "optional": 4}
_DEEPEST = 3000  # nested marks, where apt gives up


class State:
    """One package name while marking: what is installed, what could be, what shall be."""

    __slots__ = (
        "auto",
        "candidate",
        "current",
        "essential",
        "install",
        "mode",
        "name",
        "protect",
        "protected",
    )

    def __init__(self, name: str) -> None:
        """Start with a name that nothing is known of."""
        self.name = name
        self.candidate: Version | None = None  # the version that would be installed
        self.current: Version | None = None  # the version that is installed
        self.install: Version | None = None  # the version that will be installed in the end
        self.mode = KEEP
        self.protect = False  # asked for, or the only way to what was
        self.auto = True  # installed because of another package
        self.essential = False
        self.protected = False  # the archive's `Protected: yes`


class Version:
    """One version of one package, with its dependencies in the order in which apt looks at them."""

    __slots__ = ("needs", "package", "state")

    def __init__(self, package: Package, state: State) -> None:
        """Belong to `state`."""
        self.package = package
        self.state = state
        self.needs: tuple[Need, ...] | None = None


class Option:
    """One alternative of a need."""

    __slots__ = ("_solutions", "_universe", "key", "name", "relation")

    def __init__(self, key: str, relation: Relation, universe: Universe) -> None:
        """Stand for `relation`."""
        self.key = key
        self.name = "" if relation.qualifier else relation.name  # the real package that comes first
        self.relation = relation
        self._universe = universe
        self._solutions: tuple[Version, ...] | None = None

    @property
    def solutions(self) -> tuple[Version, ...]:
        """The versions that satisfy it, whether or not they are candidates."""
        if self._solutions is None:
            self._solutions = self._universe.solutions(self.relation)
        return self._solutions


class Need:
    """One clause of a version: Pre-Depends, Depends, Recommends, or one relation of Conflicts or Breaks."""

    __slots__ = ("critical", "kind", "negative", "options")

    def __init__(self, kind: str, options: tuple[Option, ...]) -> None:
        """Be of `kind`, the field's name."""
        self.kind = kind
        self.options = options
        self.negative = kind in ("Conflicts", "Breaks")
        self.critical = kind != "Recommends"

    def solutions(self, owner: State) -> Iterable[Version]:
        """Return the versions that satisfy (or violate) it; nothing conflicts with itself."""
        for option in self.options:
            for version in option.solutions:
                if not self.negative or version.state is not owner:
                    yield version


class Universe:
    """The packages of an index as states, versions and needs, made when first met."""

    def __init__(self, index: Index, chosen: Sequence[Package]) -> None:
        """Prefer the versions `chosen` where an index offers several."""
        self.index = index
        self._states: dict[str, State] = {}
        self._versions: dict[int, Version] = {}
        self._options: dict[tuple[str, str, str], Option] = {}
        self._chosen = {package.name: package for package in chosen}

    def state(self, name: str) -> State:
        """Return the one state of `name`."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = State(name)
            packages = self.index.versions(name)
            if packages:
                candidate = self._chosen.get(name, packages[0])
                state.candidate = self._versions[id(candidate)] = Version(candidate, state)
                state.essential = name == "apt" or any(each.essential for each in packages)
                state.protected = any(each.protected for each in packages)
        return state

    def states(self) -> list[State]:
        """Return every state met so far."""
        return list(self._states.values())

    def version(self, package: Package) -> Version:
        """Return the one Version of `package`."""
        state = self.state(package.name)  # which may make its candidate's Version
        version = self._versions.get(id(package))
        if version is None:
            version = self._versions[id(package)] = Version(package, state)
        return version

    def needs(self, version: Version) -> tuple[Need, ...]:
        """Return the needs of `version`: Pre-Depends, Depends, Conflicts, Breaks, Recommends."""
        if version.needs is None:
            package = version.package
            version.needs = (
                *self._clauses("Pre-Depends", package.pre_depends),
                *self._clauses("Depends", package.depends),
                *(Need("Conflicts", (self.option(each),)) for each in package.conflicts),
                *(Need("Breaks", (self.option(each),)) for each in package.breaks),
                *self._clauses("Recommends", package.recommends),
            )
        return version.needs

    def option(self, relation: Relation) -> Option:
        """Return the one Option of `relation`."""
        key = f"{relation.name}:{relation.qualifier}" if relation.qualifier else relation.name
        known = self._options.get((key, relation.operator, relation.version))
        if known is None:
            known = Option(key, relation, self)
            self._options[key, relation.operator, relation.version] = known
        return known

    def solutions(self, relation: Relation) -> tuple[Version, ...]:
        """Return the versions that satisfy `relation`, a package of that name first."""
        holds, operator, wanted = self.index.satisfies, relation.operator, relation.version
        found = dict.fromkeys(
            version
            for version, offered in self._members(relation.name, relation.qualifier)
            if holds(offered, operator, wanted)
        )
        return tuple(found)

    def keys(self, version: Version) -> list[str]:
        """Return every name that `version` answers to."""
        package = version.package
        names = [package.name, *(each.name for each in package.provides)]
        return [key for name in names for key in (name, f"{name}:any", f"{name}:native")]

    def _clauses(self, kind: str, clauses: tuple[Clause, ...]) -> Iterable[Need]:
        for clause in clauses:
            yield Need(kind, tuple(map(self.option, clause.alternatives)))

    def _members(self, name: str, qualifier: str) -> Iterable[tuple[Version, str]]:
        """Return (version, the version number it offers) for the package `name` and its providers.

        `name:any` is met by a package that is Multi-Arch: allowed, or by what provides `name` and is so itself.
        """
        if qualifier not in ("", "any", "native", self.index.arch):
            return
        for package in self.index.versions(name):
            if qualifier != "any" or package.multi_arch == "allowed":
                yield self.version(package), package.version
        for package in self._providers(name):
            for provided in package.provides:
                if provided.name != name:
                    continue
                allowed = package.multi_arch == "allowed" or provided.qualifier == "any"
                if allowed if qualifier == "any" else provided.qualifier != "any":
                    yield self.version(package), provided.version

    def _providers(self, name: str) -> Iterable[Package]:
        for package in self.index.providers(name):
            if package.name not in self._chosen:
                yield package
        yield from self._chosen.values()


class Marker:
    """Marks packages for installation on top of `installed` ones."""

    def __init__(
        self, universe: Universe, installed: Sequence[Package], *, recommends: bool
    ) -> None:
        """Take the states of `universe` as they are and add what is installed."""
        self.universe = universe
        self.needs = universe.needs
        self._recommends = recommends
        self._stale: dict[str, set[Version]] = {}
        self.requested: list[State] = []
        for package in installed:
            state = universe.state(package.name)
            state.current = state.install = universe.version(package)
            state.auto = False

    def request(self, packages: Sequence[Package]) -> None:
        """Mark `packages` as a person who asks for them does: all first, then what each of them needs."""
        for package in packages:
            state = self.universe.state(package.name)
            state.candidate = self.universe.version(package)
            state.protect = True
            self.requested.append(state)
            self.mark(state, auto=False, user=True)
        for state in sorted(set(self.requested), key=self.order):
            self.mark(state, user=True)

    def order(self, state: State) -> int:
        """Return apt's package ID of `state`."""
        return self.universe.index.mention(state.name)

    def important(self, need: Need) -> bool:
        """Tell whether `need` is to be satisfied."""
        return need.critical or self._recommends

    def met(self, need: Need, owner: State) -> bool:
        """Tell whether what will be installed satisfies `need`, or does not violate it."""
        for version in need.solutions(owner):
            if version.state.install is version:
                return not need.negative
        return need.negative

    def broken(self, state: State, *, policy: bool = False) -> bool:
        """Tell whether a need of what will be installed of `state` is not met."""
        if state.install is None:
            return False
        return any(
            (need.critical or (policy and self._recommends)) and not self.met(need, state)
            for need in self.needs(state.install)
        )

    def all_broken(self) -> list[State]:
        """Return the states that are broken."""
        return [state for state in self.universe.states() if self.broken(state)]

    def mark(self, state: State, *, auto: bool = True, depth: int = 0, user: bool = False) -> bool:
        """Mark the candidate of `state` for installation, with `auto` all that it needs; False where it cannot be."""
        again = state.protect and state.mode == KEEP and state.candidate is not None
        if not (again and state.candidate is state.current) and not self._may(
            state, INSTALL, depth, user
        ):
            return False
        if state.candidate is None:
            return False
        if not state.protect and not self.broken(state, policy=True):
            if state.candidate is state.current:
                return state.install is not None or self.keep(state, depth=depth)
            if state.mode == INSTALL:
                return True
        if not self._possible(state, auto):
            return False
        if user or not auto:
            self._take(state, user)
        return not auto or self._mark_needs(state, state.candidate, depth, user)

    def keep(self, state: State, *, depth: int = 0) -> bool:
        """Leave `state` as it is installed, or not installed."""
        if not self._may(state, KEEP, depth, False):
            return False
        if state.mode != KEEP:
            state.mode = KEEP
            state.install = state.current
            self._update(state)
        return True

    def delete(self, state: State, *, depth: int = 0) -> bool:
        """Mark `state` for removal."""
        if not self._may(state, DELETE, depth, False):
            return False
        if state.mode == DELETE or state.install is None:
            return True
        if state.current is None and not state.auto:
            return False
        state.mode = KEEP if state.current is None else DELETE
        state.install = None
        self._update(state)
        return True

    def candidates(self, need: Need, owner: State) -> list[Version]:
        """Return the candidates that satisfy `need`, best first: installed ones, then alternative by alternative."""
        installed: list[Version] = []
        fresh: list[Version] = []
        for option in need.options:
            found = [
                version
                for version in option.solutions
                if version.state.candidate is version
                and not (need.negative and version.state is owner)
            ]
            if len(found) > 1:
                found = sorted(found, key=lambda version: self._rank(version, option.name))
            for version in found:
                (installed if version.state.current else fresh).append(version)
        found = installed + fresh
        found = [each for at, each in enumerate(found) if not at or found[at - 1] is not each]
        return found if need.negative else [each for each in found if not _excluded(each.state)]

    # What follows is in the order in which `mark` comes by it.

    def _may(self, state: State, mode: int, depth: int, user: bool) -> bool:
        """Tell whether `state` may change to `mode` (IsModeChangeOk)."""
        if depth > _DEEPEST:
            return False
        if user or state.mode == mode:
            return True
        return not state.protect and not (mode == DELETE and (state.essential or state.protected))

    def _possible(self, state: State, auto: bool) -> bool:
        """Tell whether candidates could meet every hard need; discard the candidate of `state` where not."""
        candidate = state.candidate
        if not auto or candidate is None or candidate is state.current:
            return True
        for need in self.needs(candidate):
            if need.negative or not need.critical or any(map(self._conceivable, need.options)):
                continue
            if not state.protect:
                self._discard(state, state.current)
                if state.mode != DELETE:
                    state.mode = KEEP
            return False
        return True

    def _conceivable(self, option: Option) -> bool:
        """Tell what apt remembers: a candidate that was discarded counts until something it answers to changes."""
        stale = self._stale.get(option.key, ())
        for version in option.solutions:
            state = version.state
            if state.candidate is version or state.install is version or version in stale:
                return True
        return False

    def _take(self, state: State, user: bool) -> None:
        """Set `state` to its candidate (MarkInstall_StateChange)."""
        if state.protect and state.install is state.candidate:
            return
        state.mode = KEEP if state.candidate is state.current else INSTALL
        state.install = state.candidate
        if state.current is None:
            state.auto = not user
        self._update(state)

    def _mark_needs(self, state: State, wanted: Version, depth: int, user: bool) -> bool:
        fail_early = not state.protect and not user
        wants, rivals = self._collect(wanted)
        removals: list[State] = []
        good = self._clear(wanted, rivals, depth, user, removals)
        if not good and fail_early:
            return False
        if not user:
            self._take(state, user)
        already = state.protect
        state.protect = True  # until all of this is done
        try:
            good = self._install(wanted, wants, depth, user, already) and good
            if good or not fail_early:
                good = all([self.delete(rival, depth=depth) for rival in removals]) and good
            if not good and fail_early:
                self._give_up(state)
        finally:
            state.protect = already
        return good

    def _collect(self, wanted: Version) -> tuple[list[Need], list[Need]]:
        """Return the needs of `wanted` to install for and those to clear rivals for."""
        owner = wanted.state
        wants: list[Need] = []
        rivals: list[Need] = []
        for need in self.needs(wanted):
            if self.important(need) and (owner.protect or not self.met(need, owner)):
                (rivals if need.negative else wants).append(need)
        return wants, rivals

    def _clear(
        self, wanted: Version, rivals: list[Need], depth: int, user: bool, removals: list[State]
    ) -> bool:
        """Keep out, or list for removal, what `wanted` conflicts with (MarkInstall_RemoveConflicts…)."""
        good = True
        propagate = wanted.state.protect
        for need in rivals:
            for rival in self.candidates(need, wanted.state):
                if rival.state.candidate is rival and not self._oust(
                    rival.state, propagate, depth, removals
                ):
                    good = False
                    if not propagate and not user:
                        return False
        return good

    def _oust(self, rival: State, propagate: bool, depth: int, removals: list[State]) -> bool:
        if rival.current is not None and rival.current is rival.candidate:
            return self._remove(rival, propagate, depth, removals)
        if rival.mode == INSTALL and not self.keep(rival, depth=depth):
            return False
        if propagate:
            self._discard(rival, rival.install)
            if rival.current is None:
                rival.protect = True
        return True

    def _remove(self, rival: State, propagate: bool, depth: int, removals: list[State]) -> bool:
        if propagate:
            if rival.mode != DELETE and not self.delete(rival, depth=depth + 1):
                return False
            self._discard(rival, rival.install)
            rival.protect = True
            return True
        if rival.mode == DELETE:
            return True
        if not self._may(rival, DELETE, depth, False):
            return False
        removals.append(rival)
        return True

    def _install(
        self, wanted: Version, wants: list[Need], depth: int, user: bool, propagate: bool
    ) -> bool:
        """Mark what meets `wants` (MarkInstall_InstallDependencies)."""
        good = True
        for need in wants:
            if self.met(need, wanted.state):
                good = self._pass_on(need, wanted, depth) and good if propagate else good
                continue
            if wanted.state.current is not None and not need.critical:
                continue  # an installed package's open recommendations stay open
            found = self._first(need, wanted, depth, propagate)
            if not found and need.critical:
                good = False
                if not propagate and not user:
                    return False
        return good

    def _pass_on(self, need: Need, wanted: Version, depth: int) -> bool:
        """Protect the only thing that meets `need`, now that it is met already."""
        if not need.critical:
            return True
        found = {
            version
            for version in need.solutions(wanted.state)
            if version is version.state.candidate or version is version.state.current
        }
        found = {version for version in found if not _excluded(version.state)}
        if len(found) != 1:
            return True
        only = found.pop().state
        if only.protect:
            return True
        only.protect = True
        return self.mark(only, depth=depth + 1)

    def _first(self, need: Need, wanted: Version, depth: int, propagate: bool) -> bool:
        """Mark the first solution of `need` that can be."""
        found = self.candidates(need, wanted.state)
        for version in found:
            state = version.state
            if state.candidate is not version:
                continue
            if propagate and need.critical and len(found) == 1:
                if not self.mark(state, auto=False, depth=depth + 1):
                    continue
                state.protect = True
            if self.mark(state, depth=depth + 1):
                return True
        return False

    def _give_up(self, state: State) -> None:
        """Undo the mark of `state` and discard its candidate (MarkInstall_DiscardInstall)."""
        if state.mode == KEEP and state.install is state.candidate is state.current:
            return
        state.install = state.current
        state.mode = KEEP
        self._update(state)
        self._discard(state, state.install)

    def _discard(self, state: State, candidate: Version | None) -> None:
        old = state.candidate
        state.candidate = candidate
        if old is not None and old is not candidate:
            for key in self.universe.keys(old):
                self._stale.setdefault(key, set()).add(old)

    def _update(self, state: State) -> None:
        """Forget what was remembered of the names that `state` answers to."""
        if self._stale:
            self._stale.pop(state.name, None)
            for version in (state.current, state.candidate):
                for key in self.universe.keys(version) if version else ():
                    self._stale.pop(key, None)

    def _rank(self, version: Version, name: str) -> tuple[bool | int, ...]:
        """Return what apt's CompareProviders sorts by."""
        state, package = version.state, version.package
        return (
            not state.protect,
            not (package.multi_arch == "same" and state.current),
            state.current is None,
            state.name != name,
            not state.essential,
            not (state.protected or state.name == "apt"),
            _PRIORITY.get(package.priority, 5),
            -self.order(state),
        )


def _excluded(state: State) -> bool:
    """Tell whether `state` is bound not to be installed."""
    return state.protect and (
        state.mode == DELETE or (state.mode == KEEP and state.current is None)
    )
