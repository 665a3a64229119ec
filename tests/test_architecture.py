"""The shape of the house, beyond what import-linter's contracts in pyproject.toml say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mktemplate", "provisioner", "runtime", "templates", "fstabs", "valuetypes")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {"jinja2", "debian", "tqdm", "pysequoia", "subprocess", "tomllib", "argparse"}


def code_lines(path: Path) -> int:
    """Return the number of lines that are neither blank, comment nor docstring."""
    tree = ast.parse(path.read_text())
    documented = [
        tree,
        *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef)),
    ]
    prose = set()
    for node in documented:
        if ast.get_docstring(node) is not None:
            text = node.body[0]
            prose.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in prose
    )


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names that the module imports when it is loaded."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_fits_on_a_few_screens(path: Path) -> None:
    assert code_lines(path) <= 300


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_lives_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())) or path.name == "py.typed"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.is_relative_to(ROOT / "runtime")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_runtime_loads_nothing_heavy(path: Path) -> None:
    assert not HEAVY.intersection(imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_values_are_made_of_what_costs_nothing_to_load(path: Path) -> None:
    assert "dataclasses" not in imported(path), "from valuetypes import … (decision 0016)"


@pytest.mark.parametrize("word", ["util", "helper", "manager", "common", "misc"])
def test_no_module_is_named_for_nothing(word: str) -> None:
    assert [path.name for path in MODULES if word in path.stem] == []
