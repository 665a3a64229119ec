"""Who takes part in bench/provision.py, what each is given beforehand, and how one run is measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
RELEASE = "trixie"
HOOKS = Path("/usr/share/mmdebstrap/hooks")
LIMIT = 300  # seconds for one run


@dataclass(frozen=True, slots=True)
class Run:
    """One process, from exec to exit."""

    wall: float  # seconds, as is cpu
    cpu: float
    memory: int  # bytes, the largest of its processes
    phases: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to make a rootfs. `prepare` is not timed; what is `slow` runs in the first round only."""

    name: str
    argv: Callable[[Path], list[str]]  # for a fresh directory
    prepare: Callable[[Path], None] = lambda fresh: None
    slow: bool = False


@dataclass(slots=True, kw_only=True)
class Bench:
    """What all runs share."""

    arch: str
    suites: tuple[tuple[str, str], ...]  # mirror, suite
    keyring: str
    results: dict[tuple[str, str, str], list[Run]] = field(
        default_factory=lambda: defaultdict(list)
    )
    counter: int = 0

    def lines(self) -> list[str]:
        """Return the suites as apt reads them."""
        return [f"deb [signed-by={self.keyring}] {url} {suite} main" for url, suite in self.suites]


def ours(path: Path, name: str, packages: str, *more: str) -> list[str]:
    """Return the command that makes the container `name` of base and `packages`."""
    return [
        sys.executable, "-P", "-m", "mktemplate", "--path", str(path), "create", "base", name, "--json",
        "--distro", "debian", "--release", RELEASE, "--packages", packages, *more,
    ]  # fmt: skip


def measure(argv: list[str], log: Path) -> Run:
    """Run `argv`; raise where it fails."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8", "HOME": "/root",
        "TMPDIR": str(log.parent),
    }  # fmt: skip
    with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
        start = time.monotonic()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
        )
        guard = threading.Timer(LIMIT, process.terminate)  # nobody may hang
        guard.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        guard.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(argv)}\nexit {process.returncode}: {log.with_suffix('.err').read_text()[-2000:]}"
        )
    text = log.read_text(errors="replace")
    phases = json.loads(text)["timings"] if text.startswith("{") else {}
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, phases)


# Who takes part


def contestants(bench: Bench, home: Path, packages: str) -> Iterator[Contestant]:
    """Yield everybody, with what they need seeded below `home`."""
    seed = seeded(bench, home, packages)

    def with_cache(fresh: Path) -> None:
        """Give the fresh PATH the seed's downloads, as links: copying them is not what is measured."""
        (fresh / ".store").mkdir(mode=0o711)
        for part in ("cache", "trust", "version"):
            subprocess.run(
                ["cp", "-al", seed / ".store" / part, fresh / ".store"], check=True, timeout=LIMIT
            )

    def with_base(fresh: Path) -> None:
        with_cache(fresh)
        measure(ours(fresh, "first", ""), fresh.with_suffix(".prepare"))

    def with_all(fresh: Path) -> None:
        with_base(fresh)
        measure(ours(fresh, "second", packages), fresh.with_suffix(".prepare"))

    def mine(name: str, prepare: Callable[[Path], None], *more: str) -> Contestant:
        return Contestant(
            name=f"mktemplate, {name}", argv=lambda fresh: ours(fresh, "it", packages, *more), prepare=prepare
        )  # fmt: skip

    yield mine("nothing cached", lambda fresh: None)
    yield mine("packages cached", with_cache)
    yield mine("packages cached, --no-sync", with_cache, "--no-sync")
    yield mine("base layer cached", with_base)
    yield mine("known template", with_all)
    yield from peers(bench, home, seed, packages)


