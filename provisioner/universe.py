"""The packages of an index as a solver sees them, each made when somebody first looks at it.

Most conflicts name packages that no run ever comes near: `ban` remembers them and `state` applies them, so that a
package which nothing leads to is never parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from provisioner.index import Clause, Index, Package, Relation


class State:
    """One package: what is so, and what shall be."""

    __slots__ = (
        "auto",
        "candidate",
        "current",
        "discarded",
        "essential",
        "install",
        "keys",
        "mode",
        "name",
        "needs",
        "order",
        "package",
        "protect",
        "protected",
    )

    def __init__(self, name: str, package: Package | None) -> None:
        """Stand for `package`, the only version of `name` in question; None where there is no such package."""
        self.name = name
        self.package = package
        self.needs: tuple[Need, ...] | None = None
        self.keys: tuple[tuple[str, str], ...] = ()  # the names it answers to, with their versions
        self.order = -1
        self.candidate = package is not None  # whether it could be installed
        self.current = False  # whether it is installed
        self.install = False  # whether it will be in the end
        self.discarded = 0  # when it ceased to be a candidate
        self.mode = 0  # marking.KEEP
        self.protect = False  # asked for, or the only way to what was
        self.auto = True  # here because of another package
        self.essential = bool(package and (package.essential or name == "apt"))  # as apt has it
        self.protected = bool(package and (package.protected or name == "apt"))


class Option:
    """One alternative of a need."""

    __slots__ = ("_solutions", "_universe", "key", "name", "relation")

    def __init__(self, key: str, relation: Relation, universe: Universe) -> None:
        """Stand for `relation`."""
        self.key = key
        self.name = "" if relation.qualifier else relation.name  # the real package comes first
        self.relation = relation
        self._universe = universe
        self._solutions: tuple[State, ...] | None = None

    @property
    def solutions(self) -> tuple[State, ...]:
        """What satisfies it, candidates or not."""
        if self._solutions is None:
            self._solutions = self._universe.solutions(self)
        return self._solutions


class Need:
    """One clause of a package: Pre-Depends, Depends, Recommends, or one relation of Conflicts or Breaks."""

    __slots__ = ("critical", "kind", "negative", "options")

    def __init__(self, kind: str, options: tuple[Option, ...]) -> None:
        """Be of `kind`, the field's name."""
        self.kind = kind
        self.options = options
        self.negative = kind in ("Conflicts", "Breaks")
        self.critical = kind != "Recommends"


