"""docs/template-reference.md, from the tables of `schema`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mktemplate.template import grants, schema
from mktemplate.template.schema import Table

_HEAD = """\
# Template reference

Written by `scripts/template-reference` from the tables in `mktemplate/template/schema.py`; do not edit.

Every key of `template.toml` and `tests.toml`, the types of options, and what the files of a template may name.
[template-format.md](template-format.md) tells how the parts work together, [writing-templates.md](writing-templates.md)
makes one step by step.

# template.toml

"""
_TESTS = """\
# tests.toml

What `mktemplate test-template` runs. At the top, `[set]` may hold options for the container: `[set]`, `port = 8080`.

"""
_VALUES = """\
# What a file may name

In `*.j2`, in the words of `command`, `run`, `unless` and `ready.command`, and in the commands of tests.

"""
_GRANTS = """\
# Grants

A template is trusted where it came with mktemplate, or lies in root's own `/etc/mktemplate/templates` and was not
brought there by `templates add`. Any other gets no more than a service has, but for what `--grant KIND:VALUE` names:

"""


def page() -> str:
    """Return the page."""
    parts = [
        _HEAD,
        *map(_table, schema.TABLES[:4]),
        "## Types of options\n\n",
        _named(("type", "a value"), schema.TYPES),
        *map(_table, schema.TABLES[4:]),
        _TESTS,
        _table(schema.TEST),
        _VALUES,
        _named(("name", "what it is"), schema.VALUES),
        _GRANTS,
        _named(("KIND", "VALUE, and what is granted"), grants.KINDS),
    ]
    return "".join(parts).rstrip("\n") + "\n"


def _table(table: Table) -> str:
    title = f"## `{table.title}`\n\n" if table.title else ""
    rows = (
        (
            f"`{key.name}`",
            key.kind,
            f"`{key.default}`" if _is_value(key.default) else key.default,
            key.help,
        )
        for key in table.keys
    )
    keys = _rows(("key", "what may stand there", "default", "meaning"), rows) if table.keys else ""
    example = "".join(
        f"    {line}".rstrip() + "\n" for line in table.example.split("\n") if table.example
    )
    return f"{title}{table.help}\n\n{keys}{example}" + ("\n" if example else "")


def _is_value(text: str) -> bool:
    """Whether a default is spelled as in the file, not told in words."""
    return bool(text) and " " not in text and text not in ("required", "all")


def _named(heads: tuple[str, ...], rows: Mapping[str, str]) -> str:
    return _rows(heads, ((f"`{name}`", text) for name, text in rows.items()))


def _rows(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"
