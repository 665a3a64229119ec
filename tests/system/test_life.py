"""The life of containers beyond start and stop, as a user types it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.command import Mkt, until

pytestmark = pytest.mark.system


def inside(mkt: Mkt, name: str, script: str) -> str:
    return mkt.ok("exec", name, "--", "sh", "-c", script).strip()


def test_a_copy_shares_layers_and_nothing_that_must_be_its_own(mkt: Mkt) -> None:
    mkt.ok("up", "base", "one")
    inside(mkt, "one", "echo mine >/root/file; ln /root/file /root/same; rm /etc/issue")

    mkt.ok("copy", "one", "two")

    mkt.ok("start", "two")
    script = "cat /root/file; stat -c %h /root/same; ls /etc | grep -c '^issue$' || true"
    assert inside(mkt, "two", script).split() == ["mine", "2", "0"]
    identities = [inside(mkt, name, "cat /etc/machine-id; hostname") for name in ("one", "two")]
    assert identities[0].split()[0] != identities[1].split()[0]
    assert identities[1].split()[1] == "two"
    infos = [mkt.json("info", name) for name in ("one", "two")]
    assert infos[0]["layers"] == infos[1]["layers"]
    assert infos[0]["ips"] != infos[1]["ips"]
    assert infos[0]["isolation"]["id_range"] != infos[1]["isolation"]["id_range"]


def test_containers_find_each_other_by_name_for_as_long_as_they_run(mkt: Mkt) -> None:
    mkt.ok("up", "base", "one")
    mkt.ok("up", "base", "two")

    found = inside(mkt, "one", "getent hosts two").split()

    assert found == [*mkt.json("info", "two")["ips"], "two"]
    mkt.ok("stop", "two")
    assert until(lambda: mkt("exec", "one", "--", "getent", "hosts", "two").returncode == 2)


def test_a_snapshot_brings_back_what_was_and_goes_with_a_new_name(mkt: Mkt) -> None:
    mkt.ok("up", "base", "one")
    address = mkt.json("info", "one")["ips"]
    inside(mkt, "one", "echo before >/root/file")

    made = mkt.json("snapshot", "one", "create")
    inside(mkt, "one", "echo after >/root/file; rm /etc/issue")
    refused = mkt("snapshot", "one", "restore", made["name"])
    mkt.ok("stop", "one")
    mkt.ok("rename", "one", "uno")
    mkt.ok("snapshot", "uno", "restore", made["name"])

    assert "E_RUNNING" in refused.stderr
    mkt.ok("start", "uno")
    assert inside(mkt, "uno", "cat /root/file; ls /etc/issue; hostname").split() == [
        "before", "/etc/issue", "uno",
    ]  # fmt: skip
    assert mkt.json("info", "uno")["ips"] == address
    assert [one["name"] for one in mkt.json("snapshot", "uno", "list")] == [made["name"]]
    mkt.ok("snapshot", "uno", "delete", made["name"])
    assert mkt.json("snapshot", "uno", "list") == []


@pytest.mark.attack
def test_cp_copies_both_ways_and_follows_no_link_of_the_containers(
    mkt: Mkt, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/deep/file").write_bytes(os.urandom(300_000))
    (tmp_path / "src/link").symlink_to("/etc/shadow")
    mkt.ok("up", "base", "one")

    mkt.ok("cp", str(tmp_path / "src"), "one:/srv/", "--owner", "www-data")
    mkt.ok("cp", "one:/srv/src", str(tmp_path / "back"))
    inside(mkt, "one", f"mkdir /srv/t; ln -s {canary} /srv/t/src; ln -s / /srv/away")
    through = mkt("cp", str(tmp_path / "src"), "one:/srv/t")
    mkt.ok("cp", "one:/srv/away/etc/hostname", str(tmp_path / "hostname"))
    mkt.ok("stop", "one")
    mkt.ok("cp", str(tmp_path / "src/deep/file"), "one:/srv/stopped")
    mkt.ok("start", "one")

    same = (tmp_path / "src/deep/file").read_bytes()
    assert (tmp_path / "back/deep/file").read_bytes() == same
    assert os.readlink(tmp_path / "back/link") == "/etc/shadow"
    assert inside(mkt, "one", "stat -c %U /srv/src/deep/file; wc -c </srv/stopped").split() == [
        "www-data", "300000",
    ]  # fmt: skip
    assert (through.returncode, os.listdir(canary)) == (7, [])
    assert (tmp_path / "hostname").read_text() == "one\n"


def test_what_fails_is_started_again_as_often_as_its_policy_says(mkt: Mkt) -> None:
    mkt.ok("create", "base", "one", "--restart", "on-failure:2")
    mkt.ok("start", "one")
    seen = []

    for _ in range(3):
        pid = mkt.json("info", "one")["pid"]
        seen.append(pid)
        os.kill(pid, signal.SIGKILL)
        until(lambda last=pid: mkt.json("info", "one")["pid"] not in (last, None), 30)  # type: ignore[misc]  # a default

    assert len(set(seen)) == 3
    assert mkt.json("info", "one")["state"] == "STOPPED"
    mkt.ok("start", "one")
    mkt.ok("stop", "one")
    assert not until(lambda: mkt.json("info", "one")["state"] != "STOPPED", 1.5)


def test_the_hosts_owner_of_a_volume_is_the_named_user_inside(mkt: Mkt, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 4321, 4322)
    tmp_path.chmod(0o755)

    mkt.ok("up", "base", "one", "--volume", f"{data}:/var/run/data:owner=www-data")

    mkt.ok("exec", "--user", "www-data", "one", "--", "sh", "-c", "echo x >/run/data/file")
    about = (data / "file").stat()
    assert (about.st_uid, about.st_gid) == (4321, 4322)
    refused = mkt("create", "base", "two", "--volume", f"{data}:/d:owner=nobodyknows")
    assert (refused.returncode, "E_USER" in refused.stderr) == (2, True)
    assert mkt.names() == ["one"]


def test_death_for_want_of_memory_is_called_that(mkt: Mkt) -> None:
    mkt.ok("create", "base", "one", "--memory", "32M")
    mkt.ok("config", "one", "set", "lxc.init.cmd", "/usr/lib/mktemplate/init tail /dev/zero")

    mkt.ok("start", "one")
    mkt.ok("wait", "one", "--state", "STOPPED", "--timeout", "30")

    info = mkt.json("info", "one")
    assert (info["exit_status"], info["oom_kills"]) == (137, 1)
    assert "STOPPED (oom)" in mkt.ok("list")


def test_a_unit_starts_what_it_says_and_stops_it(mkt: Mkt) -> None:
    mkt.ok("create", "base", "one")
    unit = mkt.ok("unit", "one").split("\n")
    [command] = [line.partition("=")[2] for line in unit if line.startswith("ExecStart=")]

    with subprocess.Popen(shlex.split(command), env={}, cwd="/") as process:
        ran = mkt("wait", "one", "--state", "RUNNING", "--timeout", "20").returncode
        process.terminate()
        process.wait(20)

    assert ran == 0
    assert mkt.json("info", "one")["state"] == "STOPPED"


def test_what_is_marked_comes_up_in_order_and_goes_down_the_other_way(mkt: Mkt) -> None:
    for name, order in (("one", "2"), ("two", "1"), ("three", "0")):
        mkt.ok("create", "base", name)
        mkt.ok("config", name, "set", "lxc.start.order", order)
    for name in ("one", "two"):
        mkt.ok("config", name, "set", "lxc.start.auto", "1")

    up, down = mkt.json("autostart"), mkt.json("autostart", "--stop")

    assert [one["name"] for one in up] == ["two", "one"]
    assert [one["name"] for one in down] == ["one", "two"]


def test_a_foreign_container_is_adopted_and_never_touched(mkt: Mkt, tmp_path: Path) -> None:
    mkt.ok("create", "base", "lender", "--flat")
    mkt.path.parent.chmod(0o755)
    folder = tmp_path / "foreign"
    folder.mkdir()
    tmp_path.chmod(0o755)
    root = mkt.path / "lender" / "rootfs"
    text = (mkt.path / "lender/config").read_text().replace("lxc.uts.name = lender", "")
    (folder / "config").write_text(text)

    mkt.ok("adopt", str(folder))

    mkt.ok("start", "foreign")
    assert inside(mkt, "foreign", "cat /proc/1/comm")
    mkt.ok("stop", "foreign")
    mkt.ok("destroy", "foreign")
    assert (folder / "config").read_text() == text
    assert root.is_dir()
