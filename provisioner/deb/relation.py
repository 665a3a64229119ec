"""Relationship fields (Depends, Provides, Conflicts …) as values (deb-control(5), Policy 7.1)."""

from __future__ import annotations

import re
from functools import lru_cache

from provisioner.errors import UntrustedIndex
from provisioner.index import Clause, Relation

VERSION = r"(?:[0-9]{1,9}:)?[0-9A-Za-z.+~:-]{1,240}"
_ATOM = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9+.-]+)(?::([a-z0-9-]+))?"  # capitals: no name has them, old relations do
    rf"(?:[ \t]*\([ \t]*(<<|<=|<|=|>=|>>|>)[ \t]*({VERSION})[ \t]*\))?",
    re.ASCII,
)
_OLD = {"<": "<=", ">": ">="}  # the deprecated spellings mean these, as dpkg and apt read them


@lru_cache(maxsize=1 << 16)
def parse_relation(text: str) -> Relation:
    """Parse one relation, `name:qualifier (>= version)`; raise UntrustedIndex for anything else."""
    found = _ATOM.fullmatch(text.strip(" \t\n"))
    if not found:
        raise UntrustedIndex("E_TRUST_FIELD", text.strip()[:80], "is not a package relation")
    name, qualifier, operator, version = found.groups()
    return Relation(
        name=name,
        operator=_OLD.get(operator, operator) or "",
        version=version or "",
        qualifier=qualifier or "",
    )


@lru_cache(maxsize=1 << 16)
def parse_clause(text: str) -> Clause:
    """Parse alternatives, `a | b`."""
    return Clause(tuple(map(parse_relation, text.split("|"))))


def parse_clauses(text: str) -> tuple[Clause, ...]:
    """Parse a field of clauses, `a | b, c`; an empty field is no clause."""
    if not text:
        return ()
    return tuple(map(parse_clause, text.rstrip(" ,\t\n").split(",")))


def parse_relations(text: str) -> tuple[Relation, ...]:
    """Parse a field without alternatives: Provides, Conflicts, Breaks."""
    if not text:
        return ()
    return tuple(map(parse_relation, text.rstrip(" ,\t\n").split(",")))


def spell(relation: Relation) -> str:
    """Return `relation` as a person writes it."""
    qualifier = f":{relation.qualifier}" if relation.qualifier else ""
    condition = f" ({relation.operator} {relation.version})" if relation.operator else ""
    return f"{relation.name}{qualifier}{condition}"
