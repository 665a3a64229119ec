"""A container that its stop program ends ends as Python would end it; what is no such matter is left to Python."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import halt
from runtime.container import Container
from runtime.kernel.libc import MACHINE
from runtime.kernel.syscall_names import numbers
from tests.conftest import lacking
from tests.kernel.test_execprogram import WAITS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(MACHINE != "x86_64", reason="this machine lacks an x86-64 processor"),
]

Make = Callable[..., Container]
SCRIPT = Path(__file__).resolve().parents[2] / "scripts/mktemplate"
DEAF = "/bin/sh -c 'trap : TERM; while :; do sleep 0.1; done'"


def start(container: Container) -> int:
    """Start it, and wait until its shell has set its trap; return its monitor."""
    begun = container.start()
    deadline = time.monotonic() + 30
    while not halt.listens(begun.pid, signal.SIGTERM):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert container.run
    return container.run.monitor.pid


def stop(container: Container, script: Path) -> tuple[int, str]:
    """Have the container stopped by its program; return the status and what was said."""
    words = (
        str(container.directory / "stop"),
        "-",
        str(script),
        "--in-python",
        "stop",
        container.name,
    )
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={"HERE": "1"})
    return done.returncode, done.stdout + done.stderr


def fell_back(container: Container) -> tuple[int, str]:
    return 42, f"fell back: --in-python stop {container.name}, HERE=1\n"


@pytest.mark.parametrize("userns", [True, False], ids=["userns", "no userns"])
def test_init_is_asked_and_the_end_is_waited_for(make: Make, script: Path, userns: bool) -> None:
    container = make("one", WAITS, userns=userns)
    for _ in range(2):
        start(container)

        assert stop(container, script) == (0, "mktemplate: one: stopped\n")
        assert container.state() == "STOPPED"
        assert container.exit_status == 7


def test_the_command_as_typed_is_that_program(make: Make) -> None:
    container = make("one", WAITS)
    start(container)
    environment = os.environ | {"MKTEMPLATE_PATH": str(container.path)}

    traced = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=execve", str(SCRIPT), "stop", "one"],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip

    assert traced.returncode == 0, traced.stderr
    assert traced.stderr.count("execve(") == 2  # the script, and the program
    assert container.state() == "STOPPED"


@pytest.mark.slow
def test_who_hears_and_stays_is_killed_ten_seconds_later(make: Make, script: Path) -> None:
    container = make("one", DEAF)
    start(container)

    assert stop(container, script) == (0, "mktemplate: one: stopped\n")
    assert container.exit_status == 137


def test_who_would_not_hear_is_killed_at_once(make: Make, script: Path) -> None:
    container = make("one", "/bin/sleep 1000")
    container.start()
    began = time.monotonic()

    assert stop(container, script) == (0, "mktemplate: one: stopped\n")
    assert time.monotonic() - began < 10, "the time that is given to who hears"
    assert container.state() == "STOPPED"
    assert container.exit_status == 137


def test_what_is_no_matter_of_asking_and_waiting_is_left_to_python(
    make: Make, script: Path
) -> None:
    container = make("one", WAITS)
    start(container)
    container.freeze()
    frozen = stop(container, script)
    container.unfreeze()
    config = container.directory / "config"
    text = config.read_text()
    config.write_text(text.replace("SIGTERM", "SIGINT"))
    changed = stop(container, script)
    config.write_text(text)
    container.stop()
    stopped = stop(container, script)

    assert [frozen, changed, stopped] == [fell_back(container)] * 3


def test_where_the_monitor_is_killed_meanwhile_python_gives_back(make: Make, script: Path) -> None:
    if not Path("/proc/self/syscall").exists():
        lacking("/proc/PID/syscall")
    container = make("one", DEAF)
    monitor = start(container)
    words = (container.directory / "stop", "-", script, "--in-python", "stop", "one")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={"HERE": "1"}) as stopping:
        while not waits(stopping.pid):
            time.sleep(0.01)
        os.kill(monitor, signal.SIGKILL)
        said, _ = stopping.communicate()

    assert (stopping.returncode, said) == fell_back(container)


def waits(pid: int) -> bool:
    """Whether the process is in ppoll(2)."""
    return Path(f"/proc/{pid}/syscall").read_text().startswith(f"{numbers('x86_64')['ppoll']} ")


def test_a_container_without_a_signal_of_its_own_has_no_such_program(make: Make) -> None:
    container = make("one", WAITS)
    config = container.directory / "config"
    container.start_program()
    assert (container.directory / "stop").exists()

    config.write_text(config.read_text().replace("lxc.signal.halt = SIGTERM\n", ""))
    container.start_program()

    assert not (container.directory / "stop").exists()
