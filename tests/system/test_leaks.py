"""What a container leaves behind: nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.command import Mkt

pytestmark = pytest.mark.system


def links() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))


def rules() -> str:
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, timeout=10)
    return done.stdout


def cgroups() -> list[str]:
    return sorted(
        str(path) for path in Path("/sys/fs/cgroup").rglob("*mktemplate*") if path.is_dir()
    )


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def namespaces() -> set[str]:
    """Return the network namespaces that some process is in."""
    seen = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen.add(os.readlink(process / "ns/net"))
        except OSError:
            continue  # it ended while we looked
    return seen


def test_twenty_rounds_of_up_and_destroy_leave_the_host_as_it_was(mkt: Mkt) -> None:
    mkt.ok("up", "sshd", "--distro", "debian")
    mkt.ok("destroy", "--force", "sshd")
    before = (mounts(), links(), rules(), cgroups(), sorted(os.listdir(mkt.path)))
    spaces = namespaces()

    for _ in range(20):
        mkt.ok("up", "sshd", "--distro", "debian")
        mkt.ok("destroy", "--force", "sshd")

    after = (mounts(), links(), rules(), cgroups(), sorted(os.listdir(mkt.path)))
    assert after == before
    assert namespaces() <= spaces
    assert not list(Path("/run/mktemplate").rglob("sshd.json"))


def test_prune_takes_the_bridge_down_when_no_container_is_on_it(mkt: Mkt) -> None:
    mkt.ok("up", "sshd", "--distro", "debian")
    mkt.ok("destroy", "--force", "sshd")

    mkt.ok("prune", "--dry-run")
    assert "mkt0" in links()
    mkt.ok("prune")

    assert "mkt0" not in links()
    assert "mktemplate" not in rules()
