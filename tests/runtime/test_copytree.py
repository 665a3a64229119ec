"""A container's tree is copied as it is on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime import copytree

pytestmark = pytest.mark.root


def test_everything_that_an_upper_holds_is_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "opaque/inner").mkdir(parents=True)
    target.mkdir()
    os.setxattr(source / "opaque", "user.overlay.opaque", b"y")
    os.mknod(source / "gone", stat.S_IFCHR, 0)
    (source / "file").write_text("text")
    os.link(source / "file", source / "opaque/inner/same")
    os.chown(source / "file", 12, 34)
    os.chmod(source / "file", 0o4750)
    (source / "link").symlink_to("/etc/shadow")
    os.mkfifo(source / "fifo")
    with (source / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    os.utime(source / "opaque", ns=(1, 2))

    copytree.copy(tmp_path, "source", "target")

    assert os.getxattr(target / "opaque", "user.overlay.opaque") == b"y"
    gone = os.lstat(target / "gone")
    assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
    about = os.stat(target / "file")
    assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (12, 34, 0o4750)
    assert os.path.samefile(target / "file", target / "opaque/inner/same")
    assert os.readlink(target / "link") == "/etc/shadow"
    assert stat.S_ISFIFO(os.lstat(target / "fifo").st_mode)
    assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert os.stat(target / "sparse").st_blocks * 512 < 1 << 20
    assert os.stat(target / "opaque").st_mtime_ns == 2
