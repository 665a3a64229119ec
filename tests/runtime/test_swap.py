"""Generations: one takes another's place whole, wherever the process that does it is killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runtime import swap

CHANGING = frozenset(("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"))  # audit events
STEPS = 26  # a swap of all parts takes fewer


def generation(place: Path, word: str, *, without: str = "") -> None:
    """Make one at `place`, each of whose parts says `word`."""
    place.mkdir(exist_ok=True)
    for part in swap.PARTS:
        if part in (swap.TREE, "work"):
            (place / part).mkdir()
            (place / part / "said").write_text(word)
        elif part != without:
            (place / part).write_text(word)


def said(place: Path) -> set[str]:
    """Return the words of the generation at `place`."""
    found = set()
    for part in swap.PARTS:
        path = place / part / "said" if (place / part).is_dir() else place / part
        if path.exists():
            found.add(path.read_text())
    return found


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A container whose new generation was just brought; what belongs to both lies beside."""
    place = tmp_path / "web"
    generation(place, "old")
    (place / "start").write_text("mounts the old layers")
    (place / "exec").write_text("knows their passwd")
    (place / "volumes").mkdir()
    (place / "log").write_text("kept")
    generation(place / swap.INCOMING, "new")
    return place


def finish_until(place: Path, step: int) -> bool:
    """Finish in a child that dies before its `step`-th change; return whether it lived."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    left = step

    def die(event: str, arguments: object) -> None:
        nonlocal left
        if event in CHANGING:
            left -= 1
            if not left:
                os._exit(9)

    sys.addaudithook(die)
    swap.finish(place)
    os._exit(0)


def test_a_swap_leaves_the_new_generation_and_keeps_the_old(container: Path) -> None:
    swap.finish(container)

    assert said(container) == {"new"}
    assert said(container / swap.REPLACED) == {"old"}
    assert sorted(set(os.listdir(container)) - set(swap.PARTS)) == ["log", swap.REPLACED, "volumes"]


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_swap_that_was_killed_is_finished_by_the_next(container: Path, step: int) -> None:
    lived = finish_until(container, step)

    swap.finish(container)

    assert lived or step < STEPS - 1, "more steps than the test tries"
    assert said(container) == {"new"}
    assert said(container / swap.REPLACED) == {"old"}
    assert not (container / swap.INCOMING).exists()


@pytest.mark.parametrize("step", range(1, STEPS))
def test_no_config_names_new_layers_over_the_old_upper(container: Path, step: int) -> None:
    finish_until(container, step)

    upper = container / swap.TREE / "said"
    assert (container / "config").read_text() == "old" or upper.read_text() == "new"


def test_a_file_is_there_at_every_moment(container: Path) -> None:
    for step in range(1, STEPS):
        finish_until(container, step)
        assert (container / "config").exists()
        assert (container / "state.json").exists()


def test_without_a_swap_nothing_happens(tmp_path: Path) -> None:
    generation(tmp_path / "web", "old")

    swap.finish(tmp_path / "web")
    swap.finish(tmp_path / "nothing")

    assert said(tmp_path / "web") == {"old"}


def test_what_only_the_present_generation_has_does_not_stay(tmp_path: Path) -> None:
    place = tmp_path / "web"
    generation(place, "old")
    generation(place / swap.PREVIOUS, "new", without="config.made")

    (place / swap.PREVIOUS / ".config.1234").write_text("a draft of a rollback that was killed")

    swap.complete(place / swap.PREVIOUS, place)
    os.rename(place / swap.PREVIOUS, place / swap.INCOMING)
    swap.finish(place)

    assert (place / "config.made").read_text() == ""
    assert not (place / swap.INCOMING).exists()
    assert said(place / swap.REPLACED) == {"old"}
