"""Users are read from a rootfs's own files, strictly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import passwd
from runtime.errors import LaunchError


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(
        b"root:x:0:0:root:/root:/bin/bash\n1000:x:0:0::/:/bin/sh\nweb:x:33:34:Web:/var/www:\ntoo:few\n"
    )
    (tmp_path / "etc/group").write_bytes(b"web:x:34:\nadm:x:4:web,other\ngames:x:60:other\n")
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_user_has_its_groups_home_and_shell(root: int) -> None:
    account = passwd.find(root, "web")

    assert (account.uid, account.gid, account.groups) == (33, 34, (4,))
    assert (account.home, account.shell) == ("/var/www", "/bin/sh")


def test_a_number_is_never_a_name(root: int) -> None:
    assert passwd.find(root, "1000").uid == 1000


def test_a_group_that_is_named_takes_the_place_of_the_users(root: int) -> None:
    assert passwd.find(root, "web:games").gid == 60
    assert passwd.find(root, "web:7").gid == 7


@pytest.mark.parametrize(
    "text", ["", "who", "0x10", "4294967296", "web:who", "web:", "too", "r\noot"]
)
def test_what_cannot_be_meant_is_refused(root: int, text: str) -> None:
    with pytest.raises(LaunchError, match="E_USER"):
        passwd.find(root, text)


@pytest.mark.attack
def test_a_link_that_leaves_the_root_is_resolved_inside(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").symlink_to("/etc/hostname")

    with pytest.raises(LaunchError, match="no user of this container"):
        passwd.find(root, "root")


@pytest.mark.attack
def test_a_fifo_is_refused_without_waiting(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").unlink()
    os.mkfifo(tmp_path / "etc/passwd")

    with pytest.raises(LaunchError, match="E_ROOTFS_FILE"):
        passwd.find(root, "root")
