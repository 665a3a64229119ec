"""Ranges of ids are root's own, each container's alone, and refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import idmap
from runtime.errors import HostError, ResourceError
from runtime.idmap import Extent, IdMap


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("root:1000000:655360\nalice:100000:65536\n")
    return tmp_path / "subuid", tmp_path / "subgid"


def test_a_map_is_written_as_the_kernel_reads_it() -> None:
    assert (
        idmap.text((Extent(0, 1000, 1), Extent(1, 100000, 65535))) == b"0 1000 1\n1 100000 65535\n"
    )


def test_lines_of_a_config_become_a_map() -> None:
    class Line:
        def __init__(self, kind: str, inside: int, outside: int, count: int) -> None:
            self.kind, self.inside, self.outside, self.count = kind, inside, outside, count

    found = idmap.from_config([Line("u", 0, 5, 10), Line("g", 0, 7, 10)])

    assert found == IdMap(uids=(Extent(0, 5, 10),), gids=(Extent(0, 7, 10),))
    assert found.root() == (5, 7)
    assert idmap.from_config([]) is None


@pytest.mark.attack
@pytest.mark.root
def test_ranges_are_roots_own_and_no_two_the_same(tmp_path: Path, files: tuple[Path, Path]) -> None:
    firsts = {idmap.allocate(tmp_path, f"c{number}", files).first for number in range(10)}

    assert firsts == set(range(1000000, 1655360, 65536))


@pytest.mark.root
def test_when_all_ranges_are_taken_that_is_said(tmp_path: Path, files: tuple[Path, Path]) -> None:
    for number in range(10):
        idmap.allocate(tmp_path, f"c{number}", files)

    with pytest.raises(ResourceError, match="all 10 ranges"):
        idmap.allocate(tmp_path, "more", files)


@pytest.mark.root
def test_a_range_that_was_given_back_can_be_had_again(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    first = idmap.allocate(tmp_path, "one", files)

    idmap.release(tmp_path, first.first)

    assert idmap.allocate(tmp_path, "one", files) == first


@pytest.mark.root
def test_where_root_has_none_it_is_given_the_usual_range(tmp_path: Path) -> None:
    files = tmp_path / "subuid", tmp_path / "subgid"
    files[0].write_text("alice:100000:65536")

    notes = idmap.allocate(tmp_path, "one", files).notes

    assert files[0].read_text() == "alice:100000:65536\nroot:1000000:1000000000\n"
    assert files[1].read_text() == "root:1000000:1000000000\n"
    assert "added root:1000000:1000000000" in notes[0]


@pytest.mark.root
def test_where_the_usual_range_is_taken_root_is_given_the_next(tmp_path: Path) -> None:
    files = tmp_path / "subuid", tmp_path / "subgid"
    files[0].write_text("bob:1500000:65536\n")
    files[1].write_text("eve:1000000:1\n")

    idmap.allocate(tmp_path, "one", files)

    assert files[0].read_text().endswith("\nroot:1565536:1000000000\n")
    assert files[1].read_text().endswith("\nroot:1565536:1000000000\n")


@pytest.mark.attack
@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("root:5000:100\n", "E_SUBUID_SMALL", "100 ids"),
        (
            "root:100000:655360\nbob:200000:65536\n",
            "E_SUBUID_OVERLAP",
            r"root \(.*bob \(200000:65536\)",
        ),
        ("bob:500000:3900000000\n", "E_SUBUID_OVERLAP", "no 1000000000 ids in a row are free"),
        (
            "root:60000:65536\n",
            "E_SUBUID_OVERLAP",
            r"root \(60000:65536\) and of nobody \(65534:1\)",
        ),
    ],
)
def test_a_range_that_will_not_do_is_refused(
    tmp_path: Path, text: str, code: str, words: str
) -> None:
    files = tmp_path / "subuid", tmp_path / "subgid"
    for file in files:
        file.write_text(text)

    with pytest.raises(HostError, match=words) as caught:
        idmap.allocate(tmp_path, "one", files)

    assert caught.value.code == code


def test_lines_that_nobody_can_mean_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("# note\nroot:x:1\nroot:01:5\na:b\nbob:10:20\n")

    assert [line.owner for line in idmap.read(tmp_path / "subuid")] == ["bob"]
