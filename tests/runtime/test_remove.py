"""Removing a tree follows nothing and stops at nothing but a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import remove


@pytest.mark.attack
def test_a_deep_tree_goes_and_what_its_links_point_to_stays(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (canary / "kept").mkdir(parents=True)
    top = tmp_path / "path/one/upper"
    top.mkdir(parents=True)
    (top / "link").symlink_to(canary)
    (top / "na\nme").write_text("x")
    os.mkfifo(top / "fifo")
    inner = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=inner)
        deeper = os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = deeper
    os.close(inner)

    with remove.container(tmp_path / "path", "one"):
        assert not (tmp_path / "path/one").exists()

    assert sorted(os.listdir(tmp_path / "path")) == [".store"]
    assert os.listdir(tmp_path / "path/.store/trash") == []
    assert (canary / "kept").is_dir()


def test_mounts_below_a_path_are_seen() -> None:
    assert "/proc" in remove.mounts_below(Path("/proc"))
    assert remove.mounts_below(Path("/nowhere")) == []