def peers(bench: Bench, home: Path, seed: Path, packages: str) -> Iterator[Contestant]:
    """Yield mmdebstrap as it comes and at its best, and debootstrap."""
    common = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={packages}", f"--architectures={bench.arch}",
              "--format=directory", "--mode=root"]  # fmt: skip
    if shutil.which("mmdebstrap"):
        yield Contestant(
            name="mmdebstrap", argv=lambda fresh: [*common, RELEASE, str(fresh), *bench.lines()]
        )
        mirror = local_mirror(bench, home, seed, packages)
        lines = [f"deb [signed-by={bench.keyring}] copy://{mirror / str(number)} {suite} main"
                 for number, (_, suite) in enumerate(bench.suites)]  # fmt: skip
        best = [*common, "--dpkgopt=force-unsafe-io"]
        yield Contestant(
            name="mmdebstrap, local mirror, unsafe-io",
            argv=lambda fresh: [*best, RELEASE, str(fresh), *lines],
        )
        if (HOOKS / "eatmydata").is_dir() and shutil.which("eatmydata"):
            hook = f"--hook-dir={HOOKS / 'eatmydata'}"
            yield Contestant(
                name="mmdebstrap, local mirror, eatmydata",
                argv=lambda fresh: [*best, hook, RELEASE, str(fresh), *lines],
            )
    if shutil.which("debootstrap"):
        debs = home / "debootstrap"
        base = ["debootstrap", "--variant=minbase", f"--include={packages}", f"--keyring={bench.keyring}",
                f"--arch={bench.arch}"]  # fmt: skip
        tail = [bench.suites[0][0]]
        yield Contestant(
            name="debootstrap", argv=lambda fresh: [*base, RELEASE, str(fresh), *tail], slow=True
        )
        debs.mkdir(exist_ok=True)
        measure(
            [*base, f"--cache-dir={debs}", RELEASE, str(home / "debootstrap-seed"), *tail],
            home / "seed.log",
        )
        yield Contestant(
            name="debootstrap, packages cached",
            argv=lambda fresh: [*base, f"--cache-dir={debs}", RELEASE, str(fresh), *tail],
            slow=True,
        )


def seeded(bench: Bench, home: Path, packages: str) -> Path:
    """Return a PATH in which the packages were made once."""
    seed = home / "seed"
    if not seed.exists():
        seed.mkdir()
        measure(ours(seed, "seed", packages), home / "seed.log")
    return seed


def local_mirror(bench: Bench, home: Path, seed: Path, packages: str) -> Path:
    """Return a folder that holds the signed suites and the set's archives, as `copy://` takes them."""
    mirror = home / "mirror"
    if mirror.exists():
        return mirror
    plan = json.loads(
        subprocess.run(
            [word if word != "create" else "plan" for word in ours(seed, "it", f"{packages},eatmydata")],
            cwd=CHECKOUT, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}, check=True,
            capture_output=True, timeout=LIMIT,
        ).stdout
    )  # fmt: skip
    for number, (url, suite) in enumerate(bench.suites):
        base = f"dists/{suite}"
        text = fetched(f"{url}/{base}/InRelease", mirror / str(number) / base / "InRelease")
        found = re.search(
            rb"^ ([0-9a-f]{64}) +[0-9]+ main/binary-%s/Packages\.xz$" % bench.arch.encode(),
            text,
            re.MULTILINE,
        )
        if found:
            folder = f"{base}/main/binary-{bench.arch}"
            body = fetched(
                f"{url}/{folder}/by-hash/SHA256/{found[1].decode()}",
                mirror / str(number) / folder / "Packages.xz",
            )
            place = mirror / str(number) / folder / "by-hash/SHA256" / found[1].decode()
            place.parent.mkdir(parents=True)
            place.write_bytes(body)
        for package in plan["packages"]:
            if package["url"].startswith(f"{url}/"):
                target = mirror / str(number) / package["url"].removeprefix(f"{url}/")
                fetched(package["url"], target)
    return mirror


def fetched(url: str, target: Path) -> bytes:
    """Fetch `url` into `target` and return it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    target.write_bytes(body)
    return body
