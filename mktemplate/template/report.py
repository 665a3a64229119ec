"""What is wrong with one TOML text of ours, collected with the lines where it stands; and the readers of its values."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence

from mktemplate.errors import CommandError, Several, escape
from mktemplate.template.values import problem


class Report:
    """Collects what is wrong with one TOML text, with the line where it stands."""

    def __init__(self, path: str, text: str, *, code: str = "E_TEMPLATE_SYNTAX") -> None:
        """Report on `text`, which is called `path`, by failures of `code`."""
        self.path = path
        self._code = code
        self.failures: list[Exception] = []
        self._text = text

    def add(self, where: str, detail: str, hint: str = "") -> None:
        """Add that the value at `where` (`table.key`, `list[0].key`) is wrong."""
        lines = _line_table(self._text)
        line = lines.get(where) or lines.get(where.rpartition(".")[0]) or 1
        self.failures.append(
            CommandError(
                self._code,
                f"{self.path}:{line}",
                f"{where}: {detail}",
                hints=(hint,) if hint else (),
                path=self.path,
                line=line,
            )
        )

    def check(self) -> None:
        """Raise what was added, all of it at once."""
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            raise Several(tuple(self.failures))

    def text(self, table: Mapping[str, object], key: str, where: str, default: str = "") -> str:
        """Return a string."""
        value = table.get(key, default)
        if not isinstance(value, str) or problem(value):
            self.add(where, "must be a string without control bytes")
            return default
        return value

    def octets(self, table: Mapping[str, object], key: str, where: str) -> str:
        """Return a string whose characters are bytes."""
        value = table.get(key, "")
        if (
            not isinstance(value, str)
            or len(value) > 1024
            or any(ord(char) > 255 for char in value)
        ):
            self.add(where, "must be a string of at most 1024 characters up to U+00FF, each a byte")
            return ""
        return value

    def truth(self, table: Mapping[str, object], key: str, where: str) -> bool:
        """Return true or false."""
        value = table.get(key, False)
        if not isinstance(value, bool):
            self.add(where, "must be true or false")
            return False
        return value

    def strings(self, value: object, where: str) -> tuple[str, ...]:
        """Return a list of strings."""
        if not isinstance(value, list) or any(
            not isinstance(item, str) or problem(item) for item in value
        ):
            self.add(where, "must be a list of strings")
            return ()
        return tuple(value)

    def tables(self, value: object, name: str) -> list[Mapping[str, object]]:
        """Return the tables that are written as `[[name]]`."""
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            self.add(name, f"must be written as [[{name}]]")
            return []
        return value

    def known(self, table: Mapping[str, object], where: str, keys: Sequence[str]) -> None:
        """Add every key of the table at `where` that is none of `keys`."""
        for key in table:
            if key not in keys:
                self.add(f"{where}.{key}", f"unknown key: there is {', '.join(keys)}")

    def whole(
        self, table: Mapping[str, object], key: str, where: str, *, default: int, highest: int
    ) -> int:
        """Return an integer of 0…highest."""
        value = table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
            self.add(where, f"must be an integer in 0…{highest}")
            return default
        return value


def document(text: str, path: str, *, code: str = "E_TEMPLATE_SYNTAX") -> Mapping[str, object]:
    """Return what a TOML text says; raise `code` with the line where it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        raise CommandError(
            code, f"{path}:{line}", escape(str(error)), path=path, line=line
        ) from None


def _line_table(text: str) -> dict[str, int]:
    """Return the line at which each `table.key` of a TOML text is written first, and each `list[0].key`."""
    names: tuple[str, ...] = ("",)
    found: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for number, line in enumerate(text.split("\n"), 1):
        header = re.fullmatch(r"\s*(\[{1,2})\s*([^\]]+?)\s*\]{1,2}\s*(?:#.*)?", line)
        if header:
            table = header[2].replace('"', "")
            names = (table, f"{table}[{seen[table]}]") if header[1] == "[[" else (table,)
            seen[table] += 1
            for name in names:
                found.setdefault(name, number)
            continue
        key = re.match(r"\s*\"?([A-Za-z0-9_/.-]+)\"?\s*=", line)
        if key:
            for name in names:
                found.setdefault(f"{name}.{key[1]}" if name else key[1], number)
    return found
