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
_NAMES = tuple(each.name for each in fields(Package))
_READ = {
    **dict.fromkeys(("pre_depends", "depends", "recommends", "suggests"), relation.parse_clauses),
    **dict.fromkeys(("provides", "conflicts", "breaks"), relation.parse_relations),
}


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
    facts = dict(zip(_NAMES, row, strict=True))
    for name, parse in _READ.items():
        facts[name] = parse(facts[name])
    return Package(**facts)
