"""The pytest plugin: tests get servers of their own, ready and as if new, and nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mktemplate import containers
from tests.system.command import Mkt

pytestmark = pytest.mark.system

PRIVATE = """
from urllib.request import urlopen
import pytest

@pytest.mark.parametrize("number", range(6))
def test_nobody_was_here_before(mktemplate, number):
    web = mktemplate.up("nginx", distro="debian")
    other = mktemplate.up("nginx", distro="debian")
    for one in (web, other):
        assert urlopen("http://{}:{}/".format(*one.address()), timeout=10).status == 200
        assert one.exec(["ls", "/root", "/tmp"]).stdout == "/root:\\n\\n/tmp:\\n"
        one.exec(["touch", f"/root/{number}", f"/tmp/{number}"]).check_returncode()
    assert web.address() != other.address() and web.exec(["ls", "/root"]).stdout == f"{number}\\n"
    assert web.logs() == other.logs() or number >= 0
    if number == 2:
        web.destroy(force=True)
    if number == 3:
        other.stop()
"""
SLEEPS = """
import time
def test_forever(mktemplate, tmp_path):
    print(mktemplate.up("nginx", distro="debian").pid)
    open("RUNNING-%d" % __import__("os").getpid(), "w").close()
    time.sleep(600)

def test_forever_too(mktemplate, tmp_path):
    test_forever(mktemplate, tmp_path)
"""
QUERY = """
import socket, struct
import pytest

def query(address, sql):
    \"\"\"Speak PostgreSQL's protocol, version 3: start, ask, hear the answer out.\"\"\"
    def until(kind):
        found = []
        while not found or found[-1][0] != kind:
            head = stream.read(5)
            found.append((head[:1], stream.read(struct.unpack("!I", head[1:])[0] - 4)))
        return found
    def message(kind, body):
        return kind + struct.pack("!I", len(body) + 4) + body
    with socket.create_connection(address, timeout=10) as server, server.makefile("rb") as stream:
        words = b"user\\0postgres\\0database\\0postgres\\0\\0"
        server.sendall(message(b"", struct.pack("!I", 3 << 16) + words))
        until(b"Z")
        server.sendall(message(b"Q", sql.encode() + b"\\0"))
        return until(b"Z")

@pytest.mark.parametrize("number", range(100))
def test_a_database_of_its_own(mktemplate, number):
    db = mktemplate.up("postgresql", distro="debian", set={"anonymous": True})
    said = query(db.address(), f"create table t (n int); insert into t values ({number}); select n from t")
    assert [body[6:] for kind, body in said if kind == b"D"] == [b"%d" % number]
    assert not [body for kind, body in said if kind == b"E"]
"""


def run(mkt: Mkt, folder: Path, text: str, *words: str) -> subprocess.Popen[str]:
    """Begin pytest, in a session of its own, on one file of tests."""
    (folder / "test_it.py").write_text(text)
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"),
            *("-p", "xdist", "-p", "mktemplate.pytest_plugin", "-W", "error", "test_it.py", *words),
        ],
        env=mkt.environment | {
            "MKTEMPLATE_PATH": str(mkt.path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def left(mkt: Mkt) -> list[str]:
    """Return the containers that are not snapshots."""
    return [one.name for one in containers(mkt.path) if not one.name.startswith("warm-")]


def until(holds: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_every_test_has_servers_of_its_own(
    mkt: Mkt, tmp_path: Path, words: tuple[str, ...]
) -> None:
    said, _ = run(mkt, tmp_path, PRIVATE, *words).communicate(timeout=240)

    assert "6 passed" in said, said
    assert left(mkt) == []
    assert len(containers(mkt.path)) == 1


def test_nothing_is_left_when_pytest_is_killed(mkt: Mkt, tmp_path: Path) -> None:
    runner = run(mkt, tmp_path, SLEEPS, "-n", "2")
    assert until(lambda: len(list(tmp_path.glob("RUNNING-*"))) == 2, 120)
    pids = [one.pid for one in containers(mkt.path) if one.name in left(mkt)]
    assert len(list(filter(None, pids))) == 2

    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()

    assert until(lambda: left(mkt) == [])
    assert not [pid for pid in pids if pid and Path(f"/proc/{pid}").exists()]


def test_a_template_that_changes_gets_another_snapshot(mkt: Mkt, tmp_path: Path) -> None:
    text = "def test_it(mktemplate): mktemplate.up('base', distro='debian', memory='{}M')"

    for memory in (64, 64, 65):
        said, _ = run(mkt, tmp_path, text.format(memory)).communicate(timeout=240)
        assert "1 passed" in said, said

    assert len(containers(mkt.path)) == 2


@pytest.mark.slow
def test_a_hundred_tests_have_a_hundred_databases(mkt: Mkt, tmp_path: Path) -> None:
    for _ in range(2):  # the first makes the snapshot
        begun = time.monotonic()
        said, _ = run(mkt, tmp_path, QUERY, "-n", "2").communicate(timeout=600)
        took = time.monotonic() - begun

        assert "100 passed" in said, said
    sys.stderr.write(f"100 tests with 100 PostgreSQL servers: {took:.1f} s\n")
