"""`export`: what other engines make of it. Each container answers its own client there."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.cell import Cell, cell, until
from tests.system.command import Mkt

pytestmark = pytest.mark.system
Needs = Callable[..., None]


@pytest.fixture
def apart() -> Iterator[Cell]:
    """Namespaces in which an engine and its clients are alone."""
    with cell() as made:
        yield made


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets (unix(7): 108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="mkt-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key pair's private half."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True
    )
    return tmp_path / "key"


@pytest.fixture
def sshd(mkt: Mkt, key: Path) -> str:
    """A container that was never started."""
    mkt.ok("create", "sshd", "Web.1", "--distro", "debian", "--ssh-key", f"{key}.pub")
    return "Web.1"


def answers(apart: Cell, key: Path, address: str, command: str = "hostname") -> bool:
    return apart.run(*ssh(key, address), command, timeout=30).returncode == 0


def ssh(key: Path, address: str) -> tuple[str | Path, ...]:
    return (
        "ssh", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
        "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", f"root@{address}",
    )  # fmt: skip


def listing(root: Path) -> str:
    """Return all that a tree consists of, but for times."""
    told = "find . -printf '%p %y %m %U:%G %n %l\\n'; find . -type f -print0 | xargs -0 sha256sum"
    done = subprocess.run(
        f"({told}) | sort", shell=True, cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_what_only_ran_is_exported_as_what_never_did(mkt: Mkt, sshd: str, tmp_path: Path) -> None:
    kinds = {"oci": "oci.tar", "tar": "tar.zst"}
    for name, suffix in kinds.items():
        mkt.ok("export", sshd, "-o", str(tmp_path / f"one.{suffix}"), "--format", name)
    mkt.ok("start", sshd)
    mkt.ok("wait", sshd, "--state", "READY")
    for name, suffix in kinds.items():
        mkt.ok("export", sshd, "-o", str(tmp_path / f"two.{suffix}"), "--format", name)

    for suffix in kinds.values():
        assert (tmp_path / f"one.{suffix}").read_bytes() == (
            tmp_path / f"two.{suffix}"
        ).read_bytes()
    assert mkt.json("info", sshd)["state"] == "RUNNING"


def test_umoci_unpacks_the_layers_to_what_the_flat_tar_holds(
    mkt: Mkt, sshd: str, tmp_path: Path, needs: Needs
) -> None:
    needs("umoci", "skopeo")
    mkt.ok("start", sshd)
    changes = "rm /etc/issue; rm -r /usr/share/doc; mkdir /usr/share/doc; echo new >/srv/file"
    mkt.ok("exec", sshd, "--", "sh", "-c", changes)
    mkt.ok("stop", sshd)

    mkt.ok("export", sshd, "-o", f"{tmp_path}/layout/", "--format", "oci")
    mkt.ok("export", sshd, "-o", f"{tmp_path}/flat.tar.gz")

    layout = f"{tmp_path}/layout"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:web.1", tmp_path / "one"], check=True)
    (tmp_path / "two").mkdir()
    flat = ["tar", "--numeric-owner", "--xattrs", "-xf", tmp_path / "flat.tar.gz"]
    subprocess.run([*flat, "-C", tmp_path / "two"], check=True)
    assert listing(tmp_path / "one/rootfs") == listing(tmp_path / "two")
    copied = [
        "skopeo",
        "--insecure-policy",
        "copy",
        f"oci:{layout}:web.1",
        f"dir:{tmp_path}/copied",
    ]
    subprocess.run(copied, check=True, capture_output=True)
    told = subprocess.run(
        ["skopeo", "inspect", f"oci:{layout}:web.1"], check=True, capture_output=True
    ).stdout
    assert len(json.loads(told)["Layers"]) == 4


def test_podman_runs_the_oci_archive_and_it_answers(
    mkt: Mkt, sshd: str, key: Path, tmp_path: Path, apart: Cell, needs: Needs
) -> None:
    needs("podman")
    mkt.ok("export", sshd, "-o", f"{tmp_path}/web.tar", "--format", "oci")
    podman = (
        "podman", "--root", tmp_path / "images", "--runroot", tmp_path / "run",
        "--cgroup-manager", "cgroupfs",
    )  # fmt: skip

    apart.ok(*podman, "load", "-q", "-i", tmp_path / "web.tar")
    apart.ok(*podman, "run", "-d", "--name", "web", "--network", "host", "localhost/web.1")
    try:
        until(lambda: answers(apart, key, "127.0.0.1"), 20)

        told = apart.ok(
            *ssh(key, "127.0.0.1"), "cat /etc/machine-id; tr '\\0' ' ' </proc/1/cmdline"
        )
        assert len(told.splitlines()[0]) == 32
        assert "sshd" in told.splitlines()[1]
        apart.ok(*podman, "stop", "-t", "8", "web")
        assert apart.ok(*podman, "wait", "web").strip() == "0"
    finally:
        apart.run(*podman, "rm", "-f", "-t", "0", "web")
        apart.run("umount", tmp_path / "images/overlay")


def test_strict_refuses_what_the_format_does_not_carry(mkt: Mkt, sshd: str, tmp_path: Path) -> None:
    done = mkt("export", sshd, "-o", f"{tmp_path}/web.tar", "--strict")

    assert done.returncode == 2
    assert "error[E_PARAM]: Web.1 --strict: tar does not carry its readiness check" in done.stderr
    assert not (tmp_path / "web.tar").exists()


@pytest.mark.slow
def test_docker_runs_the_docker_archive_and_finds_it_healthy(
    mkt: Mkt, sshd: str, key: Path, short: Path, apart: Cell, needs: Needs
) -> None:
    needs("dockerd", "docker")
    mkt.ok("export", sshd, "-o", f"{short}/web.tar", "--format", "docker", "--strict")
    docker = ("docker", "-H", f"unix://{short}/socket")
    daemon = (
        "dockerd", "--data-root", short / "data", "--exec-root", short / "run", "-p", short / "pid",
        "-H", f"unix://{short}/socket", "--bridge=none", "--iptables=false", "--ip6tables=false",
    )  # fmt: skip

    with apart.running(*daemon, log=short / "log"):
        until(lambda: apart.run(*docker, "info").returncode == 0, 20, (short / "log").read_text)
        assert "web.1:latest" in apart.ok(*docker, "load", "-i", short / "web.tar")
        apart.ok(*docker, "run", "-d", "--name", "web", "--network", "host", "web.1")
        until(lambda: answers(apart, key, "127.0.0.1"), 20)

        health = (*docker, "inspect", "-f", "{{.State.Health.Status}}", "web")
        until(lambda: apart.ok(*health).strip() == "healthy", 40)
        apart.ok(*docker, "stop", "-t", "8", "web")
        assert apart.ok(*docker, "inspect", "-f", "{{.State.ExitCode}}", "web").strip() == "0"
        apart.ok(*docker, "rm", "web")
