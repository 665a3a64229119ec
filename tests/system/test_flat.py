"""`create --flat`: the directory that the real LXC starts, unchanged."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.cell import until
from tests.system.command import Mkt

pytestmark = pytest.mark.system
# Debian's profile of lxc-copy lets it copy below /var/lib/lxc only.
UNCONFINED = (
    ("aa-exec", "-p", "unconfined", "--") if Path("/sys/kernel/security/apparmor").exists() else ()
)


def lxc_info(path: Path, name: str, what: str) -> str:
    done = subprocess.run(
        ["lxc-info", "-P", path, "-n", name, what, "-H"], capture_output=True, text=True, timeout=20
    )
    return done.stdout.strip()


def ssh(ip: str, key: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
         "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", f"root@{ip}", command],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip


@pytest.fixture
def started() -> Iterator[Callable[[Path, str], subprocess.Popen[bytes]]]:
    running: list[tuple[Path, str, subprocess.Popen[bytes]]] = []

    def start(path: Path, name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["lxc-start", "-P", path, "-n", name, "-F"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        running.append((path, name, process))
        return process

    yield start
    for path, name, process in running:
        subprocess.run(["lxc-stop", "-P", path, "-n", name, "-k"], timeout=20)
        process.wait(timeout=20)


def test_real_lxc_starts_a_flat_container_and_a_full_copy_of_it(
    mkt: Mkt, tmp_path: Path, started: Callable[[Path, str], subprocess.Popen[bytes]]
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    mkt.ok("create", "sshd", "s2", "--flat", "--distro", "debian", "--ssh-key", f"{key}.pub")

    started(mkt.path, "s2")
    until(lambda: lxc_info(mkt.path, "s2", "-i"), 20)
    ip = lxc_info(mkt.path, "s2", "-i").split()[0]
    until(lambda: ssh(ip, key, "true").returncode == 0, 20)

    told = ssh(ip, key, "hostname; tr '\\0' ' ' </proc/1/cmdline; cat /proc/self/uid_map").stdout
    assert told.startswith("s2\n")
    assert told.splitlines()[-1].split()[1] != "0"

    subprocess.run(["lxc-stop", "-P", mkt.path, "-n", "s2", "-k"], check=True, timeout=20)
    copy = ("lxc-copy", "-P", mkt.path, "-n", "s2", "-N", "s3")
    subprocess.run([*UNCONFINED, *copy], check=True, timeout=120)
    started(mkt.path, "s3")
    until(lambda: lxc_info(mkt.path, "s3", "-s") == "RUNNING", 20)
    subprocess.run(["lxc-stop", "-P", mkt.path, "-n", "s3", "-k"], check=True, timeout=20)
    subprocess.run(["lxc-destroy", "-P", mkt.path, "-n", "s3"], check=True, timeout=60)


def test_our_own_runtime_starts_the_flat_container_too(mkt: Mkt) -> None:
    mkt.ok("create", "sshd", "flat", "--flat", "--distro", "debian")

    mkt.ok("start", "flat")
    mkt.ok("wait", "flat", "--state", "READY", "--timeout", "20")

    assert mkt.ok("ssh", "flat", "hostname") == "flat\n"
