"""docs/writing-templates.md, followed to the letter: each file written, each command run, each shown line said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.command import CHECKOUT, Mkt

PAGE = CHECKOUT / "docs" / "writing-templates.md"
pytestmark = pytest.mark.system


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield the name of the file before each block, "" where there is none, and the block."""
    name, rows = "", list[str]()
    for line in [*page.split("\n"), "end"]:
        if line.startswith("    ") or (rows and not line):
            rows.append(line[4:])
            continue
        if rows:
            yield name, "\n".join(rows).rstrip("\n") + "\n"
            name, rows = "", []
        found = re.fullmatch(r"`([a-z./0-9-]+)`:", line)
        name = found[1] if found else name if not line else ""


def plain(line: str) -> str:
    """Return a line without what differs each time: numbers, and blanks beside them."""
    return re.sub(r"[0-9]+", "N", line).strip()


def follow(script: str, folder: Path, environment: dict[str, str]) -> int:
    """Run the commands of a block; what is shown must be said, in that order. Return how many there were."""
    commands = re.split(r"^# ", script, flags=re.MULTILINE)[1:]
    for each in commands:
        command, *shown = each.rstrip("\n").split("\n")
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said = iter([plain(line) for line in done.stdout.splitlines()])
        for line in shown:
            assert line == "…" or plain(line) in said, f"# {command}\n{done.stdout}\nlacks: {line}"
    return len(commands)


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(warm: Mkt, tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "mktemplate"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m mktemplate "$@"\n')
    binary.chmod(0o755)
    environment = {
        **warm.environment,
        "PATH": f"{binary.parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "HOME": str(tmp_path / "home"),
        "MKTEMPLATE_PATH": str(warm.path),
    }
    (tmp_path / "home").mkdir()
    files, commands = 0, 0

    for name, text in blocks(PAGE.read_text()):
        if name:
            (tmp_path / name).write_text(text)
            files += 1
        elif text.startswith("# "):
            commands += follow(text, tmp_path, environment)

    assert (files, commands) >= (5, 15)
    warm.sweep()
