"""What an upper layer changed of the layers below it, as overlayfs would show it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from mktemplate.life.written import changes

pytestmark = pytest.mark.root  # only root makes whiteouts


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Return upper, middle and bottom."""
    found = (tmp_path / "upper", tmp_path / "middle", tmp_path / "bottom")
    for each in found:
        each.mkdir()
    yield found


def write(layer: Path, *paths: str, body: str = "x") -> None:
    for path in paths:
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        (layer / path).write_text(body)


def whiteout(layer: Path, path: str) -> None:
    (layer / path).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(layer / path, stat.S_IFCHR, os.makedev(0, 0))


def told(layers: Sequence[Path]) -> list[str]:
    with ExitStack() as opened:
        handles = [os.open(layer, os.O_RDONLY | os.O_DIRECTORY) for layer in layers]
        for handle in handles:
            opened.callback(os.close, handle)
        return [f"{kind} {path}" for kind, path in changes(handles[0], handles[1:])]


def test_added_modified_and_deleted_are_told_apart(layers: tuple[Path, Path, Path]) -> None:
    upper, middle, bottom = layers
    write(bottom, "etc/kept", "etc/changed", "etc/gone", "etc/touched")
    write(middle, "etc/other")
    write(upper, "etc/changed", body="y")
    write(upper, "etc/new", "etc/touched")
    whiteout(upper, "etc/gone")
    whiteout(upper, "etc/other")
    whiteout(upper, "etc/never-was")

    assert told(layers) == ["M /etc/changed", "D /etc/gone", "A /etc/new", "D /etc/other"]


def test_a_lower_whiteout_hides_what_is_below_it(layers: tuple[Path, Path, Path]) -> None:
    upper, middle, bottom = layers
    write(bottom, "a")
    whiteout(middle, "a")
    write(upper, "a")

    assert told(layers) == ["A /a"]


def test_an_opaque_directory_deletes_what_was_in_it(layers: tuple[Path, Path, Path]) -> None:
    upper, middle, bottom = layers
    write(bottom, "d/one", "d/two")
    write(middle, "d/three")
    whiteout(middle, "d/two")
    write(upper, "d/new")
    os.setxattr(upper / "d", "user.overlay.opaque", b"y")

    assert told(layers) == ["D /d/one", "D /d/three", "A /d/new"]


def test_a_deleted_directory_is_one_line_and_a_new_one_is_told_whole(
    layers: tuple[Path, Path, Path],
) -> None:
    upper, _, bottom = layers
    write(bottom, "old/a", "old/b")
    whiteout(upper, "old")
    write(upper, "new/deep/a")

    assert told(layers) == ["A /new", "A /new/deep", "A /new/deep/a", "D /old"]


def test_modes_owners_targets_and_kinds_count_times_do_not(
    layers: tuple[Path, Path, Path],
) -> None:
    upper, _, bottom = layers
    for layer in (upper, bottom):
        write(layer, "mode", "owner", "time")
    (upper / "mode").chmod(0o600)
    os.chown(upper / "owner", 7, 7)
    os.utime(upper / "time", (1, 1))
    (bottom / "link").symlink_to("a")
    (upper / "link").symlink_to("b")
    write(bottom, "kind/x")
    write(upper, "kind")

    assert told(layers) == ["M /kind", "M /link", "M /mode", "M /owner"]


def test_a_symlink_in_a_layer_is_not_followed(layers: tuple[Path, Path, Path]) -> None:
    upper, middle, _ = layers
    write(upper, "trap/passwd")
    (middle / "trap").symlink_to("/etc")

    assert told(layers) == ["M /trap", "A /trap/passwd"]
