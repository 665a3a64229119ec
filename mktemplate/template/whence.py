"""Which line of a template's file a rendered line is from: what is wrong with a text is told where it can be mended.

The consumers of the texts count the lines that they were given. A line of a file that renders to such a text is looked
for by its literal parts; what only a shared file or a loop can have made is told with the text itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mktemplate.errors import CommandError, Several, escape
from mktemplate.template.extending import Folder

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}")


@contextmanager
def told_of(folder: Folder, name: str, file: str, text: str) -> Iterator[None]:
    """Raise what is wrong in `text`, which `file` of the template `name` rendered to, with the file's own line."""
    try:
        yield
    except Exception as error:
        failures = (error, *getattr(error, "also", ()))
        if not hasattr(error, "code") or getattr(error, "line", None) is None:
            raise
        source = folder.read(file).decode("utf-8", "replace")
        mapped = tuple(_mapped(each, f"{name}/{file}", source, text) for each in failures)
        raise (mapped[0] if len(mapped) == 1 else Several(mapped)) from None


def _mapped(failure: Exception, shown: str, source: str, text: str) -> CommandError:
    line = int(getattr(failure, "line", None) or 1)
    rows = text.split("\n")
    rendered = rows[line - 1] if line <= len(rows) else ""
    number = origin(rendered, source)
    detail = str(getattr(failure, "detail", failure))
    if not number:
        detail += f' (rendered: "{escape(rendered.strip())}")'
    return CommandError(
        str(getattr(failure, "code", "E_TEMPLATE_SYNTAX")),
        f"{shown}:{number or 1}",
        detail,
        hints=tuple(getattr(failure, "hints", ())),
        path=shown,
        line=number or 1,
    )


def origin(rendered: str, source: str) -> int:
    """Return the number of the first line of `source` that renders to this line, 0 where none does."""
    for number, line in enumerate(source.split("\n"), 1):
        if line.strip() and line.strip() == rendered.strip():
            return number
    for number, line in enumerate(source.split("\n"), 1):
        literals = _JINJA.split(line.strip())
        if len(literals) > 1 and any(map(str.strip, literals)) and _fits(rendered, literals):
            return number
    return 0


def _fits(text: str, literals: list[str]) -> bool:
    """Whether `text` holds the literals in their order, the first at its beginning, the last at its end."""
    text = text.strip()
    first, *middle, last = literals
    if not text.startswith(first) or not text.endswith(last):
        return False
    at = len(first)
    for literal in middle:
        at = text.find(literal, at)
        if at < 0:
            return False
        at += len(literal)
    return at <= len(text) - len(last)
