"""`export --format portable`: what portablectl attaches; that itself needs systemd as PID 1 (docs/shipping.md)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.command import Mkt

pytestmark = pytest.mark.system


def test_the_unit_is_systemds_and_what_changes_lies_outside_the_image(
    mkt: Mkt, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("mksquashfs", "unsquashfs", "systemd-analyze")
    mkt.ok("create", "busybox", "web", "--distro", "debian", "--no-sync", "--memory", "64M")
    for name in ("web.raw", "again.raw"):
        told = mkt("export", "web", "-o", f"{tmp_path}/{name}", "--format", "portable")
        assert told.returncode == 0, told.stderr
    root = tmp_path / "root"
    subprocess.run(["unsquashfs", "-q", "-d", root, tmp_path / "web.raw"], check=True)

    verified = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", "--man=no", "--recursive-errors=no",
         "/usr/lib/systemd/system/web.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (tmp_path / "web.raw").read_bytes() == (tmp_path / "again.raw").read_bytes()
    assert "portablectl attach" in told.stderr  # the name of that file is not the unit's
    assert (verified.returncode, verified.stderr) == (0, "")
    assert os.listdir(root / "usr/lib/systemd/system") == ["web.service"]
    assert sorted(os.listdir(root / "etc")) == ["machine-id", "resolv.conf"]
    assert os.listdir(root / "var") == []
    assert (root / "usr/lib/os-release").is_file()
    assert (root / "usr/lib/mktemplate/state/etc/passwd").is_file()
    unit = (root / "usr/lib/systemd/system/web.service").read_text().split("\n")
    assert "MemoryMax=67108864" in unit
    assert "NoNewPrivileges=yes" in unit
    assert "SuccessExitStatus=143" in unit
    assert "BindPaths=/var/lib/web/etc:/etc" in unit
    assert not (root / "usr/lib/mktemplate/state/etc/machine-id").exists()  # systemd binds its own
    [calls] = [line for line in unit if line.startswith("SystemCallFilter=")]
    assert " mount " not in calls
    assert " openat " in calls
