"""The tiny one: a container of one static program, the host's own or its package's."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.archive import Deb, build
from tests.conftest import lacking
from tests.system.command import Mkt
from tests.system.user import UserMkt

pytestmark = [pytest.mark.system, pytest.mark.root]
MOST = 3 << 20  # bytes
DEAD = {"http_proxy": "http://127.0.0.1:9", "MKTEMPLATE_MIRROR": "http://127.0.0.1:9"}


def body(ip: str, port: int = 80) -> str:
    """Return what the web server answers."""
    with urllib.request.urlopen(f"http://{ip}:{port}/", timeout=10) as answer:
        return str(answer.read().decode())


def size(path: Path) -> int:
    """Return the bytes of all files below `path`."""
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_symlink())


def has_host_program() -> bool:
    return Path("/usr/bin/busybox").exists()


def test_it_needs_no_network_where_the_host_has_it_and_is_two_megabytes(cold: Mkt) -> None:
    """An empty PATH, no mirror in reach: it answers, as nobody's root, before and after a restart."""
    if not has_host_program():
        lacking("busybox-static")

    made = json.loads(cold.ok("up", "busybox", "--offline", "--json", **DEAD))
    [ip] = made["ips"]
    first = body(ip)
    cold.ok("restart", "busybox")
    cold.ok("wait", "busybox", "--state", "READY")

    assert "busybox httpd" in first
    assert body(ip) == first
    assert size(cold.path / ".store/layers") + size(cold.path / "busybox/upper") < MOST
    owners = cold.ok("exec", "busybox", "--", "ps", "-o", "user,args").split("\n")
    assert any(line.startswith("www-data") and "httpd" in line for line in owners)
    cold.ok("stop", "busybox")
    assert cold.json("info", "busybox")["exit_status"] == 143


@pytest.mark.parametrize(
    "way",
    [
        ("--share-host",),
        pytest.param(("--flat",), marks=pytest.mark.slow),
        pytest.param(("--no-userns",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_it_answers_however_it_is_made(mkt: Mkt, way: tuple[str, ...]) -> None:
    [ip] = mkt.json("up", "busybox", *way)["ips"]

    assert "busybox httpd" in body(ip)


@pytest.mark.parametrize("release", ["bookworm", pytest.param("trixie", marks=pytest.mark.slow)])
def test_its_package_is_unpacked_and_every_name_of_it_is_known(
    mkt: Mkt, release: str, tmp_path: Path
) -> None:
    """As from a host that has none: the package alone, without the Essential set, and locked as any other."""
    words = ("busybox", "--distro", "debian", "--release", release, "--recommends")
    [ip] = mkt.json("up", *words)["ips"]

    [package] = mkt.json("info", "busybox")["packages"]
    assert (package["name"], "busybox httpd" in body(ip)) == ("busybox-static", True)
    known = mkt.ok("exec", "busybox", "--", "busybox", "--list").split()
    linked = mkt.ok("exec", "busybox", "--", "ls", "/usr/bin").split()
    assert set(linked) - set(known) == set()
    mkt.ok("lock", "busybox", "-o", str(tmp_path / "lock"))
    mkt.ok("destroy", "--force", "busybox")
    mkt.ok("up", "busybox", "--lock", str(tmp_path / "lock"))
    assert mkt.json("info", "busybox")["packages"] == [package]


@pytest.mark.slow
def test_a_package_with_scripts_is_refused(mkt: Mkt, tmp_path: Path) -> None:
    deb = build(Deb(name="scripted", scripts={"postinst": "#!/bin/sh\n"}), tmp_path)

    done = mkt("create", "busybox", "--packages", str(deb))

    assert (done.returncode, "error[E_SCRIPT_FAILED]: scripted" in done.stderr) == (9, True)
    assert mkt.names() == []


def test_it_is_a_shell_for_one_command(mkt: Mkt) -> None:
    done = mkt("run", "busybox", "--", "sh", "-c", "echo $((6 * 7)); exit 3")

    assert (done.stdout, done.returncode) == ("42\n", 3)


@pytest.mark.slow
def test_a_normal_user_has_it_too(user: UserMkt) -> None:
    user.ok("up", "busybox", "--publish", "18481:80")

    assert "busybox httpd" in body("127.0.0.1", 18481)
