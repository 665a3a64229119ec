"""A container's record survives being written, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime import bundle
from runtime.bundle import Bundle, Port, Ready, Record
from runtime.errors import ResourceError, StateError

RECORD = Record(
    name="web",
    template="nginx",
    distro="debian",
    release="trixie",
    arch="amd64",
    created="2026-01-01T00:00:00Z",
    layers=("aa", "bb"),
    packages=(("nginx", "1.2-3", "amd64"),),
    ports=(Port(host=8080, container=80),),
    ready=Ready(kind="port", value="80", timeout=30),
    timings=(("index", 0.5),),
    id_range=(1000000, 65536),
)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    bundle.write(Bundle(path=tmp_path, record=RECORD))

    assert bundle.read(tmp_path) == Bundle(path=tmp_path, record=RECORD)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 99}, "E_STORE_VERSION"),
        ({"name": 7}, "E_CORRUPT"),
        ({"id_range": [1]}, "E_CORRUPT"),
        ({"ports": [{"host": "a", "container": 1}]}, "E_CORRUPT"),
        ({"unknown": 1}, "E_STORE_VERSION"),
        ({"ready": {"kind": "", "unknown": 1}}, "E_STORE_VERSION"),
        ({"layers": "aa"}, "E_CORRUPT"),
    ],
    ids=str,
)
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, object], code: str) -> None:
    bundle.write(Bundle(path=tmp_path, record=RECORD))
    value = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(value | change))

    with pytest.raises(ResourceError) as caught:
        bundle.read(tmp_path)

    assert caught.value.code == code


def test_an_empty_record_is_damage(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"")

    with pytest.raises(ResourceError, match="E_CORRUPT"):
        bundle.read(tmp_path)


def test_a_folder_of_lxcs_is_a_container_too(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("lxc.uts.name = x\n")

    assert bundle.read(tmp_path).record.template == ""


def test_an_empty_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="E_NOTFOUND"):
        bundle.read(tmp_path)


@pytest.mark.parametrize("name", ["a", "web-1", "A.b_c", "0" * 63])
def test_names_that_a_container_can_have(name: str) -> None:
    assert bundle.is_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "a/b", "-a", ".a", "a\n", "é", "0" * 64, "a b"]
)
def test_names_that_a_container_cannot_have(name: str) -> None:
    assert not bundle.is_name(name)
