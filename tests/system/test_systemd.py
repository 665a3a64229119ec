"""Template `system`: the distribution's own systemd as PID 1, on whatever control groups this host has."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from glob import glob
from pathlib import Path

import pytest

from tests.system.command import Mkt

pytestmark = pytest.mark.system


def inside(mkt: Mkt, script: str) -> str:
    return mkt.ok("exec", "system", "--", "sh", "-c", script).strip()


def test_systemd_runs_with_fourteen_capabilities_and_no_unit_fails(mkt: Mkt) -> None:
    mkt.ok("up", "system", "--distro", "debian")

    assert inside(mkt, "cat /proc/1/comm; systemctl is-system-running") == "systemd\nrunning"
    assert inside(mkt, "systemctl --failed --no-legend --plain") == ""
    effective = inside(mkt, "sed -n 's/^CapEff:\\s*//p' /proc/1/status")
    assert int(effective, 16).bit_count() == 14
    assert (
        inside(mkt, "systemctl is-active dbus systemd-logind systemd-journald").split()
        == ["active"] * 3
    )


def test_a_service_of_the_system_gets_limits_of_its_own_and_leaves_nothing(mkt: Mkt) -> None:
    mkt.ok("up", "system", "--distro", "debian")
    groups = mkt.json("info", "system")["limits"]
    unit = "systemd-run --unit=probe -p TasksMax=7 -p Type=exec sleep 1000"

    inside(mkt, unit)
    limit = inside(mkt, "find /sys/fs/cgroup -path '*probe.service/pids.max' -exec cat {} +")
    raised = "echo max >/sys/fs/cgroup/pids/pids.max || echo max >/sys/fs/cgroup/pids.max"
    above = mkt("exec", "system", "--", "sh", "-c", raised)
    agents = inside(mkt, "find /sys/fs/cgroup -name release_agent")

    assert limit == "7"
    assert groups["pids.max"] == "4096"
    assert above.returncode != 0
    assert agents == ""  # T-50: what root's agent could be had through


def test_stop_halts_it_as_systemd_wants_and_its_groups_go_with_it(mkt: Mkt) -> None:
    mkt.ok("up", "system", "--distro", "debian")
    inside(mkt, "systemd-run --unit=late -p ExecStop='/bin/touch /root/stopped' sleep 1000")
    began = time.monotonic()

    mkt.ok("stop", "system")

    assert time.monotonic() - began < 8  # it was not killed after the ten seconds
    told = mkt.json("info", "system")
    assert (told["state"], told["exit_status"]) == ("STOPPED", 0)
    assert (Path(told["path"]) / "upper/root/stopped").exists()
    left = glob("/sys/fs/cgroup/**/late.service", recursive=True)
    assert left == []
    mkt.ok("start", "system")
    mkt.ok("wait", "system", "--state", "READY", "--timeout", "60")


def test_the_console_has_a_login_prompt(mkt: Mkt) -> None:
    mkt.ok("up", "system", "--distro", "debian")
    command = [
        sys.executable,
        "-P",
        "-m",
        "mktemplate",
        "--path",
        str(mkt.path),
        "console",
        "system",
    ]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command, mkt.environment)
    for awaited, answer in ((b"leaves", b"\r"), (b"login: ", b"nobody\r"), (b"Password:", b"")):
        seen = b""
        while awaited not in seen:
            assert select.select([terminal], [], [], 20)[0], seen
            seen += os.read(terminal, 4096)
        os.write(terminal, answer)
    os.write(terminal, b"\x01q")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_systemd_is_not_started_without_a_user_namespace(mkt: Mkt) -> None:
    refused = mkt("create", "system", "--no-userns")

    assert refused.returncode == 2
    assert "profile system needs a user namespace" in refused.stderr
