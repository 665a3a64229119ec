"""What a container finds in /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import etcfiles


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
        (
            "search a.example b.example\nnameserver 192.0.2.1\n",
            "search a.example b.example\nnameserver 192.0.2.1\n",
        ),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
        ("nameserver ::1\nnameserver 2001:db8::1\n", "nameserver 2001:db8::1\n"),
        (
            "nameserver x; rm\noptions ndots:5\nnameserver 192.0.2.9 # note\n",
            "nameserver 192.0.2.9\n",
        ),
        (
            "search $(id) ok.example\nnameserver 192.0.2.1\n",
            "search ok.example\nnameserver 192.0.2.1\n",
        ),
        ("nameserver 127.0.0.1\n", ""),
    ],
)
def test_only_servers_that_a_container_can_reach_are_taken(
    tmp_path: Path, text: str, rendered: str
) -> None:
    (tmp_path / "resolv.conf").write_text(text)

    assert etcfiles.resolvers([str(tmp_path / "resolv.conf")]) == rendered


def test_behind_a_stub_the_second_file_counts(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("nameserver 192.0.2.1\n")

    assert (
        etcfiles.resolvers([str(tmp_path / "stub"), str(tmp_path / "real")])
        == "nameserver 192.0.2.1\n"
    )


def test_a_container_finds_itself() -> None:
    assert "10.0.0.2 web\n" in etcfiles.hosts("web", ["10.0.0.2/24"])
    assert "127.0.1.1 web\n" in etcfiles.hosts("web", [])


def test_the_files_are_rewritten_in_place_and_removed(tmp_path: Path) -> None:
    entries = etcfiles.write(tmp_path / "etc", "web", [])
    inode = (tmp_path / "etc/hosts").stat().st_ino

    etcfiles.write(tmp_path / "etc", "web", ["10.0.0.2"])

    assert (tmp_path / "etc/hosts").stat().st_ino == inode
    assert [entry.target for entry in entries] == ["etc/hosts", "etc/hostname", "etc/resolv.conf"]
    etcfiles.remove(tmp_path / "etc")
    assert not (tmp_path / "etc").exists()
