"""The pytest plugin: tests get servers of their own, ready and as if new, and nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mktemplate import containers
from mktemplate.life import warm
from mktemplate.making import workshop
from tests.system.command import CHECKOUT, Mkt, until
from tests.system.user import UserMkt

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
BOXED = """
def test_a_sandbox_is_a_normal_users_too(tmp_path):
    from mktemplate import MktemplateError, sandbox
    (tmp_path / "data").write_text("given\\n")
    done = sandbox.run(
        ["sh", "-c", "cat /mnt/data - && id -u && ls /sys/class/net && ! touch /mnt/new"],
        input="said\\n", volume=f"{tmp_path}:/mnt:ro", distro="debian", timeout=60,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["given", "said", "0", "lo"]), done
    with pytest.raises(MktemplateError, match="E_LIMIT"):
        sandbox.run(["sleep", "60"], distro="debian", timeout=0.5)
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


def pruned(mkt: Mkt) -> tuple[str, ...]:
    """Drop the snapshots that nothing uses, and nothing else."""
    with closing(workshop.store(mkt.path)) as store:
        return warm.prune(mkt.path, store, dry_run=False)


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_every_test_has_servers_of_its_own(
    mkt: Mkt, tmp_path: Path, words: tuple[str, ...]
) -> None:
    said, _ = run(mkt, tmp_path, PRIVATE, *words).communicate(timeout=240)

    assert "6 passed" in said, said
    assert left(mkt) == []
    [snapshot] = containers(mkt.path)
    assert snapshot.start().exec(["touch", "/root/changed"]).returncode == 1
    snapshot.stop()
    assert pruned(mkt) == (snapshot.name,)
    assert containers(mkt.path) == ()


def test_nothing_is_left_when_pytest_is_killed(mkt: Mkt, tmp_path: Path) -> None:
    runner = run(mkt, tmp_path, SLEEPS, "-n", "2")
    assert until(lambda: len(list(tmp_path.glob("RUNNING-*"))) == 2, 120)
    assert pruned(mkt) == ()  # copies stand upon it
    pids = [one.pid for one in containers(mkt.path) if one.name in left(mkt)]
    assert len(list(filter(None, pids))) == 2

    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()

    assert until(lambda: left(mkt) == [], 60)
    assert not [pid for pid in pids if pid and Path(f"/proc/{pid}").exists()]


def test_a_template_that_changes_gets_another_snapshot(mkt: Mkt, tmp_path: Path) -> None:
    text = "def test_it(mktemplate): mktemplate.up('base', distro='debian', memory='{}M')"

    for memory in (64, 64, 65):
        said, _ = run(mkt, tmp_path, text.format(memory)).communicate(timeout=240)
        assert "1 passed" in said, said

    assert len(containers(mkt.path)) == 2


def test_a_normal_user_has_them_too(user: UserMkt) -> None:
    home = user.place / "home"
    (home / "test_it.py").write_text(PRIVATE.replace("range(6)", "range(2)") + BOXED)

    done = user.module(
        *("pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-p", "xdist", "-n", "2"),
        *("-p", "mktemplate.pytest_plugin", "-W", "error", f"--rootdir={home}", str(home)),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", TMPDIR=str(home),
    )  # fmt: skip

    assert "3 passed" in done.stdout, done.stdout
    assert until(lambda: {name.partition("-")[0] for name in user.names()} == {"warm"}, 60)


@pytest.mark.slow
def test_a_hundred_tests_have_a_hundred_databases(mkt: Mkt) -> None:
    """How long they take depends on who else is busy here: the number is for a person to read."""
    done = subprocess.run(
        [sys.executable, "-P", CHECKOUT / "bench/databases.py"],
        env=mkt.environment | {"MKTEMPLATE_PATH": str(mkt.path)},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    sys.stderr.write(done.stdout)
    assert left(mkt) == []
