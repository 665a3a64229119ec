"""Full disks, read-only disks, cut networks, several commands at once: a code, one line, and nothing half-made."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner import collect
from provisioner.store import Store
from tests.archive import Deb
from tests.system.command import Mkt
from tests.tiny import Tiny

pytestmark = pytest.mark.system
Done = subprocess.CompletedProcess[str]
HALF_MADE = ("staging", "trash", "quarantine")


def assert_refused(done: Done, *codes: str) -> None:
    """Assert that it ended with one line that names one of `codes`."""
    said = re.findall(r"^mktemplate: error\[(E_[A-Z_]+)\]: ", done.stderr, re.M)
    assert len(said) == 1, done.stderr
    assert said[0] in codes, done.stderr
    assert "Traceback" not in done.stderr


def assert_whole(mkt: Mkt) -> None:
    """Assert that nothing half-made is there, and nothing damaged."""
    store = Store(mkt.path / ".store")
    left = [path for name in HALF_MADE for path in (store.path / name).glob("*")]
    assert left == []
    if (store.path / "staging").exists():
        damaged = collect.verify(store).damaged
        store.close()
        assert damaged == ()


def processes(mkt: Mkt, *commands: Sequence[str]) -> list[Done]:
    """Run all of `commands` at once; return how each ended."""
    whole = [
        [sys.executable, "-P", "-m", "mktemplate", "--path", str(mkt.path), *each]
        for each in commands
    ]
    started = [
        subprocess.Popen(
            argv,
            env=mkt.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argv in whole
    ]
    ended = []
    for process in started:
        out, errors = process.communicate(timeout=120)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, errors))
    return ended


# Disks


@contextmanager
def mounted(place: Path, kind: str, options: str, size: int = 0) -> Iterator[Mkt]:
    """Mount a small file system at `place`; return the command that uses it."""
    place.mkdir()
    device = "none"
    if size:
        device = f"{place}.disk"
        with open(device, "wb") as file:
            file.truncate(size)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", device], check=True)
    subprocess.run(["mount", "-t", kind, "-o", options, device, place], check=True)
    try:
        mkt = Mkt(place / "path")
        mkt.environment["HOME"] = str(place.parent)
        yield mkt
    finally:
        subprocess.run(["umount", place], check=True)


def remount(mkt: Mkt, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", mkt.path.parent], check=True)


def some(*values: int, rest: tuple[int, ...]) -> list[object]:
    """Return `values`, and `rest` for --all."""
    return [*values, *(pytest.param(value, marks=pytest.mark.slow) for value in rest)]


@pytest.mark.parametrize("kilobytes", some(64, 4500, 14000, rest=(16, 512, 2048, 9000, 17000)))
def test_a_disk_that_fills_up_is_named_in_every_phase(
    tiny_archive: Tiny, tmp_path: Path, kilobytes: int
) -> None:
    with mounted(tmp_path / "small", "tmpfs", f"size={kilobytes}k") as mkt:
        assert_refused(mkt(*tiny_archive.create()), "E_NOSPACE")
        assert mkt.names() == []
        assert_whole(mkt)

        remount(mkt, "size=100m")
        mkt.ok(*tiny_archive.create())
        assert_whole(mkt)


@pytest.mark.parametrize("megabytes", some(12, rest=(4, 8, 18)))
def test_a_full_ext4_is_named_too(
    tiny_archive: Tiny, tmp_path: Path, megabytes: int, needs: Callable[..., None]
) -> None:
    needs("mke2fs")
    with mounted(tmp_path / "small", "ext4", "loop", megabytes << 20) as mkt:
        assert_refused(mkt(*tiny_archive.create()), "E_NOSPACE")
        assert mkt.names() == []
        assert_whole(mkt)


@pytest.mark.parametrize("inodes", some(40, rest=(3, 12, 25, 60, 90)))
def test_inodes_that_run_out_are_named(tiny_archive: Tiny, tmp_path: Path, inodes: int) -> None:
    with mounted(tmp_path / "small", "tmpfs", f"size=100m,nr_inodes={inodes}") as mkt:
        assert_refused(mkt(*tiny_archive.create()), "E_NOINODES")
        assert mkt.names() == []

        remount(mkt, "nr_inodes=10000")
        mkt.ok(*tiny_archive.create())
        assert_whole(mkt)


def test_a_read_only_store_is_read_and_nothing_else(tiny_archive: Tiny, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "tmpfs", "size=100m") as mkt:
        mkt.ok(*tiny_archive.create("web"))
        remount(mkt, "ro")
        try:
            assert mkt.names() == ["web"]
            mkt.ok("info", "web")
            for argv in (tiny_archive.create("other"), ("destroy", "web"), ("prune",)):
                done = mkt(*argv)
                assert_refused(done, "E_READONLY")
                assert done.returncode == 7
        finally:
            remount(mkt, "rw")
        mkt.ok("destroy", "web")
        assert_whole(mkt)


# The network


DYING = """
import http.server, os, sys
class Dying(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def copyfile(self, source, out):
        body = source.read()
        out.write(body[: 1 << 20])
        if len(body) > 1 << 20:
            os._exit(0)
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dying)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def test_a_download_goes_on_where_the_server_died(tiny_archive: Tiny, cold: Mkt) -> None:
    argv = [sys.executable, "-c", DYING, str(tiny_archive.served.root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        words = [url if word == tiny_archive.served.url else word for word in tiny_archive.create()]

        cut = cold(*words)

    assert cut.returncode == 4, cut.stderr
    assert_refused(cut, "E_NET_TRUNCATED", "E_NET_CONNECT")
    partials = (
        cold.path / ".store/cache/partial"
    ).iterdir()  # of the one that was cut, and its neighbour
    kept = max(partial.stat().st_size for partial in partials)
    assert 0 < kept <= 1 << 20
    cold.ok(*tiny_archive.create())  # the same archive, served again
    assert_whole(cold)
    assert list((cold.path / ".store/cache/partial").iterdir()) == []


# Several at once


def fetched(tiny: Tiny, since: int) -> list[str]:
    """Return the archives that were asked for since then, sorted."""
    return sorted(path for path in tiny.served.requests[since:] if path.endswith(".deb"))


@pytest.mark.parametrize("count", some(8, rest=(2,)))
def test_of_several_creates_of_one_name_one_makes_it(
    tiny_archive: Tiny, cold: Mkt, count: int
) -> None:
    before = len(tiny_archive.served.requests)

    done = processes(cold, *[tiny_archive.create()] * count)

    assert sorted(each.returncode for each in done)[0] == 0
    assert sum(each.returncode == 0 for each in done) == 1
    for each in done:
        if each.returncode:
            assert_refused(each, "E_LOCKED", "E_EXISTS")
    assert len(fetched(tiny_archive, before)) == 2
    assert cold.names() == ["own"]
    assert_whole(cold)


def test_who_waits_for_a_create_of_the_name_finds_it_there(tiny_archive: Tiny, cold: Mkt) -> None:
    done = processes(cold, *[tiny_archive.create("own", "--wait")] * 3)

    assert sum(each.returncode == 0 for each in done) == 1
    for each in done:
        if each.returncode:
            assert_refused(each, "E_EXISTS")


def test_creates_of_two_names_build_their_layers_once(tiny_archive: Tiny, cold: Mkt) -> None:
    before = len(tiny_archive.served.requests)

    done = processes(cold, *[tiny_archive.create(name) for name in ("one", "two", "three")])

    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    assert len(fetched(tiny_archive, before)) == 2
    assert sum(each.stderr.count("configure (") for each in done) == 2
    layers = [cold.json("info", name)["layers"] for name in ("one", "two", "three")]
    assert layers[0] == layers[1] == layers[2]
    assert_whole(cold)


def test_creates_succeed_while_prune_runs_and_runs(tiny_archive: Tiny, cold: Mkt) -> None:
    stop = threading.Event()
    pruned: list[Done] = []

    def prune() -> None:
        while not stop.is_set():
            pruned.append(cold("prune"))

    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        for turn in range(3):
            done = processes(cold, tiny_archive.create(f"a{turn}"), tiny_archive.create(f"b{turn}"))
            assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
            for name in (f"a{turn}", f"b{turn}"):
                for digest in cold.json("info", name)["layers"]:
                    assert (cold.path / ".store/layers" / digest / "meta.json").exists()
            done = processes(cold, ("destroy", f"a{turn}"), ("destroy", f"b{turn}"))
            assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    finally:
        stop.set()
        pruner.join()

    assert {each.returncode for each in pruned} == {0}, [each.stderr for each in pruned]
    cold.ok("prune")
    assert_whole(cold)


# What a package's scripts can do


BAD = {
    "reads": ("read x && exit 9; exit 5", "E_SCRIPT_FAILED"),
    "wipes": ("rm -rf --no-preserve-root / 2>/dev/null; exit 1", "E_SCRIPT_FAILED"),
    "kills": ("kill -9 -1; exit 8", "E_SCRIPT_FAILED"),
    "daemonizes": ("setsid sleep 1000 >/dev/null 2>&1 & exit 1", "E_SCRIPT_FAILED"),
    "stays": ("setsid sleep 1000 >/dev/null 2>&1 & exit 0", "E_SCRIPT_LEFTOVER"),
    "shouts": ("seq 1000000; exit 6", "E_SCRIPT_FAILED"),
    "lacks": ("exit 127", "E_SCRIPT_FAILED"),
    "misses": ("/no/such/program", "E_SCRIPT_FAILED"),
    "grows": ("yes >/big; exit 1", "E_SCRIPT_FAILED"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_script_hurts_nothing_but_its_draft(
    tiny_archive: Tiny, tmp_path: Path, name: str
) -> None:
    body, code = BAD[name]
    deb = Deb(
        name=f"bad-{name}", scripts={"postinst": f"#!/bin/sh\n{body}\n"}, fields={"Depends": "tiny"}
    )
    tiny_archive.release(deb)
    with mounted(tmp_path / "disk", "tmpfs", "size=100m") as mkt:
        mkt.ok(*tiny_archive.create("before"))
        before = mkt.json("info", "before")

        done = mkt(*tiny_archive.create("own", "--packages", deb.name), timeout=60)

        assert_refused(done, *((code, "E_NOSPACE") if name == "grows" else (code,)))
        assert done.returncode == (7 if "E_NOSPACE" in done.stderr else 9)
        assert len(done.stderr.splitlines()) < 60
        assert mkt.names() == ["before"]
        assert mkt.json("info", "before") == before
        assert_whole(mkt)
        mkt.ok(*tiny_archive.create("after"))


# What lies in a container that is destroyed


def _deep(upper: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _strange(upper: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", b" ", b"-rf", b"\x1b[2J", b"a" * 255, b"*"):
        folder = os.fsencode(upper) + b"/" + name
        os.mkdir(folder)
        Path(os.fsdecode(folder + b"/" + name)).touch()
    os.mkfifo(upper / "pipe")
    os.mknod(upper / "device", 0o600 | 0o020000, os.makedev(1, 3))
    (upper / "out").symlink_to("/etc")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(upper / "socket"))
    with open(upper / "sparse", "wb") as file:
        file.truncate(1 << 40)


def _many(upper: Path) -> None:
    for folder in range(20):
        (upper / f"f{folder}").mkdir()
        for number in range(1000):
            (upper / f"f{folder}" / str(number)).touch()


def _immutable(upper: Path) -> None:
    (upper / "folder").mkdir()
    (upper / "folder/fixed").write_text("x")
    (upper / "folder/log").write_text("x")
    for flag, name in (("+i", "folder/fixed"), ("+a", "folder/log"), ("+i", "folder")):
        done = subprocess.run(["chattr", flag, upper / name], capture_output=True)
        if done.returncode:
            pytest.skip("this file system knows no immutable files")


@pytest.mark.parametrize("fill", [_deep, _strange, _many, _immutable])
def test_a_hostile_tree_is_destroyed(
    tiny_archive: Tiny, mkt: Mkt, tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("x")
    mkt.ok(*tiny_archive.create("hostile"))
    fill(mkt.path / "hostile/upper")

    mkt.ok("destroy", "hostile")

    assert mkt.names() == []
    assert list((mkt.path / ".store/trash").iterdir()) == []
    assert canary.read_text() == "x"
    assert Path("/etc/passwd").exists()
