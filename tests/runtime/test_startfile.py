"""A start program on disk is used only as long as it would be written the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import elf, startfile
from runtime.performer.x86_64 import CODE
from runtime.records import HANDLER, START, Table
from runtime.state import RunState

RUN = RunState(name="web", path="/nowhere", phase="STARTING", notes=("a note",))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "config").write_text("lxc.uts.name = web\n")
    start = tmp_path / "start"
    seen = startfile.settled([str(tmp_path / "config"), str(tmp_path / "fstab")])
    startfile.write(start, b"\x7fELF", seen, RUN)
    return start


def test_it_is_current_until_something_changes(written: Path) -> None:
    program = startfile.current(written)

    assert program is not None
    assert (program.path, program.wired, program.run) == (written, False, RUN)


def rewrite(start: Path) -> None:
    (start.parent / "config").write_text("lxc.uts.name = net\n")


def add_fstab(start: Path) -> None:
    (start.parent / "fstab").touch()


def put_another_in_place(start: Path) -> None:
    other = start.parent / "other"
    other.write_text("lxc.uts.name = web\n")
    os.replace(other, start.parent / "config")


def let_others_write(start: Path) -> None:
    start.chmod(0o775)


def cut(start: Path) -> None:
    start.write_bytes(start.read_bytes()[:40])


CHANGES: list[Callable[[Path], None]] = [rewrite, add_fstab, put_another_in_place, cut]
CHANGES += [let_others_write, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_is_stale_once_something_has_changed(
    change: Callable[[Path], None], written: Path
) -> None:
    change(written)

    assert not startfile.current(written)


def test_a_copy_beside_another_containers_files_is_stale(written: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "start"
    copy.write_bytes(written.read_bytes())
    copy.chmod(0o755)

    assert not startfile.current(copy)


def test_of_another_boot_it_is_stale(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startfile.state, "boot_id", lambda: "another")

    assert not startfile.current(written)


def test_what_stands_behind_it_does_not_hinder_its_execution(tmp_path: Path) -> None:
    table = Table()
    table.mark(START)
    table.do("exit_group", 7)
    table.mark(HANDLER)
    start = tmp_path / "start"
    startfile.write(start, elf.executable(CODE, *table.data()), [], RUN)

    assert subprocess.run([start]).returncode == 7
