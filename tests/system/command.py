"""The command as a user types it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent.parent


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port of this machine's that nobody listens on now at `address`."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Mkt:
    """`mktemplate --path PATH …`, run as a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(path.parent / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(CHECKOUT),
        }

    def __call__(
        self, *argv: str, timeout: float = 300, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command and return how it ended; nothing is checked."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "mktemplate", "--path", str(self.path), *argv],
            env=self.environment | environment, cwd="/", input=stdin, text=True,
            capture_output=True, timeout=timeout,
        )  # fmt: skip

    def ok(self, *argv: str, timeout: float = 300, **environment: str) -> str:
        """Run the command, which must succeed; return its stdout."""
        done = self(*argv, timeout=timeout, **environment)
        assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *argv: str, timeout: float = 300) -> Any:  # noqa: ANN401 - JSON is any
        """Run the command with --json, which must succeed; return its document."""
        return json.loads(self.ok(*argv, "--json", timeout=timeout))

    def names(self) -> list[str]:
        """Return the names of the containers that exist."""
        return [container["name"] for container in self.json("list")]

    def sweep(self) -> None:
        """Destroy every container, whatever state it is in."""
        for name in self.names():
            self("destroy", "--force", name)


def granted(owner: str, otherwise: int) -> int:
    """Return the first id that /etc/subuid lends to `owner`."""
    lines = (line.split(":") for line in Path("/etc/subuid").read_text().splitlines())
    return next((int(first) for name, first, _ in lines if name == owner), otherwise)
