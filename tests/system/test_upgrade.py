"""Day two: new packages are told of, taken in, and taken back where the service does not get ready with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.archive import Deb
from tests.system.command import Mkt
from tests.tiny import Tiny

pytestmark = pytest.mark.system
# It is ready when it has read its key and its data; a broken one ends, a hanging one never gets there.
SERVICE = "#!/bin/sh\nset -e\ncat /etc/toy/key >/dev/null\necho {version} >>/srv/data/runs\n{end}"
HANGS = "while :; do sleep 3600 & wait; done\n"
LASTS = f"touch /run/ready\n{HANGS}"
TEMPLATE = {
    "template.toml": """\
summary = "a service with a key"
distros = ["deb"]
command = ["/usr/bin/toy"]
[packages]
deb = ["hello", "toy"]
[ready]
file = "/run/ready"
timeout = 60
[options.greeting]
type = "str"
default = "hello"
[[first_start]]
run = ["/bin/sh", "-c", "cat /proc/sys/kernel/random/uuid >/var/lib/mktemplate/toy"]
unless = "/var/lib/mktemplate/toy"
""",
    "config.j2": '{% extends "_distro/" ~ distro.name ~ ".config.j2" %}\n',
    "tree.j2": (
        '{% extends "_distro/" ~ distro.name ~ ".tree.j2" %}\n'
        "{% block service %}\nd /etc/toy 0755 root root - -\nd /srv/data 0755 root root - -\n"
        "L /etc/toy/key - - - - /var/lib/mktemplate/toy\n"
        "f+ /etc/toy/greeting 0644 root root - {{ options.greeting }}\n{% endblock %}\n"
    ),
}


def toy(version: str, end: str = LASTS) -> Deb:
    """Return the service as a package."""
    script = SERVICE.format(version=version, end=end)
    return Deb(
        name="toy", version=version, files={"usr/bin/toy": script}, fields={"Depends": "tiny"},
        scripts={"postinst": "#!/bin/sh\nset -e\nchmod 0755 /usr/bin/toy\n"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def own() -> Iterator[Mkt]:
    """One PATH for this module: its releases get ever newer, so it can be no other test's."""
    with tempfile.TemporaryDirectory(prefix="mkt-", dir="/var/tmp") as name:
        (Path(name) / "home").mkdir(mode=0o700)
        yield Mkt(Path(name) / "path")


@pytest.fixture
def mkt(own: Mkt) -> Iterator[Mkt]:
    yield own
    own.sweep()


@pytest.fixture
def tiny(tiny_archive: Tiny, tmp_path: Path) -> Iterator[Tiny]:
    """The tiny archive with the service in it, which a test releases anew, and its template."""
    place = tmp_path / "templates/toy"
    place.mkdir(parents=True)
    for name, text in TEMPLATE.items():
        (place / name).write_text(text)
    (tmp_path / "data").mkdir()
    tiny = replace(tiny_archive, templates=place.parent)
    release(tiny, toy("1.0"))
    yield tiny
    tiny_archive.release()


def release(tiny: Tiny, *debs: Deb) -> None:
    """Release with a later Date than the last one; it has whole seconds."""
    before = int(time.time())
    while int(time.time()) == before:
        time.sleep(0.05)
    tiny.release(*debs)


def up(mkt: Mkt, tiny: Tiny, *more: str) -> None:
    data = tiny.templates.parent / "data"
    mkt.ok("up", "toy", "one", *tiny.options, "--volume", f"{data}:/srv/data", *more)


def inside(mkt: Mkt, path: str) -> str:
    return mkt.ok("exec", "one", "--", "cat", path)


def version(mkt: Mkt) -> str:
    return mkt.ok("exec", "one", "--", "dpkg-query", "-Wf", "${Version}", "toy")


def test_outdated_names_what_upgrade_takes_in(mkt: Mkt, tiny: Tiny) -> None:
    up(mkt, tiny)
    current = mkt("outdated", "one")
    release(tiny, toy("1.1"))

    stale = mkt("outdated", "one", "--json")
    told = mkt.json("upgrade", "one")

    assert (current.returncode, stale.returncode) == (0, 1)
    [outdated] = json.loads(stale.stdout)
    assert [(each["name"], each["available"]) for each in outdated["packages"]] == [("toy", "1.1")]
    [change] = told["changes"]
    assert (change["name"], change["old"], change["new"]) == ("toy", "1.0", "1.1")
    assert (told["upgraded"], told["state"], told["ready"]) == (True, "RUNNING", True)
    assert version(mkt) == "1.1"
    assert mkt("outdated", "one").returncode == 0


