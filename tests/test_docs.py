"""The pages for people: what they link to is there, and what they say can be typed can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mktemplate.cli.parsing import parse

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_COMMAND = re.compile(r"^ {4}(?:[#$] )?mktemplate (.*)$", re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_is_one_that_is_understood(page: Path) -> None:
    text = re.sub(r"\\\n +", "", page.read_text())  # a command that goes on
    for line in _COMMAND.findall(text):
        for command in re.split(r"; mktemplate | && mktemplate ", re.split(r" {2,}|\||>", line)[0]):
            if not re.search(r"[…{]|[A-Z]{2,}|\[", command):
                parse(shlex.split(command, comments=True))
