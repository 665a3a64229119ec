"""Killed anywhere, the command leaves what the next one can use: a sample of what bench/crash.py proves at length."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
BENCH = Path(__file__).resolve().parents[2] / "bench/crash.py"
SEED = 3  # one sample for all; the whole enumeration is the command `python bench/crash.py`
SCENES = ("create", "destroy", "prune", "upgrade", "rollback", "recover")


def crashes(*words: str, timeout: float) -> str:
    done = subprocess.run(
        [sys.executable, BENCH, *words], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_sample_of_deaths_leaves_the_store_whole(needs: Callable[..., None]) -> None:
    needs("strace", "ldd")

    told = crashes("--sample", "2", "--seed", str(SEED), "--jobs", "2", timeout=600)

    assert told.count(" 2 of ") == len(SCENES), told
    assert f"{2 * len(SCENES)} points, 0 failures" in told


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_death_at_any_call_leaves_the_store_whole(scene: str, needs: Callable[..., None]) -> None:
    needs("strace", "ldd")

    told = crashes(scene, timeout=7200)

    assert " 0 failures" in told
