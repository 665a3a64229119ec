"""What a hostile end of `cp` sends lands where it may, or nowhere."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from runtime import transfer


def heads(*items: dict[str, object]) -> bytes:
    out = b""
    for item in items:
        data = json.dumps(item).encode()
        out += struct.pack("=I", len(data)) + data
    return out


def taken(place: Path, stream: bytes) -> bytes:
    """Return what is wrong with `stream` when it is received as place/got."""
    reading, writing = os.pipe()
    os.write(writing, stream)
    os.close(writing)
    try:
        return transfer.guarded(lambda: transfer.receive(str(place), "got", reading))
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    "path", ["..", "../x", "/etc/x", "a/../../x", "a//b", "a\0b", "./x", "a/"], ids=repr
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    folder = {"kind": "d", "path": "", "mode": 0o755, "time": 0}
    said = taken(tmp_path, heads(folder, {**folder, "path": path}, {"kind": "end"}))

    assert b"a name that may not be" in said
    assert os.listdir(tmp_path) == ["got"]


def test_a_link_that_was_sent_is_not_followed_by_what_is_sent_next(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    place = tmp_path / "place"
    place.mkdir()
    folder = {"kind": "d", "path": "", "mode": 0o755, "time": 0}
    link = {"kind": "l", "path": "out", "to": str(canary), "mode": 0, "time": 0}
    file = {"kind": "f", "path": "out/x", "size": 0, "mode": 0o644, "time": 0}

    said = taken(place, heads(folder, link, file, {"kind": "end"}))

    assert said
    assert os.listdir(canary) == []


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\xff\xff\xff\xff",
        struct.pack("=I", 3) + b"[]]",
        heads({"kind": "f", "path": "", "size": 9, "mode": 0, "time": 0}) + b"short",
        heads({"kind": "c", "path": "", "mode": 0, "time": 0}),
        heads({"kind": "f", "path": "", "size": -1, "mode": 0, "time": 0}),
        heads({"kind": "f", "path": "", "size": True, "mode": 0, "time": 0}),
    ],
)
def test_a_stream_that_is_none_is_an_error(tmp_path: Path, stream: bytes) -> None:
    assert taken(tmp_path, stream)


def test_what_would_lend_rights_does_not_travel(tmp_path: Path) -> None:
    file = {"kind": "f", "path": "", "size": 1, "mode": 0o6755, "time": 0}

    assert taken(tmp_path, heads(file)[:] + b"x" + heads({"kind": "end"})) == b""
    assert (tmp_path / "got").stat().st_mode & 0o7777 == 0o755


def test_there_and_back_is_the_same(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a/file").write_text("text")
    (source / "link").symlink_to("a/file")
    (tmp_path / "place").mkdir()
    reading, writing = os.pipe()

    assert transfer.guarded(lambda: transfer.send(str(source), writing)) == b""
    os.close(writing)
    assert transfer.guarded(lambda: transfer.receive(f"{tmp_path}/place", "n", reading)) == b""
    os.close(reading)

    assert (tmp_path / "place/n/a/file").read_text() == "text"
    assert os.readlink(tmp_path / "place/n/link") == "a/file"
