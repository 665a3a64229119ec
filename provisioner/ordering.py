"""The order in which a set of packages can be installed, and the chains of dependencies that hold it together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from provisioner.index import Clause, Package, Relation


def ordered(packages: Iterable[Package]) -> tuple[Package, ...]:
    """Return `packages` with what each depends on before it.

    A cycle stands together, ordered by its Pre-Depends and then by name: dpkg's own order of configuration breaks it.
    """
    chosen = sorted(packages, key=lambda each: each.name)
    owners = _owners(chosen)
    edges = {each.name: _targets((*each.pre_depends, *each.depends), owners) for each in chosen}
    first = {each.name: _targets(each.pre_depends, owners) for each in chosen}
    by_name = {each.name: each for each in chosen}
    return tuple(by_name[name] for cycle in _cycles(edges) for name in (_sorted(cycle, first)))


def chain(
    packages: Sequence[Package], roots: Iterable[str], name: str
) -> tuple[tuple[str, Relation], ...]:
    """Return the shortest chain of (package, what it asks for) from `roots` to `name`; empty where there is none."""
    owners = _owners(packages)
    by_name = {each.name: each for each in packages}
    came: dict[str, tuple[str, Relation] | None] = {root: None for root in roots if root in by_name}
    queue = list(came)
    for at in queue:
        package = by_name[at]
        for clause in (*package.pre_depends, *package.depends, *package.recommends):
            for relation in clause.alternatives:
                for target in owners.get(relation.name, ()):
                    if target not in came:
                        came[target] = (at, relation)
                        queue.append(target)
    steps = []
    step = came.get(name)
    while step:
        steps.append(step)
        step = came[step[0]]
    return tuple(reversed(steps))


def _owners(packages: Iterable[Package]) -> dict[str, list[str]]:
    """Return which packages answer to each name."""
    owners: dict[str, list[str]] = {}
    for package in packages:
        for name in dict.fromkeys((package.name, *(each.name for each in package.provides))):
            owners.setdefault(name, []).append(package.name)
    return owners


def _targets(clauses: Iterable[Clause], owners: Mapping[str, Sequence[str]]) -> list[str]:
    found = {
        owner
        for clause in clauses
        for relation in clause.alternatives
        for owner in owners.get(relation.name, ())
    }
    return sorted(found)


def _sorted(cycle: list[str], first: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of `cycle`, Pre-Depends first, then by name."""
    placed: dict[str, None] = {}

    def place(name: str, pending: frozenset[str]) -> None:
        for each in first[name]:
            if each in members and each not in placed and each not in pending:
                place(each, pending | {each})
        placed.setdefault(name)

    members = set(cycle)
    for name in sorted(cycle):
        place(name, frozenset((name,)))
    return list(placed)


def _cycles(edges: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the strongly connected components of `edges`, each after those it leads to (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    waiting: set[str] = set()
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        waiting.add(name)
        for target in edges[name]:
            if target not in number:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in waiting:
                lowest[name] = min(lowest[name], number[target])
        if lowest[name] == number[name]:
            at = stack.index(name)
            found.append(stack[at:])
            waiting.difference_update(stack[at:])
            del stack[at:]

    for name in edges:
        if name not in number:
            visit(name)
    return found