class Universe:
    """Every package of an index, of each the newest version or the one that was chosen."""

    def __init__(
        self,
        index: Index,
        installed: Sequence[Package],
        chosen: Sequence[Package],
        *,
        recommends: bool,
    ) -> None:
        """Begin with `installed` installed; take the versions `chosen` for their names."""
        self.index = index
        self._recommends = recommends
        self._chosen = {package.name: package for package in (*chosen, *installed)}
        self._states: dict[str, State] = {}
        self._options: dict[tuple[str, str, str], Option] = {}
        self._answering: dict[str, list[tuple[State, str]]] = {}
        self._bans: dict[str, list[tuple[Relation, State, int]]] = {}
        self._touched: dict[str, int] = {}
        self._now = 1
        for package in installed:
            state = self.state(package.name)
            state.current = state.install = True
            state.auto = False

    def state(self, name: str) -> State:
        """Return the one state of `name`."""
        state = self._states.get(name)
        if state is None:
            package = self._chosen.get(name) or next(iter(self.index.versions(name)), None)
            state = self._states[name] = State(name, package)
            if package:
                self._introduce(state, package)
        return state

    def states(self) -> list[State]:
        """Return every state that somebody looked at."""
        return list(self._states.values())

    def order(self, state: State) -> int:
        """Return apt's package ID of `state`."""
        if state.order < 0:
            state.order = self.index.mention(state.name)
        return state.order

    def needs(self, state: State) -> tuple[Need, ...]:
        """Return the needs of `state` in apt's order: Pre-Depends, Depends, Conflicts, Breaks, Recommends."""
        if state.needs is None:
            package = state.package
            state.needs = tuple(self._needs(state, package)) if package else ()
        return state.needs

    def rivalries(self, state: State) -> Iterator[Need]:
        """Return the negative ones of the needs of `state`."""
        package = state.package
        for relation in package.conflicts if package else ():
            yield Need("Conflicts", (self.option(relation),))
        for relation in package.breaks if package else ():
            yield Need("Breaks", (self.option(relation),))

    def option(self, relation: Relation) -> Option:
        """Return the one Option of `relation`."""
        key = self._key(relation)
        known = self._options.get((key, relation.operator, relation.version))
        if known is None:
            known = Option(key, relation, self)
            self._options[key, relation.operator, relation.version] = known
        return known

    def solutions(self, option: Option) -> tuple[State, ...]:
        """Return what satisfies `option`, the package of that name first."""
        if option.key:
            self.state(option.relation.name)
            for package in self.index.providers(option.relation.name):
                self.state(package.name)
        return tuple(self.known(option))

    def known(self, option: Option) -> Iterable[State]:
        """Return what satisfies `option` among all that somebody looked at."""
        answering = self._answering.get(option.key)
        if not answering:
            return ()
        holds, relation = self.index.satisfies, option.relation
        return dict.fromkeys(
            state
            for state, offered in answering
            if holds(offered, relation.operator, relation.version)
        )

    def ban(self, option: Option, owner: State) -> None:
        """Let nothing but `owner` that satisfies `option` and was not looked at yet be a candidate."""
        self._bans.setdefault(option.key, []).append((option.relation, owner, self._now))

    def discard(self, state: State) -> None:
        """Let `state` be no candidate any more, unless it will be installed."""
        if state.candidate and not state.install:
            self._now += 1
            state.candidate = False
            state.discarded = self._now

    def touch(self, state: State) -> None:
        """Note that what `state` answers to has changed."""
        self._now += 1
        self._touched[state.name] = self._now
        if state.candidate or state.current:
            for key, _ in state.keys:
                self._touched[key] = self._now

    def remembers(self, state: State, key: str) -> bool:
        """Tell whether `state` was discarded after `key` last changed."""
        return state.discarded > self._touched.get(key, 0)

    def _introduce(self, state: State, package: Package) -> None:
        state.keys = tuple(self._keys(package))
        holds = self.index.satisfies
        for key, offered in state.keys:
            self._answering.setdefault(key, []).append((state, offered))
            for relation, owner, when in self._bans.get(key, ()):
                if owner is not state and holds(offered, relation.operator, relation.version):
                    state.candidate = False
                    state.protect = True
                    state.discarded = state.discarded or when

    def _key(self, relation: Relation) -> str:
        """Return the name to look `relation` up by; empty for another architecture's."""
        if relation.qualifier == "any":
            return f"{relation.name}:any"
        return relation.name if relation.qualifier in ("", "native", self.index.arch) else ""

    def _keys(self, package: Package) -> Iterator[tuple[str, str]]:
        """Return the names `package` answers to, with versions: its own, what it provides, and those with `:any`.

        `name:any` is met by a package that is Multi-Arch: allowed, and by what such a package provides.
        """
        allowed = package.multi_arch == "allowed"
        yield package.name, package.version
        if allowed:
            yield f"{package.name}:any", package.version
        for provided in package.provides:
            if provided.qualifier != "any":
                yield provided.name, provided.version
            if allowed or provided.qualifier == "any":
                yield f"{provided.name}:any", provided.version

    def _needs(self, state: State, package: Package) -> Iterator[Need]:
        yield from self._clauses("Pre-Depends", package.pre_depends)
        yield from self._clauses("Depends", package.depends)
        yield from self.rivalries(state)
        if self._recommends:
            yield from self._clauses("Recommends", package.recommends)

    def _clauses(self, kind: str, clauses: Iterable[Clause]) -> Iterator[Need]:
        for clause in clauses:
            yield Need(kind, tuple(map(self.option, clause.alternatives)))
