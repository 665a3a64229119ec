"""Run state: who a process is, and that nobody is mistaken for it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import state
from runtime.state import NOBODY, Identity, RunState


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "_ROOT", tmp_path / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "containers"


def test_what_was_saved_is_loaded_again(path: Path) -> None:
    run = RunState(
        name="web",
        path=str(path),
        phase="RUNNING",
        init=Identity.of(os.getpid()),
        ips=("10.0.0.2",),
        cgroup={"key": "x"},
    )

    state.save(run)

    assert state.load(path, "web") == run
    assert state.load(path, "other") is None


def test_what_is_forgotten_leaves_no_folder(path: Path) -> None:
    state.save(RunState(name="web", path=str(path), phase="STOPPED"))

    state.forget(path, "web")

    assert state.load(path, "web") is None
    assert not state.root().exists()


def test_a_process_is_known_by_its_start() -> None:
    mine = Identity.of(os.getpid())

    descriptor = mine.open()

    assert descriptor is not None
    os.close(descriptor)


@pytest.mark.parametrize("change", [{"starttime": 1}, {"boot_id": "another"}, {"pid": 0}], ids=str)
def test_another_process_of_the_same_number_is_not_it(change: dict[str, object]) -> None:
    other = replace(Identity.of(os.getpid()), **change)  # type: ignore[arg-type]  # each is a field's type

    assert other.open() is None
    assert not other.send(0)


def test_an_ended_process_takes_no_signal() -> None:
    child = subprocess.Popen(["sleep", "100"])
    identity = Identity.of(child.pid)

    assert identity.send(9)
    child.wait()
    assert not identity.send(9)
    assert not NOBODY.send(9)


def test_a_runtime_folder_of_somebody_elses_is_refused(path: Path) -> None:
    state.root().mkdir(mode=0o777)
    state.root().chmod(0o777)

    with pytest.raises(Exception, match="is not ours alone"):
        state.save(RunState(name="web", path=str(path), phase="STOPPED"))


def test_containers_of_two_paths_do_not_meet(path: Path, tmp_path: Path) -> None:
    assert state.key(path, "web") != state.key(tmp_path / "others", "web")
