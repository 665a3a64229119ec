"""Mount and network namespaces of their own, in which another engine runs beside its clients."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Podman and Docker take a hybrid cgroup layout for version 2 and then miss its controllers. LXC and Incus look for
# links below /sys, which shows those of the network namespace that it was mounted in; AppArmor's are below security.
_ENTER = """\
ip link set lo up; ip addr add 192.0.2.1/32 dev lo
umount /sys/fs/cgroup/unified 2>/dev/null
mount --rbind /sys/fs/cgroup /mnt && mount -t sysfs sysfs /sys && mount --move /mnt /sys/fs/cgroup || exit
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
echo in
exec cat
"""


class Cell:
    """What is done in here is gone with it: mounts, links, processes that hold neither."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def argv(self, *argv: str | Path) -> list[str]:
        """Return the command line that runs `argv` in here."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "--", *map(str, argv)]

    def run(
        self, *argv: str | Path, timeout: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program and return how it ended; nothing is checked."""
        return subprocess.run(
            self.argv(*argv), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, env=os.environ | environment,
        )  # fmt: skip

    def ok(self, *argv: str | Path, timeout: float = 60, **environment: str) -> str:
        """Run a program, which must succeed; return its stdout."""
        done = self.run(*argv, timeout=timeout, **environment)
        assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, *argv: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Have a program run for the length of the block and write to `log`; SIGTERM ends it."""
        with open(log, "wb") as said:
            process = subprocess.Popen(
                self.argv(*argv), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def cell() -> Iterator[Cell]:
    """Have namespaces for the length of the block."""
    holder = subprocess.Popen(
        ["unshare", "-m", "-n", "--propagation", "private", "sh", "-c", _ENTER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == b"in\n"
        yield Cell(holder.pid)
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(timeout=10)


def until(true: Callable[[], object], seconds: float, told: Callable[[], str] = str) -> None:
    """Wait until `true` says so; say what `told` says if it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not come about in time: {told()}"
        time.sleep(0.1)
