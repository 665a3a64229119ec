"""What the solver answered, kept beside an index's maps: every run asks again, only new Packages files change it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioner.deb import relation
from provisioner.index import Package
from valuetypes import fields

_RULES = 1  # of index and solver; whatever changes an answer changes this number
_CLAUSES = frozenset(("pre_depends", "depends", "recommends", "suggests"))
_RELATIONS = frozenset(("provides", "conflicts", "breaks"))
_NAMES = tuple(each.name for each in fields(Package))
_READ = tuple(
    relation.parse_clauses
    if name in _CLAUSES
    else relation.parse_relations
    if name in _RELATIONS
    else None
    for name in _NAMES
)


def place(cache: Path, facts: Sequence[object]) -> Path:
    """Return where the answer is kept that `facts`, an index and a question, have."""
    digest = hashlib.sha256(repr((_RULES, *facts)).encode()).hexdigest()
    return cache / f"{digest}.chosen"


def load(path: Path) -> tuple[Package, ...] | None:
    """Return the packages kept at `path`; None where there is none, or a damaged one."""
    try:
        rows = json.loads(path.read_bytes())
        return tuple(map(_package, rows))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def save(path: Path, packages: Sequence[Package]) -> None:
    """Keep `packages` at `path`, whole or not at all."""
    rows = [[_plain(getattr(each, name)) for name in _NAMES] for each in packages]
    descriptor, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
    try:
        with open(descriptor, "wb") as out:
            out.write(json.dumps(rows).encode())
            os.fchmod(out.fileno(), 0o644)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _plain(value: object) -> object:
    return value.text if isinstance(value, relation.Field) else "" if value == () else value


def _package(row: Sequence[Any]) -> Package:
    values = (parse(value) if parse else value for parse, value in zip(_READ, row, strict=True))
    facts: dict[str, Any] = dict(zip(_NAMES, values, strict=True))
    return Package(**facts)
