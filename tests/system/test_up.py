"""`mktemplate up`: from nothing to a service that answers its real client."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.system.command import Mkt, free_port

pytestmark = pytest.mark.system
CONTAINER = {
    "name", "state", "ready", "template", "distro", "release", "arch", "pid", "path", "ips", "ports",
    "created", "started", "exit_status",
}  # fmt: skip
TIMINGS = {"index", "resolve", "download", "unpack", "configure", "launch", "ready", "total"}


def test_up_prints_the_documented_object(mkt: Mkt) -> None:
    told = mkt.json("up", "sshd", "--distro", "debian")

    assert set(told) >= CONTAINER | {"timings"}
    assert (told["name"], told["state"], told["ready"]) == ("sshd", "RUNNING", True)
    assert (told["template"], told["distro"], told["release"]) == ("sshd", "debian", "trixie")
    assert set(told["timings"]) == TIMINGS
    assert Path(f"/proc/{told['pid']}").exists()


def test_a_second_up_changes_nothing(mkt: Mkt) -> None:
    first = mkt.json("up", "sshd", "--distro", "debian")

    second = mkt.json("up", "sshd", "--distro", "debian")

    assert {key: second[key] for key in CONTAINER} == {key: first[key] for key in CONTAINER}


def test_a_second_up_names_the_options_that_differ(mkt: Mkt) -> None:
    mkt.ok("up", "nginx", "--distro", "debian")

    again = mkt("up", "nginx", "--distro", "debian", "--publish", f"{free_port()}:80")

    assert again.returncode == 0
    assert "publish" in again.stderr


def test_ssh_logs_in_with_the_key_made_for_the_container(mkt: Mkt) -> None:
    mkt.ok("up", "sshd", "--distro", "debian")

    told = mkt.ok("ssh", "sshd", "id -u; hostname; cat /proc/self/uid_map")

    uid, hostname, uid_map = told.splitlines()[:3]
    assert (uid, hostname) == ("0", "sshd")
    assert uid_map.split()[1] != "0"


def test_a_plain_ssh_client_logs_in_with_a_given_key(mkt: Mkt, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)

    [ip] = mkt.json("up", "sshd", "--distro", "debian", "--ssh-key", f"{key}.pub")["ips"]

    told = subprocess.run(
        ["ssh", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
         "-o", f"UserKnownHostsFile={tmp_path}/known", f"root@{ip}", "id -un"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert told.stdout == "root\n", told.stderr
    assert "ed25519" in (tmp_path / "known").read_text()


def test_inside_only_the_container_is_seen(mkt: Mkt) -> None:
    mkt.ok("up", "sshd", "--distro", "debian")

    processes = mkt.ok("ssh", "sshd", "for p in /proc/[0-9]*; do cat $p/comm; done")
    mounts = mkt.ok("ssh", "sshd", "cat /proc/self/mountinfo")
    first = mkt.ok("ssh", "sshd", "tr '\\0' ' ' < /proc/1/cmdline")

    assert "sshd" in first
    assert {line for line in processes.split()} <= {
        "sshd",
        "sshd-session",
        "sshd-auth",
        "bash",
        "cat",
        "sh",
    }
    assert str(mkt.path) not in re.sub(r"(lowerdir|upperdir|workdir)=\S*", "", mounts)


def test_nginx_answers_on_its_published_port(mkt: Mkt) -> None:
    port = free_port()

    told = mkt.json("up", "nginx", "--distro", "debian", "--publish", f"{port}:80")

    assert told["ports"] == [
        {"address": "127.0.0.1", "host": port, "container": 80, "proto": "tcp"}
    ]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert answer.status == 200
        assert "nginx" in answer.headers["Server"]


def test_base_is_ready_at_once_with_our_init_and_nothing_else(mkt: Mkt) -> None:
    told = mkt.json("up", "base", "--distro", "debian")

    comms = mkt.ok("exec", "base", "--", "sh", "-c", "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l")
    assert told["ready"] is True
    assert comms.split()[0] in {"init", "reaper"}


def test_exec_hands_on_the_status_of_the_command(mkt: Mkt) -> None:
    mkt.ok("up", "base", "--distro", "debian")

    assert mkt("exec", "base", "--", "sh", "-c", "exit 42").returncode == 42
    assert mkt("exec", "base", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert mkt("exec", "base", "--", "/nonexistent").returncode == 127
    assert mkt("exec", "base", "--", "/etc/passwd").returncode == 126


def test_exec_takes_user_directory_and_environment(mkt: Mkt) -> None:
    mkt.ok("up", "base", "--distro", "debian")

    told = mkt.ok(
        "exec", "--user", "nobody", "--cwd", "/usr", "--env", "COLOUR=blue", "base", "--",
        "sh", "-c", "id -un; pwd; echo $COLOUR",
    )  # fmt: skip

    assert told.split() == ["nobody", "/usr", "blue"]


def test_run_is_ephemeral_and_hands_on_the_status(mkt: Mkt) -> None:
    done = mkt("run", "base", "--distro", "debian", "--", "sh", "-c", "echo hello; exit 7")

    assert (done.returncode, done.stdout) == (7, "hello\n")
    assert mkt.names() == []


def test_bookworm_runs_as_well(mkt: Mkt) -> None:
    told = mkt.json("up", "sshd", "--distro", "debian", "--release", "bookworm")

    assert told["release"] == "bookworm"
    assert mkt.ok("ssh", "sshd", "cat /etc/debian_version").startswith("12")


def test_stop_ends_sshd_by_its_own_signal(mkt: Mkt) -> None:
    pid = mkt.json("up", "sshd", "--distro", "debian")["pid"]

    stopped = mkt("stop", "--timeout", "1", "sshd")

    assert stopped.returncode == 0
    assert not Path(f"/proc/{pid}").exists()
    assert mkt.json("info", "sshd")["state"] == "STOPPED"


def test_a_restarted_container_keeps_its_host_key_and_address(mkt: Mkt) -> None:
    before = mkt.json("up", "sshd", "--distro", "debian")
    key = mkt.ok("ssh", "sshd", "cat /etc/ssh/ssh_host_ed25519_key.pub")

    mkt.ok("restart", "sshd")
    mkt.ok("wait", "sshd", "--state", "READY", "--timeout", "20")

    assert mkt.ok("ssh", "sshd", "cat /etc/ssh/ssh_host_ed25519_key.pub") == key
    assert mkt.json("info", "sshd")["ips"] == before["ips"]


def test_two_containers_of_one_template_share_no_key(mkt: Mkt) -> None:
    keys = []
    for name in ("one", "two"):
        mkt.ok("up", "sshd", name, "--distro", "debian")
        keys.append(
            mkt.ok("ssh", name, "cat /etc/ssh/ssh_host_ed25519_key.pub /etc/machine-id").split()
        )

    assert not {keys[0][1], keys[0][-1]} & {keys[1][1], keys[1][-1]}


def test_logs_show_what_the_service_wrote(mkt: Mkt) -> None:
    mkt.ok("up", "sshd", "--distro", "debian")

    assert "Server listening on" in mkt.ok("logs", "sshd")


def test_a_destroyed_container_leaves_its_layers_to_the_next(mkt: Mkt) -> None:
    mkt.ok("up", "sshd", "--distro", "debian")
    mkt.ok("destroy", "--force", "sshd")

    timings = mkt.json("create", "sshd", "--distro", "debian")["timings"]

    assert (timings["unpack"], timings["configure"]) == (0, 0)


def test_the_shared_host_flavour_answers_ssh_without_a_network_fetch(cold: Mkt) -> None:
    told = cold.json("up", "sshd", "--share-host", "--mirror", "http://127.0.0.1:9/")

    assert told["ready"] is True
    assert cold.ok("ssh", "sshd", "hostname") == "sshd\n"
    assert not any((cold.path / ".store/layers").glob("*/root/usr/sbin/sshd"))


def test_plan_is_the_essential_closure_and_then_the_service(mkt: Mkt) -> None:
    base = mkt.json("plan", "base", "--distro", "debian")
    sshd = mkt.json("plan", "sshd", "--distro", "debian")

    names = {package["name"] for package in sshd["packages"]}
    assert {p["name"] for p in base["packages"]} == {
        p["name"] for p in sshd["packages"] if p["layer"] == "base"
    }
    assert {"dpkg", "bash", "openssh-server", "openssh-sftp-server"} <= names
    assert sshd["download_size"] >= sum(p["size"] for p in sshd["packages"] if not p["cached"])
