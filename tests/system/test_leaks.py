"""What a container leaves behind: nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.system.command import CHECKOUT, Mkt

pytestmark = pytest.mark.system
# As process 1 a shell takes in the orphans that end, as a host's init does.
FIRST = 'ip link set lo up; "$@"'


def test_twenty_rounds_leave_the_host_as_it_was_and_prune_takes_the_bridge_down(mkt: Mkt) -> None:
    mkt.ok("create", "sshd", "--distro", "debian")
    mkt.ok("destroy", "sshd")
    alone = ("unshare", "-mnpf", "--mount-proc", "--propagation", "private", "sh", "-ec", FIRST)

    done = subprocess.run(
        [*alone, "sh", sys.executable, "-P", "-m", "tests.system.leaks", mkt.path],
        env=mkt.environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    before, after, dry, pruned = json.loads(done.stdout)
    assert "mkt0" in before["links"]
    assert after == before
    assert after["control groups"] == after["states"] == []
    assert dry == before
    assert pruned["links"] == ["lo"]
    assert "mktemplate" not in pruned["rules"]
