"""A container of LXC's own, as Debian's lxc and lxc-templates configure it, is started as it is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.system.command import Mkt

pytestmark = [pytest.mark.system, pytest.mark.slow]
CONFIG = """\
lxc.include = /usr/share/lxc/config/debian.common.conf
lxc.include = /usr/share/lxc/config/debian.userns.conf
lxc.arch = amd64
lxc.apparmor.profile = unconfined
{ids}
lxc.rootfs.path = dir:{root}
lxc.rootfs.options = idmap=container
lxc.uts.name = stock
lxc.net.0.type = empty
"""
# what its 41 capabilities let systemd try, in a user namespace that may not: so it is under lxc-start, too
FAILS = {"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-modules-load.service"}


def test_debians_systemd_boots_from_debians_own_configs(mkt: Mkt, tmp_path: Path) -> None:
    if not Path("/usr/share/lxc/config/debian.common.conf").exists():
        pytest.skip("this machine lacks lxc-templates")
    mkt.ok("create", "system", "made", "--distro", "debian", "--flat")
    lines = (mkt.path / "made/config").read_text().split("\n")
    folder = mkt.path.parent / "stock"
    folder.mkdir(mode=0o755)
    try:
        (mkt.path / "made/rootfs").rename(folder / "rootfs")
        ids = "\n".join(line for line in lines if line.startswith("lxc.idmap"))
        (folder / "config").write_text(CONFIG.format(ids=ids, root=folder / "rootfs"))
        mkt.ok("adopt", str(folder))

        mkt.ok("start", "stock")
        deadline, state = time.monotonic() + 120, ""
        while state not in {"running", "degraded"} and time.monotonic() < deadline:
            state = mkt("exec", "stock", "--", "systemctl", "is-system-running").stdout.strip()
            time.sleep(0.5)
        failed = mkt.ok("exec", "stock", "--", "systemctl", "--failed", "--plain", "--no-legend")
        mkt.ok("stop", "stock", "--timeout", "60")

        assert state in {"running", "degraded"}
        assert {line.split()[0] for line in failed.splitlines()} <= FAILS
        assert mkt.json("info", "stock")["exit_status"] in (0, 130)
    finally:
        mkt("destroy", "--force", "stock")
        shutil.rmtree(folder)
