"""`extends = "nginx"`: a template that is a built-in one with some facts and files of its own.

What it says takes the place of what the other says: key by key in `[options.NAME]` and `[packages]`, whole everywhere
else. Tables written as `[[volume]]` are added to the other's; a volume of the same name takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from valuetypes import dataclass

KEY = "extends"
_TABLES = ("first_start", "repository", "download", "volume", "device")


class Folder(Protocol):
    """The files of one template, or of the built-in library, by name."""

    @property
    def shown(self) -> str:
        """How messages call it."""
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        ...

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Extended:
    """The files of a template, and those of the other where it has none of that name."""

    own: Folder
    base: Folder
    shown: str

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        folder, _, last = name.rpartition("/")
        return (self.own if last in self.own.names(folder) else self.base).read(name)

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        return tuple(sorted({*self.own.names(under), *self.base.names(under)}))


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a template comes to which extends `base`; neither need be right."""
    facts = {**base, **own}
    facts.pop(KEY, None)
    for key in ("packages", "options"):
        if isinstance(own.get(key), dict):
            facts[key] = _by_key(base.get(key, {}), own[key])
    for key in _TABLES:
        if isinstance(own.get(key), list):
            facts[key] = _added(base.get(key, []), own[key])
    return facts


def _by_key(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table, with what both have that are tables themselves laid over each other."""
    both = {
        name: {**base[name], **value}
        for name, value in own.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }
    return {**base, **own, **both}


def _added(base: list[Any], own: list[Any]) -> list[Any]:
    mine = {table.get("name") for table in own if isinstance(table, dict)} - {None}
    return [*(table for table in base if table.get("name") not in mine), *own]
