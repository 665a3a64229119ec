"""PID 1 of our containers: the script that prepares, and the reaper that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import lacking

SOURCE = Path(__file__).parents[2] / "templates" / "_init"
MACHINE = os.uname().machine


@pytest.fixture
def reaper(tmp_path: Path) -> Path:
    """The built reaper of this machine, executable."""
    kept = SOURCE / f"reaper.{MACHINE}"
    if not kept.exists():
        lacking(f"a reaper for {MACHINE}")
    copy = tmp_path / "reaper"
    copy.write_bytes(kept.read_bytes())
    copy.chmod(0o755)
    return copy


@pytest.mark.parametrize(
    ("machine", "prefix"), [("x86_64", "x86_64-linux-gnu-"), ("aarch64", "aarch64-linux-gnu-")]
)
def test_the_kept_bytes_are_what_the_source_builds(
    machine: str, prefix: str, tmp_path: Path, needs: Callable[..., None]
) -> None:
    tools = prefix
    if machine == MACHINE:
        tools = ""
    elif not Path(f"/usr/bin/{prefix}as").exists():
        pytest.skip(f"no assembler for {machine} on this machine")
    needs(f"{tools}as", f"{tools}ld", f"{tools}objcopy")
    names = [str(tmp_path / name) for name in ("object", "elf", "built")]

    subprocess.run([f"{tools}as", "-o", names[0], SOURCE / f"reaper.{machine}.s"], check=True)
    subprocess.run([f"{tools}ld", "-Ttext", "0x400000", "-o", names[1], names[0]], check=True)
    subprocess.run([f"{tools}objcopy", "-O", "binary", "-j", ".text", *names[1:]], check=True)

    assert (tmp_path / "built").read_bytes() == (SOURCE / f"reaper.{machine}").read_bytes()


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_it_ends_with_the_status_of_the_service(reaper: Path, script: str, status: int) -> None:
    assert subprocess.run([reaper, "/bin/sh", "-c", script]).returncode == status


@pytest.mark.parametrize(("program", "status"), [("/nonexistent", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_ends_as_in_a_shell(
    reaper: Path, program: str, status: int
) -> None:
    assert subprocess.run([reaper, program]).returncode == status


@pytest.mark.parametrize("number", [15, 2, 30, 37], ids=["TERM", "INT", "PWR", "RTMIN+3"])
def test_without_a_service_it_stays_until_it_is_told(reaper: Path, number: int) -> None:
    with subprocess.Popen([reaper]) as running:
        _until_listening(running.pid)
        running.send_signal(signal.SIGHUP)
        running.send_signal(number)

        assert running.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("sent", "heard"),
    [(15, "TERM"), (30, "TERM"), (37, "TERM"), (1, "HUP"), (3, "QUIT"), (10, "USR1"), (12, "USR2")],
    ids=str,
)
def test_it_passes_signals_on(reaper: Path, sent: int, heard: str) -> None:
    script = f"trap 'echo {heard}; exit 3' {heard}; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen([reaper, "/bin/sh", "-c", script], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(sent)

        assert running.wait(timeout=10) == 3
        assert running.stdout.read().decode().strip() == heard


@pytest.mark.root
def test_as_pid_1_it_reaps_orphans(reaper: Path, needs: Callable[..., None]) -> None:
    needs("unshare", "ps")
    script = "(sh -c 'sleep 0.05 & sleep 0.05 &' &); sleep 0.4; ps -A -o stat= | grep -c Z; exit 5"

    done = subprocess.run(
        ["unshare", "-pf", "--mount-proc", reaper, "/bin/sh", "-c", script], capture_output=True
    )

    assert (done.returncode, done.stdout) == (5, b"0\n")


def _until_listening(pid: int) -> None:
    """Return once the process catches signals (SigCgt of proc_pid_status(5))."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        if caught & 1 << 36 and caught & 1 << 14:
            return
    raise AssertionError("it does not listen")
