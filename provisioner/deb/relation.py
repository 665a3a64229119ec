"""Relationship fields (Depends, Provides, Conflicts …) as values (deb-control(5), Policy 7.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar, overload

from provisioner.errors import UntrustedIndex
from provisioner.index import Clause, Relation

VERSION = r"(?:[0-9]{1,9}:)?[0-9A-Za-z.+~:-]{1,240}"
_ATOM = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9+.-]+)(?::([a-z0-9-]+))?"  # capitals: no name has them, old relations do
    rf"(?:[ \t]*\([ \t]*(<<|<=|<|=|>=|>>|>)[ \t]*({VERSION})[ \t]*\))?",
    re.ASCII,
)
# What would be spelt as it stands; relations that are no clauses have no alternatives.
_SPELT = rf"[A-Za-z0-9][A-Za-z0-9+.-]+(?::[a-z0-9-]+)?(?: \((?:<<|<=|=|>=|>>) {VERSION}\))?"
_SPELT_CLAUSES = re.compile(rf"{_SPELT}(?:(?:,| \|) {_SPELT})*", re.ASCII)
T = TypeVar("T")

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
    if "|" in text:
        return Clause(tuple(map(parse_relation, text.split("|"))))
    return Clause((parse_relation(text),))


class Field(Sequence[T]):
    """The comma-separated values of one field, parsed when somebody looks at them; equal to the tuple of them."""

    __slots__ = ("_parse", "_values", "text")

    def __init__(self, text: str, parse: Callable[[str], T]) -> None:
        """Keep `text` until then."""
        self.text = text
        self._parse = parse
        self._values: tuple[T, ...] | None = None

    def is_spelt(self) -> bool:
        """Whether the text is, unread, as it would be spelt."""
        return self._values is None and _SPELT_CLAUSES.fullmatch(self.text) is not None

    def _parsed(self) -> tuple[T, ...]:
        if self._values is None:
            text = self.text.rstrip(" ,\t\n")
            self._values = tuple(map(self._parse, text.split(","))) if text else ()
        return self._values

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        return self._parsed()[at]

    def __iter__(self) -> Iterator[T]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Field, tuple)) and self._parsed() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._parsed())


def parse_clauses(text: str) -> Sequence[Clause]:
    """Return the clauses of a field with alternatives, `a | b, c`; an empty field has none."""
    return Field(text, parse_clause) if text else ()


def parse_relations(text: str) -> Sequence[Relation]:
    """Return the relations of a field without alternatives: Provides, Conflicts, Breaks."""
    return Field(text, parse_relation) if text else ()


def spell(relation: Relation) -> str:
    """Return `relation` as a person writes it."""
    qualifier = f":{relation.qualifier}" if relation.qualifier else ""
    condition = f" ({relation.operator} {relation.version})" if relation.operator else ""
    return f"{relation.name}{qualifier}{condition}"


def spell_clauses(clauses: Sequence[Clause]) -> str:
    """Return a field with alternatives as a person writes it."""
    if type(clauses) is Field and clauses.is_spelt():  # isinstance asks the ABC, 300 times a lock
        return clauses.text
    return ", ".join([" | ".join(map(spell, each.alternatives)) for each in clauses])


def spell_relations(relations: Sequence[Relation]) -> str:
    """Return a field without alternatives as a person writes it."""
    if type(relations) is Field and relations.is_spelt() and "|" not in relations.text:
        return relations.text
    return ", ".join(map(spell, relations))
