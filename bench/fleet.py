"""How fast many containers are started: `python bench/fleet.py [-n CONTAINERS] [-j AT_ONCE]`.

The library starts N containers, each asleep upon an overlay of the same small root, with all that a service gets;
lxc-start -d starts as many with the same namespaces, ids, capabilities and filter upon a folder. Both are started
twice and the second time is measured: a container's first start by the library writes its start program. Needs root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from bench.launch import COMMAND, Place, config, made, prepared  # noqa: E402  # the checkout comes first

SLEEP = "/bin/sleep"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, metavar="CONTAINERS")
    parser.add_argument("-j", type=int, default=os.cpu_count() or 1, metavar="AT_ONCE")
    asked = parser.parse_args()
    with prepared() as place:
        for root in (place.root, place.shifted):
            shutil.copy(SLEEP, root / "bin/sleep")
            (root / "bin/sleep").chmod(0o755)
        rates = [kind(place, asked.n, asked.j) for kind in (library, lxc)]
    print(
        f"{asked.n} containers, {asked.j} at once, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    for name, rate in zip(("mktemplate's library", "lxc-start -d"), rates, strict=True):
        print(f"{name:22} {rate:7.1f} per second, {rate / rates[1]:.2f} of lxc-start -d's")


def library(place: Place, count: int, at_once: int) -> float:
    """Return how many containers the library starts in a second."""
    from runtime.container import Container

    for number in range(count):
        one = made(place, f"bench-{number}", "overlay")
        text = (one.directory / "config").read_text()
        (one.directory / "config").write_text(text.replace(COMMAND, f"{SLEEP} 86400"))
    names = [f"bench-{number}" for number in range(count)]
    try:
        return timed(
            names,
            at_once,
            lambda name: Container(place.folder, name).start(),
            lambda name: Container(place.folder, name).kill(),
        )
    finally:
        for name in names:
            Container(place.folder, name).destroy(force=True)


def lxc(place: Place, count: int, at_once: int) -> float:
    """Return how many containers lxc-start -d starts in a second."""
    path = place.folder / "lxc"
    text = config(place, f"dir:{place.shifted}").replace(
        "lxc.rootfs.options = idmap=container\n", ""
    )
    text = text.replace(COMMAND, f"{SLEEP} 86400")
    text += "lxc.console.path = none\nlxc.apparmor.profile = unconfined\n"
    names = [f"bench-{number}" for number in range(count)]
    for name in names:
        (path / name).mkdir(parents=True)
        (path / name / "config").write_text(text)

    def run(*words: str) -> None:
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    return timed(
        names,
        at_once,
        lambda name: run("lxc-start", "-P", str(path), "-n", name, "-d"),
        lambda name: run("lxc-stop", "-P", str(path), "-n", name, "-k"),
    )


def timed(
    names: list[str], at_once: int, start: Callable[[str], object], stop: Callable[[str], object]
) -> float:
    """Start all twice; return the second time's rate. All are stopped at the end."""
    rate = 0.0
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(2):
            began = time.perf_counter()
            try:
                list(pool.map(start, names))
                rate = len(names) / (time.perf_counter() - began)
            finally:
                list(pool.map(stop, names))
    return rate


if __name__ == "__main__":
    main()
