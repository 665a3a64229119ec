"""How large a container that starts itself is, and how long until it answers: beside podman with the same root.

    python bench/bundle.py              20 starts of each, one after the other in turn
    python bench/bundle.py --runs 5

Both serve with busybox in a network namespace of this program's; the clock runs from the start of the program that a
person types to the first answer. The first start, which unpacks (podman: loads), is told apart. enroot and oci2bin
are in no registry that Debian or PyPI have, so podman stands for them. Needs root, podman, a mirror, iproute2.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.system.cell import Cell, cell  # noqa: E402 - the checkout must be found first
from tests.system.command import Mkt  # noqa: E402

NAME, PORT = "bench", 8099
PATIENCE = 60.0  # seconds
ASKS = f"""
import socket, sys, time
until = time.monotonic() + {PATIENCE}
while time.monotonic() < until:
    try:
        with socket.create_connection((sys.argv[1], {PORT}), 0.02) as s:  # a lost SYN would wait a second
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            if s.recv(4) == b"HTTP":
                print(time.monotonic()); sys.exit()
    except OSError:
        time.sleep(0.0005)
sys.exit("no answer")
"""


def answered(
    where: Cell, address: str, start: Callable[[], subprocess.Popen[bytes]]
) -> tuple[float, subprocess.Popen[bytes]]:
    """Return the seconds from `start` to the first answer at `address`, and the process that it began."""
    client = subprocess.Popen(where.argv("python3", "-c", ASKS, address), stdout=subprocess.PIPE)
    time.sleep(0.3)  # until the client asks: it must not be started within what is measured
    begun = time.monotonic()
    process = start()
    told, _ = client.communicate(timeout=2 * PATIENCE)
    return float(told) - begun, process


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with (
        TemporaryDirectory(prefix="mkt-bench-", dir="/var/tmp", ignore_cleanup_errors=True) as name,
        cell() as where,
    ):
        top = Path(name)
        (top / "home").mkdir()
        mkt = Mkt(top / "path")
        mkt.ok(
            "create", "busybox", NAME, "--distro", "debian", "--no-sync", "--set", f"port={PORT}"
        )
        mkt.ok("export", NAME, "-o", f"{top}/bundle", "--format", "bundle")
        mkt.ok("export", NAME, "-o", f"{top}/oci.tar", "--format", "oci")
        mkt.sweep()
        where.run(
            "sh", "-c", "mount --bind /dev/null $(command -v pasta)"
        )  # a link is what both can have
        measure(where, top, runs)


def measure(where: Cell, top: Path, runs: int) -> None:
    """Start both in turn and print what it took."""
    podman = (
        "podman",
        "--root",
        str(top / "images"),
        "--runroot",
        str(top / "run"),
        "--cgroup-manager",
        "cgroupfs",
    )
    address = link_address(where, top)
    took: dict[str, list[float]] = {"bundle": [], "podman": []}
    begun = time.monotonic()
    where.ok(*podman, "load", "-q", "-i", top / "oci.tar")
    loaded = time.monotonic() - begun
    run = (*podman, "run", "--rm", "--name", NAME, "--network", "host", f"localhost/{NAME}")
    ways = {
        "bundle": (address, (top / "bundle", "--dir", top / "at")),
        "podman": ("127.0.0.1", run),
    }
    for _ in range(runs + 1):
        for kind, (at, argv) in ways.items():
            seconds, process = answered(where, at, partial(begin, where, *argv))
            took[kind].append(seconds)
            if kind == "podman":
                where.run(*podman, "stop", "-t", "1", NAME)
                process.wait()
            else:
                end(where, process, top)
    where.run(*podman, "rmi", "-af")
    where.run("umount", top / "images/overlay")
    first = {"bundle": took["bundle"][0], "podman": took["podman"][0] + loaded}
    sizes = {"bundle": kib(top / "bundle"), "podman": kib(top / "oci.tar")}
    for kind, every in took.items():
        rest = sorted(every[1:])
        print(
            f"{kind}  {sizes[kind]} KiB  first start {first[kind] * 1000:.0f} ms  then median "
            f"{statistics.median(rest) * 1000:.1f} ms, p99 {rest[-1] * 1000:.1f} ms, n {len(rest)}"
        )


def link_address(where: Cell, top: Path) -> str:
    """Return the address that the bundle has, as its script says."""
    script = where.ok("head", "-c", "2000", top / "bundle")
    return script.split("\naddress=")[1].split("\n")[0]


def begin(where: Cell, *argv: str | Path) -> subprocess.Popen[bytes]:
    """Run a program that stays."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(where.argv(*argv), stdin=quiet, stdout=quiet, stderr=quiet)


def end(where: Cell, process: subprocess.Popen[bytes], top: Path) -> None:
    """Ask the bundle to end, and wait until it has."""
    where.ok("kill", "-TERM", (top / "at" / NAME / "pid").read_text().strip())
    process.wait(timeout=PATIENCE)


def kib(path: Path) -> int:
    """Return the size of a file."""
    return path.stat().st_size >> 10


if __name__ == "__main__":
    main()
