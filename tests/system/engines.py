"""The engines of others, each with all that it keeps in a folder of the test's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.cell import Cell, until

Words = tuple[str | Path, ...]


def podman(place: Path) -> Words:
    """Return how podman is called: by somebody who logged in (audit_control), whom a container's processes go on as."""
    return (
        "sh", "-c", "echo 1000 2>/dev/null >/proc/self/loginuid; exec podman \"$@\"", "podman",
        "--root", place / "images", "--runroot", place / "run",
        "--cgroup-manager", "cgroupfs",
    )  # fmt: skip


@contextmanager
def docker(apart: Cell, place: Path) -> Iterator[Words]:
    """Have a dockerd for the length of the block; yield how its client is called."""
    client: Words = ("docker", "-H", f"unix://{place}/socket")
    daemon = (
        "dockerd", "--data-root", place / "data", "--exec-root", place / "run", "-p", place / "pid",
        "-H", f"unix://{place}/socket", "--bridge=none", "--iptables=false", "--ip6tables=false",
    )  # fmt: skip
    with apart.running(*daemon, log=place / "log"):
        until(lambda: apart.run(*client, "info").returncode == 0, 20, (place / "log").read_text)
        yield client
