"""The log keeps what was written last, and never grows without bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import log
from runtime.log import Log


def fill(target: Log, *chunks: bytes) -> bool:
    read, write = os.pipe()
    os.set_blocking(read, False)
    for chunk in chunks:
        os.write(write, chunk)
    assert target.take(read)
    os.close(write)
    ended = target.take(read)
    os.close(read)
    return ended


def test_what_comes_is_appended(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")

    assert fill(Log.open(tmp_path / "log"), b"after\n") is False
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


def test_a_full_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LIMIT", 10)
    target = Log.open(tmp_path / "log")
    for chunk in (b"first 89\n", b"second 9\n", b"third\n"):
        fill(target, chunk)

    assert (tmp_path / "log.1").read_bytes() == b"second 9\n"
    assert (tmp_path / "log").read_bytes() == b"third\n"


def test_a_log_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        Log.open(tmp_path / "log")