def test_key_data_address_and_options_stay_over_an_upgrade_and_back(mkt: Mkt, tiny: Tiny) -> None:
    up(mkt, tiny, "--set", "greeting=good day", "--publish", "18080:80")
    mkt.ok("exec", "one", "--", "touch", "/etc/mine")
    mkt.ok("config", "one", "set", "lxc.start.auto", "1")
    same = ("/etc/toy/key", "/etc/machine-id", "/etc/toy/greeting")
    before, files = mkt.json("info", "one"), [inside(mkt, path) for path in same]
    release(tiny, toy("1.1"))

    told = mkt.json("upgrade", "one")
    after = mkt.json("info", "one")

    assert told["left"] == [{"kind": "A", "path": "/etc/mine"}]
    assert (version(mkt), inside(mkt, "/srv/data/runs")) == ("1.1", "1.0\n1.1\n")
    assert [inside(mkt, path) for path in same] == files
    for key in ("ips", "ports", "options", "isolation", "created"):
        assert after[key] == before[key], key
    assert mkt.ok("config", "one", "get", "lxc.start.auto") == "1\n"

    mkt.ok("prune")  # the layers of what ran before are in use
    mkt.ok("rollback", "one")

    assert (version(mkt), inside(mkt, "/srv/data/runs")) == ("1.0", "1.0\n1.1\n1.0\n")
    assert [inside(mkt, path) for path in (*same, "/etc/mine")] == [*files, ""]
    assert mkt.json("info", "one")["ips"] == before["ips"]


@pytest.mark.parametrize("end", ["exit 1\n", HANGS], ids=["ends", "hangs"])
def test_an_upgrade_that_does_not_get_ready_is_taken_back(mkt: Mkt, tiny: Tiny, end: str) -> None:
    up(mkt, tiny)
    key = inside(mkt, "/etc/toy/key")
    release(tiny, toy("1.2", end))

    done = mkt("upgrade", "one", "--timeout", "1", "--json")

    told = json.loads(done.stdout)["error"]
    assert (done.returncode, told["code"], told["exit"]) == (9, "E_UPGRADE", 9)
    assert told["detail"].endswith("the old one runs again")
    assert "hint: mktemplate logs one" in done.stderr
    assert mkt.json("info", "one")["state"] == "RUNNING"
    assert (version(mkt), inside(mkt, "/etc/toy/key")) == ("1.0", key)
    assert mkt("rollback", "one").returncode == 8
    assert not {"swap", "replaced", "previous"} & set(os.listdir(mkt.path / "one"))


def test_a_stopped_container_is_upgraded_and_stays_stopped(mkt: Mkt, tiny: Tiny) -> None:
    up(mkt, tiny)
    key = inside(mkt, "/etc/toy/key")
    mkt.ok("stop", "one")
    release(tiny, toy("1.1"))

    would = mkt.json("upgrade", "one", "--dry-run")
    told = mkt.json("upgrade", "one")
    again = mkt.json("upgrade", "one")

    assert (would["upgraded"], [each["name"] for each in would["changes"]]) == (False, ["toy"])
    assert (told["upgraded"], told["state"], told["downtime"]) == (True, "STOPPED", 0)
    assert again["upgraded"] is False
    mkt.ok("rename", "one", "uno")
    mkt.ok("rollback", "uno")
    mkt.ok("rename", "uno", "one")
    mkt.ok("start", "one")
    assert (version(mkt), inside(mkt, "/etc/toy/key")) == ("1.0", key)


def test_a_kill_while_the_new_one_is_tried_leaves_it_whole_with_a_way_back(
    mkt: Mkt, tiny: Tiny
) -> None:
    up(mkt, tiny)
    key = inside(mkt, "/etc/toy/key")
    release(tiny, toy("1.2", HANGS))

    with subprocess.Popen(
        [sys.executable, "-P", "-m", "mktemplate", "--path", str(mkt.path), "upgrade", "one"],
        env=mkt.environment, cwd="/", stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 30
        while not (tiny.templates.parent / "data/runs").read_text().endswith("1.2\n"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)

    assert (version(mkt), inside(mkt, "/etc/toy/key")) == ("1.2", key)
    mkt.ok("rollback", "one")
    assert (version(mkt), inside(mkt, "/etc/toy/key")) == ("1.0", key)


def test_a_flat_container_is_refused_and_stays(mkt: Mkt, tiny: Tiny) -> None:
    mkt.ok("create", "toy", "one", "--flat", *tiny.options)

    done = mkt("upgrade", "one")

    assert (done.returncode, "one: is --flat" in done.stderr) == (2, True), done.stderr
    assert mkt.names() == ["one"]
