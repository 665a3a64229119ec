"""What a process that renders a stranger's template can do beside rendering: nothing (T-62)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mktemplate.errors import CommandError
from mktemplate.template import jail

Texts = tuple[dict[str, str], dict[str, bytes]]


def outcome(act: Callable[[], object]) -> str:
    """Return what `act` came to in there: what it returned, or the kind of its failure."""

    def tried() -> Texts:
        try:
            return {"came": str(act())}, {}
        except OSError as error:
            return {"came": type(error).__name__}, {}

    return jail.confined(tried, "mine")[0]["came"]


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path("/etc/hostname").read_text(),
        lambda: os.listdir("/"),
        lambda: os.stat("/etc/shadow"),
        socket.socket,
        lambda: socket.socket(socket.AF_UNIX),
        lambda: os.execv("/bin/true", ["true"]),
        os.fork,
        lambda: os.kill(os.getppid(), 0),
        lambda: os.unlink("/nonexistent"),
        lambda: os.setuid(0),
        lambda: os.memfd_create("x"),
    ],
    ids=[
        "open",
        "list",
        "stat",
        "inet",
        "unix",
        "exec",
        "fork",
        "kill",
        "unlink",
        "setuid",
        "memfd",
    ],
)
def test_it_reaches_nothing_of_the_host(act: Callable[[], object]) -> None:
    assert outcome(act) == "PermissionError"


def test_it_has_no_descriptor_of_its_parents(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w+") as secret:
        secret.write("secret")
        secret.flush()

        assert outcome(lambda: os.pread(secret.fileno(), 6, 0)) != "secret"
        assert outcome(lambda: os.write(secret.fileno(), b"x")) == "OSError"
    assert (tmp_path / "secret").read_text() == "secret"


def test_what_it_prints_is_not_heard(capfd: pytest.CaptureFixture[str]) -> None:
    assert outcome(lambda: os.write(1, b"heard") + os.write(2, b"heard")) == "10"

    assert capfd.readouterr() == ("", "")


def test_it_answers_and_is_gone() -> None:
    children = Path("/proc/thread-self/children")
    before = children.read_text()

    texts, bodies = jail.confined(lambda: ({"a": "ä"}, {"b": b"\xff"}), "mine")

    assert (texts, bodies) == ({"a": "ä"}, {"b": b"\xff"})
    assert children.read_text() == before


def test_what_is_no_failure_of_the_contract_is_told_by_its_kind() -> None:
    with pytest.raises(CommandError, match="ZeroDivisionError"):
        jail.confined(lambda: ({"a": str(1 // 0)}, {}), "mine")
