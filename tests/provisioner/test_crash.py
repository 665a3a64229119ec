"""A run that is killed at any of its changes to the disk leaves a store with which the next run does its work."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from provisioner.deb.index import read_index
from provisioner.download import cached, download
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy, trust_list
from provisioner.progress import SILENT
from provisioner.release import read_suites
from provisioner.sources import Source
from tests.archive import Deb, Key, Served, Suite, publish

HELLO = Deb(name="hello", files={"usr/share/hello": "hello\n" * 100})
RUN = """
import sys, time
from pathlib import Path
from provisioner.deb.index import read_index
from provisioner.download import download
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy
from provisioner.progress import SILENT
from provisioner.release import read_suites
from provisioner.sources import Source
store = Path(sys.argv[1])
source = Source(distro="debian", suite="trixie", url=sys.argv[2], components=("main",), arch="amd64",
                keyring=Path(sys.argv[3]))
with HttpFetch({}) as fetch:
    _, files = read_suites([[source]], fetch, store, Policy(now=time.time()))
    index = read_index(files, store / "cache/lists", "amd64")
    download(index.versions("hello"), store / "cache", fetch, SILENT)
"""
CHANGES = "rename,renameat,renameat2,fsync,fchmod,mkdir,ftruncate,pwrite64"
POINTS = range(1, 40, 3)


def _killed_at(point: int, *arguments: str | Path) -> bool:
    """Run in a process that is killed at its `point`-th change; tell whether it got that far."""
    strace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={CHANGES}"]
    inject = ["-e", f"inject={CHANGES}:signal=KILL:when={point}"]
    done = subprocess.run(
        [*strace, *inject, sys.executable, "-B", "-c", RUN, *arguments],
        timeout=60, check=False, capture_output=True,
    )  # fmt: skip
    return done.returncode != 0


def _whole(store: Path) -> bool:
    """Whether every object of the cache has the hash that it is named by."""
    return all(
        hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        for path in (store / "cache/sha256").rglob("*")
        if path.is_file()
    )


def test_a_run_killed_at_any_change_is_made_good_by_the_next(
    tmp_path: Path, served: Served, archive_key: Key, needs: Callable[..., None]
) -> None:
    needs("strace")
    publish(served.root, Suite(name="trixie", debs={"main": (HELLO,)}), archive_key)
    killed = 0
    for point in POINTS:
        store = tmp_path / str(point)
        if not _killed_at(point, store, served.url, archive_key.keyring):
            break
        killed += 1
        assert _whole(store), f"killed at change {point}"
        assert len(trust_list(store)) <= 1

        _run(store, served, archive_key)

    assert killed >= 4


def _run(store: Path, served: Served, key: Key) -> None:
    """Do the same in this process, to its end."""
    source = Source(
        distro="debian", suite="trixie", url=served.url, components=("main",), arch="amd64",
        keyring=key.keyring,
    )  # fmt: skip
    with HttpFetch({}) as fetch:
        _, files = read_suites([[source]], fetch, store, Policy(now=time.time()))
        packages = read_index(files, store / "cache/lists", "amd64").versions("hello")
        download(packages, store / "cache", fetch, SILENT)
    assert packages
    assert all(cached(package, store / "cache") for package in packages)
