"""How long each built-in service takes to be ready, and what it costs: `python bench/services.py [-n N] [TEMPLATE…]`.

Prints docs/services.md; `python bench/services.py >docs/services.md` renews it. Needs root and a mirror, and minutes.
Every service is brought up with its defaults, `mktemplate up NAME --distro debian`, in a PATH of its own below --path:

    built    `up` where everything is downloaded and no layer of the service is there: unpack and configure it
    ready    `up` where the layers are there, the median of N: what a second container of the kind takes
    memory   what its processes hold when it has been ready for a second, each page shared with others in equal parts
             (Pss of proc_pid_smaps_rollup(5)): page cache is not counted

Times are wall times of the whole command, Python's start and the service's own included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
RELEASE = "trixie"
SETTLED = 1.0  # seconds
HEAD = """\
# Services

What comes with mktemplate. Each is proved by the client that people use (`tests/system/test_services_*.py`).
`mktemplate up NAME` is all it takes; `mktemplate show NAME` has every option, `mktemplate plan NAME` every package.

| service | packages | installed | built | ready | memory |
|---|---:|---:|---:|---:|---:|
"""
FOOT = """
**packages, installed**: of Debian {release}, with its Essential set of {base}, which the services of a machine share.
**built**: the first `up` on a machine that has downloaded the packages. **ready**: every other `up`, the whole command,
until the service answers. **memory**: what its processes hold when idle, without page cache.{lacking}

Written by `python bench/services.py` on {cores} processors at a load of {load}, Linux {kernel}.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured of one service: counts, bytes, seconds."""

    name: str
    summary: str
    packages: int
    installed: int
    built: float
    ready: float
    memory: int

    def __str__(self) -> str:
        return (
            f"| `{self.name}` {self.summary} | {self.packages} | {mib(self.installed)} | {self.built:.1f} s "
            f"| {self.ready:.2f} s | {mib(self.memory)} |"
        )


@dataclass(frozen=True, slots=True)
class Mktemplate:
    """The command with a PATH of its own."""

    path: Path

    def __call__(self, *argv: str) -> Any:  # noqa: ANN401 - JSON is any
        """Run it and return its document; CalledProcessError where it fails."""
        words = [
            sys.executable,
            "-P",
            "-m",
            "mktemplate",
            "--path",
            str(self.path),
            *argv,
            "--json",
        ]
        done = subprocess.run(
            words, capture_output=True, check=True, timeout=900, cwd="/",
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        return json.loads(done.stdout or b"null")


def main() -> None:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("templates", nargs="*", metavar="TEMPLATE", help="all that are built in")
    parser.add_argument("-n", type=int, default=5, metavar="N", help="rounds (5)")
    parser.add_argument("--path", type=Path, help="keep downloads there for the next time")
    arguments = parser.parse_args()
    with place(arguments.path) as path:
        run = Mktemplate(path)
        known = {
            row["name"]: row["summary"] for row in run("templates") if row["origin"] == "built in"
        }
        size = mib(installed(run("create", "base", "--distro", "debian", "--release", RELEASE)))
        run("destroy", "base")
        rows, lacking = [], []
        for name in arguments.templates or sorted(known):
            try:
                rows.append(measured(run, name, known[name], arguments.n))
            except subprocess.CalledProcessError as error:
                print(f"{name}: {error.stderr.decode()}", file=sys.stderr)
                lacking.append(f"`{name}`")
                for left in run("list"):
                    run("destroy", "--force", left["name"])
                continue
            print(rows[-1], file=sys.stderr)
    load = f"{os.getloadavg()[0]:.1f}"
    told = {"release": RELEASE, "base": size, "load": load, "kernel": platform.release()}
    told["lacking"] = f" Not measured, out of reach: {', '.join(lacking)}." if lacking else ""
    print(
        HEAD + "\n".join(map(str, rows)) + "\n" + FOOT.format(cores=os.cpu_count(), **told), end=""
    )


@contextmanager
def place(path: Path | None) -> Iterator[Path]:
    """Give a PATH, which is removed afterwards unless it was asked for."""
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mkt-services-", dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made) / "path"


def measured(run: Mktemplate, name: str, summary: str, rounds: int) -> Row:
    """Bring one service up and down."""
    asked = ("up", name, "--distro", "debian", "--release", RELEASE)
    run("create", *asked[1:])  # downloads what is missing
    info = run("info", name)
    packages, size = len(info["packages"]), installed(info)
    run("destroy", name)
    run("prune", "--layers")
    run("create", "base", "ground", "--distro", "debian", "--release", RELEASE)  # what all share
    built = timed(run, asked)
    run("destroy", "--force", "ground", name)
    times = []
    for number in range(rounds):
        if number:
            run("destroy", "--force", name)
        times.append(timed(run, asked))
    time.sleep(SETTLED)
    memory = held(run("info", name)["pid"])
    run("destroy", "--force", name)
    return Row(
        name=name, summary=summary, packages=packages, installed=size, built=built,
        ready=statistics.median(times), memory=memory,
    )  # fmt: skip


def timed(run: Mktemplate, argv: Sequence[str]) -> float:
    """Return the seconds that a command takes."""
    begun = time.monotonic()
    run(*argv)
    return time.monotonic() - begun


def installed(container: Any) -> int:  # noqa: ANN401 - JSON is any
    """Return the bytes on disk of the layers of a container."""
    root = Path(container["path"])
    rootfs = next(
        line for line in (root / "config").read_text().split("\n") if "lxc.rootfs.path" in line
    )
    layers = rootfs.partition("overlay:")[2].split(":")[:-1]
    done = subprocess.run(["du", "-sk", *layers], capture_output=True, check=True, text=True)
    return sum(int(line.split()[0]) for line in done.stdout.splitlines()) * 1024


def held(pid: int) -> int:
    """Return the bytes that the processes in the pid namespace of process `pid` hold."""
    namespace = os.readlink(f"/proc/{pid}/ns/pid")
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/pid") != namespace:
                continue
            rows = (entry / "smaps_rollup").read_text().split("\n")
        except OSError:
            continue  # it ended
        total += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total * 1024


def mib(size: int) -> str:
    """Return a number of bytes in the words of the page."""
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
