"""A start that is killed anywhere leaves nothing that the next command does not reclaim (F-05, F-06)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import state
from runtime.container import Container

pytestmark = pytest.mark.root

Make = Callable[..., Container]
CODE = "import sys; from runtime.container import Container; Container(*sys.argv[1:]).start()"


def processes_of(container: Container) -> list[int]:
    """Return the processes that run with the container's ids."""
    first, count = container.bundle.record.id_range
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and first <= os.stat(f"/proc/{entry}").st_uid < first + count:
                status = Path(f"/proc/{entry}/stat").read_text()
                if status.rpartition(") ")[2][0] not in "ZX":
                    found.append(int(entry))
        except OSError:  # it ended meanwhile
            continue
    return found


def settle(container: Container) -> None:
    """Wait until the container is started or is not."""
    deadline = time.monotonic() + 60
    while container.state() not in {"STOPPED", "RUNNING"}:
        assert time.monotonic() < deadline, container.run
        time.sleep(0.005)


@pytest.mark.parametrize("victim", ["starter", "monitor", "both"])
@pytest.mark.parametrize(
    "after", [0, 2, 5, 10, 15, 20, 30, 40]
)  # ms from the first sign of a start
def test_a_killed_start_is_reclaimed(make: Make, victim: str, after: int) -> None:
    container = make("killed", "/bin/sleep 1000")
    starter = subprocess.Popen(
        [sys.executable, "-c", CODE, str(container.path), container.name],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    while container.run is None:
        assert starter.poll() is None
        time.sleep(0.0005)
    time.sleep(after / 1000)
    if (
        victim != "starter"
        and (run := container.run) is not None
        and run.monitor.pid != starter.pid
    ):
        run.monitor.send(signal.SIGKILL)
    if victim != "monitor":
        starter.kill()
    starter.wait(10)

    settle(container)
    if after % 10 == 0:  # else the next start itself has to reclaim
        container.recover()
    if container.state() == "RUNNING":
        container.stop(0)

    deadline = time.monotonic() + 60
    while processes_of(container):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    key = state.key(container.path, container.name)
    if after % 10 == 0:
        assert list(Path("/sys/fs/cgroup").glob(f"*/mktemplate/{key}")) == []
    container.start()
    assert container.state() == "RUNNING"
