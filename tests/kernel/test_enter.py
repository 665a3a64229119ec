"""Commands inside a running container have its confinement, and their status is ours."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import enter, hierarchy
from runtime.container import Container
from runtime.errors import LaunchError, StateError
from runtime.isolation import isolation
from tests.kernel.conftest import log_of

pytestmark = pytest.mark.root

Make = Callable[..., Container]
CODE = (
    "import sys; from runtime.container import Container; from runtime import enter\n"
    "path, name, user, tty, *argv = sys.argv[1:]\n"
    "sys.exit(enter.execute(Container(path, name), argv, user=user, tty=bool(tty)))"
)


@pytest.fixture
def running(make: Make) -> Container:
    container = make("host", "/bin/sleep 1000")
    container.start()
    return container


def command(container: Container, *argv: str, user: str = "", tty: str = "") -> list[str]:
    return [sys.executable, "-c", CODE, str(container.path), container.name, user, tty, *argv]


def run(container: Container, *argv: str, user: str = "", stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        command(container, *argv, user=user),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def test_a_command_is_inside_and_as_confined_as_init(running: Container) -> None:
    status, output = run(
        running, "sh", "-c", "id -u; hostname; cat /proc/self/status; ls /proc/self/fd"
    )

    lines = output.split("\n")
    assert status == 0
    assert lines[:2] == ["0", "host"]
    for line in (
        "CapEff:\t00000000000400fb",
        "CapBnd:\t00000000000400fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ):
        assert line in lines
    assert lines[-5:-1] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("web", "uid=33(web) gid=33(web) groups=33(web),44(more)"),
        ("33", "uid=33(web) gid=33(web) groups=33(web)"),
        ("web:tty", "uid=33(web) gid=5(tty) groups=5(tty),33(web),44(more)"),
        ("4000", "uid=4000 gid=4000 groups=4000"),
    ],
)
def test_a_user_is_the_containers(running: Container, user: str, shown: str) -> None:
    status, output = run(running, "id", user=user)

    assert status == 0
    assert output.split()[:2] == shown.split()[:2]


@pytest.mark.parametrize(
    "user",
    ["nobody-here", "0x3e8", "+1", " 1", "1\n", "4294967295", "１", "-1", ":0", "web:", "bad"],
)
def test_a_user_that_cannot_be_meant_is_refused(running: Container, user: str) -> None:
    with pytest.raises(LaunchError) as caught:
        enter.execute(running, ["true"], user=user)

    assert caught.value.code == "E_USER"


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["sh", "-c", "exit 9"], 9),
        (["sh", "-c", "kill -9 $$"], 137),
    ],
)
def test_the_status_is_the_commands(running: Container, argv: list[str], status: int) -> None:
    assert run(running, *argv)[0] == status


@pytest.mark.parametrize(("argv", "status"), [("nowhere", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_is_explained(running: Container, argv: str, status: int) -> None:
    with pytest.raises(LaunchError) as caught:
        enter.execute(running, [argv])

    assert caught.value.status == status


def test_our_standard_input_is_its(running: Container) -> None:
    assert run(running, "cat", stdin=b"hello\n") == (0, "hello\n")


def test_a_terminal_is_the_containers_own(running: Container) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(
            running, "sh", "-c", "tty; stty size; read word; echo got $word", user="web", tty="yes"
        ),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    os.close(theirs)
    output = _until(ours, b"/dev/pts/")
    os.write(ours, b"word\r")
    output += _until(ours, b"got word")

    assert process.wait(60) == 0
    assert b"/dev/pts/0" in output


def _until(descriptor: int, wanted: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([descriptor], [], [], 0.5)[0]:
            seen += os.read(descriptor, 4096)
    return seen


def test_a_working_directory_behind_a_magic_link_is_refused(running: Container) -> None:
    with pytest.raises(LaunchError, match="cannot be the working directory"):
        enter.execute(running, ["true"], cwd="/proc/self/fd/3")


def test_a_passwd_that_is_no_file_is_refused(running: Container) -> None:
    run(running, "sh", "-c", "ln -sf /dev/zero /etc/passwd")

    with pytest.raises(LaunchError, match="E_ROOTFS_FILE"):
        enter.execute(running, ["true"], user="web")


def test_a_stopped_container_cannot_be_entered(make: Make) -> None:
    with pytest.raises(StateError, match="E_NOTRUNNING"):
        enter.execute(make("off", "/bin/true"), ["true"])


def test_a_frozen_container_cannot_be_entered(running: Container) -> None:
    running.freeze()

    with pytest.raises(StateError, match="frozen"):
        enter.execute(running, ["true"])


def test_every_way_out_that_is_tried_is_refused(running: Container) -> None:
    verdicts = isolation(running)

    assert [verdict for verdict in verdicts if not verdict.refused] == []
    assert len(verdicts) > 30


def test_without_the_filter_the_isolation_is_seen_to_be_weaker(make: Make) -> None:
    container = make("weak", "/bin/sleep 1000", filtered=False)
    container.start()

    done = [verdict.attempt for verdict in isolation(container) if not verdict.refused]

    assert "unshare a user namespace" in done


@pytest.mark.skipif(not hierarchy.is_pure(), reason="cgroup v1 takes processes anywhere")
def test_a_container_that_divides_its_control_group_can_be_joined(make: Make) -> None:
    divide = (
        "cd /sys/fs/cgroup; mkdir init.scope; echo 1 >init.scope/cgroup.procs;"
        " echo +pids >cgroup.subtree_control; echo divided; exec sleep 1000"
    )
    one = make("divided", f"/bin/sh -c '{divide}'", "lxc.mount.auto = cgroup:rw:force")
    one.start()
    log_of(one, "divided")

    assert (
        enter.execute(one, ["sh", "-c", "read _ <init.scope/cgroup.procs"], cwd="/sys/fs/cgroup")
        == 0
    )
