"""Which keys may log in, and which private keys ssh is to try."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mktemplate.errors import CommandError
from mktemplate.template import keys

ONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvT0mJ7Yx2o0mJ1M9s5cT6aV3t3nqkq0q3m5s9Jx7kq"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def test_the_callers_public_keys_are_taken(home: Path) -> None:
    (home / ".ssh" / "work.pub").write_text(f"{ONE} me@work\n")
    (home / ".ssh" / "broken.pub").symlink_to("/nonexistent")
    (home / ".ssh" / "notes.pub").write_text("not a key\n")

    chosen = keys.choose((), {"HOME": str(home)})

    assert chosen == keys.Keys(lines=(f"{ONE} me@work",), made=False)


def test_without_any_key_a_pair_is_to_be_made(home: Path) -> None:
    assert keys.choose((), {"HOME": str(home)}) == keys.Keys(lines=(), made=True)


def test_a_given_key_stands_alone(home: Path, tmp_path: Path) -> None:
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{ONE} mine\n")
    given = tmp_path / "given.pub"
    given.write_text(f"# for the guest\n{ONE} guest\n")

    assert keys.choose((str(given),), {"HOME": str(home)}).lines == (f"{ONE} guest",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAJ0 old",
        f'command="/bin/sh" {ONE}',
        f"{ONE} a\x1b[31mb",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
    ids=["empty", "words", "dsa", "options", "escape", "private"],
)
def test_what_is_no_plain_public_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key.pub"
    file.write_text(text + "\n")

    with pytest.raises(CommandError) as raised:
        keys.read(str(file))

    assert raised.value.code == "E_PARAM"


def test_a_key_pair_is_made_whole_and_private(tmp_path: Path, needs: Callable[..., None]) -> None:
    needs("ssh-keygen")

    line = keys.make_pair(tmp_path / "ssh", "web")

    assert line.startswith("ssh-ed25519 ")
    assert (tmp_path / "ssh").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ssh" / "key").stat().st_mode & 0o777 == 0o600


def test_ssh_tries_the_private_keys_beside_the_public_ones(home: Path) -> None:
    (home / ".ssh" / "work.pub").write_text(f"{ONE} me\n")
    (home / ".ssh" / "work").write_text("private")
    (home / ".ssh" / "alone.pub").write_text(f"{ONE} me\n")

    assert keys.identities((), {"HOME": str(home)}) == (str(home / ".ssh" / "work"),)


def test_the_keys_of_the_agent_are_taken(
    home: Path, needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("ssh-agent", "ssh-add", "ssh-keygen")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True
    )
    socket = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        added = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": socket}
        subprocess.run(["ssh-add", "-q", tmp_path / "k"], env=added, check=True)

        chosen = keys.choose((), {"HOME": str(home), "SSH_AUTH_SOCK": socket})

        kind, data = (tmp_path / "k.pub").read_text().split()[:2]
        assert [line.split()[:2] for line in chosen.lines] == [[kind, data]]
    finally:
        agent.terminate()
        agent.wait()
        agent.stdout.close()  # type: ignore[union-attr]  # it is a pipe
