"""Kills the command at every system call that changes something, and looks at what the next commands find.

    python bench/crash.py                       every point of every scene
    python bench/crash.py --sample 20 --seed 7  twenty of them
    python bench/crash.py create destroy        the points of these scenes

A first, undisturbed run under strace(1) lists the calls of each process; then each one is the last thing that a run
does: strace's inject kills before the call is made. `main`: the command itself dies, as by kill -9; `child`: one of
the processes that it made for unpacking and configuring; `all`: the whole tree at that moment, as at a power cut.
A run that was not killed is a failure. Calls that the main process makes more often than a child cannot be aimed at
that child: strace counts per process and kills the first that gets there.

With --errno the disk refuses that call and every later one of its name: the command ends with status 7, or does its
work if it can.

After each death: `list` and `info` answer; whatever is visible is whole; the same command succeeds with no cleaning by
hand; no layer and no download is damaged; the container that was there before is the same to the byte; nothing of ours
runs; after one more command nothing half-made lies in the store. Needs root, strace, dpkg-deb, apt-ftparchive, gpg.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from provisioner import collect, content  # noqa: E402 - the checkout must be found first
from provisioner.store import Store  # noqa: E402
from runtime import bundle, network, orphans, state  # noqa: E402
from tests.archive import new_key, serve  # noqa: E402
from tests.system.command import Mkt  # noqa: E402
from tests.tiny import HELLO, Tiny, publish_tiny, write_template  # noqa: E402

CALLS = (
    "openat", "openat2", "write", "pwrite64", "sendfile", "copy_file_range", "ftruncate", "fsync", "mkdir",
    "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "link", "linkat", "symlink",
    "symlinkat", "mknodat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown", "utimensat",
    "setxattr", "fsetxattr", "removexattr", "fremovexattr", "flock", "connect", "sendto", "clone", "clone3",
    "fork", "vfork", "execve", "unshare", "setns", "mount_setattr", "open_tree", "move_mount", "fsopen",
    "fsmount", "pivot_root", "umount2", "syncfs", "sethostname", "setgroups", "setresuid", "capset", "kill",
    "pidfd_send_signal", "ioctl",
)  # fmt: skip
LINE = re.compile(r"(?P<pid>[0-9]+) +(?P<call>[a-z0-9_]+)\((?P<arguments>.*)")
DISK = {
    "openat", "write", "pwrite64", "sendfile", "copy_file_range", "ftruncate", "fsync", "syncfs", "mkdir", "mkdirat",
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mknodat", "setxattr", "fsetxattr",
}  # fmt: skip
HARMLESS = {
    "openat": re.compile(r"^(?!.*O_(CREAT|TMPFILE))"),
    "openat2": re.compile(r"^(?!.*O_(CREAT|TMPFILE))"),
    "write": re.compile(r"[12],"),  # what it tells people
    "ioctl": re.compile(r"^(?!.*(FS_IOC_SETFLAGS|TIOCGPTPEER))"),
}
FOLDERS = (
    "staging",
    "trash",
    "quarantine",
    "cache/partial",
    "cache/lists/partial",
)  # empty at rest
HIDDEN = (".", "cache", "cache/lists", "cache/sha256/*", "trust", "ids")  # no draft at rest
SLOW = 120  # seconds that no run should need


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The `number`-th call of this name in `who`."""

    scene: str
    who: str  # main, child or all
    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.scene}: {self.call} {self.number} ({self.who})"


@dataclass(frozen=True, slots=True)
class Scene:
    """A command, and what is there when it is given."""

    name: str
    prepare: Callable[[Mkt, Tiny], None]
    argv: Callable[[Tiny], tuple[str, ...]]
    repeated: str  # the code with which the command ends once its work is done, "" where it succeeds again
    gone: str = ""  # the container that somebody removed by hand: its address is reserved still


class Place:
    """A PATH of its own, brought back to the state of a scene before each run."""

    def __init__(self, folder: Path, tiny: Tiny) -> None:
        """Make it below `folder`, for containers of `tiny`."""
        self.folder = folder
        self.tiny = tiny
        self.mkt = Mkt(folder / "path")
        self.mkt.environment |= {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "MKT_CRASH": str(folder),
        }
        (folder / "home").mkdir(parents=True)
        self._kept = self._gone = ""

    def prepare(self, scene: Scene) -> None:
        """Make the scene; `restore` brings it back."""
        run("rm", "-rf", self.mkt.path, self.folder / "before")
        self._gone = ""
        self._reserve()
        scene.prepare(self.mkt, self.tiny)
        if self.mkt.path.exists():
            run("cp", "-a", self.mkt.path, self.folder / "before")
        self._gone = scene.gone
        self._reserve()
        self._kept = self.fingerprint()

    def restore(self) -> None:
        """Bring the PATH back to the state of the scene."""
        run("rm", "-rf", self.mkt.path)
        if (self.folder / "before").exists():
            run("cp", "-a", self.folder / "before", self.mkt.path)
        self._reserve()

    def _reserve(self) -> None:
        """Have an address reserved for what is gone, and nothing else that is not there, as runs before leave it."""
        for name in orphans.names(self.mkt.path):
            orphans.release(self.mkt.path, name)
        if self._gone:
            network.reserve(state.key(self.mkt.path, self._gone))

    def fingerprint(self) -> str:
        """Return what the container `keep` consists of, "" where the scene has none."""
        keep = self.mkt.path / "keep"
        return content.digest(keep) if keep.exists() else ""

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the whole command line of `mktemplate` with `argv`."""
        return [sys.executable, "-P", "-m", "mktemplate", "--path", str(self.mkt.path), *argv]

    # What must hold after a death

    def faults(self, scene: Scene) -> Iterator[str]:
        """Run the next commands; yield what is not as it must be."""
        yield from self._left_running()
        yield from self._visible()
        self._age()
        again = self.mkt(*scene.argv(self.tiny), timeout=SLOW)
        if again.returncode and not (scene.repeated and f"error[{scene.repeated}]" in again.stderr):
            yield f"the same command: exit {again.returncode}: {again.stderr.strip()}"
        if again.returncode or "create" not in scene.argv(self.tiny):
            after = self.mkt(*self.tiny.create("after"), timeout=SLOW)
            if after.returncode:
                yield f"a create: exit {after.returncode}: {after.stderr.strip()}"
        yield from self._damaged()
        yield from self._half_made()
        if self.fingerprint() != self._kept:
            yield "the container that was there before has changed"

    def _age(self) -> None:
        """Let two hours pass for what nobody finished: the drafts of single files, told by their age."""
        store = self.mkt.path / ".store"
        for path in [path for folder in HIDDEN for path in store.glob(f"{folder}/.*")]:
            os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)

    def _visible(self) -> Iterator[str]:
        listed = self.mkt("list", "--json")
        if listed.returncode:
            yield f"list: exit {listed.returncode}: {listed.stderr.strip()}"
            return
        names = {each["name"] for each in json.loads(listed.stdout)}
        there = {path.name for path in self.mkt.path.glob("[!.]*")}
        if names != there:
            yield f"list shows {sorted(names)}, there is {sorted(there)}"
        for name in names - {"keep"}:
            told = self.mkt("info", name, "--json")
            if told.returncode:
                yield f"info {name}: exit {told.returncode}: {told.stderr.strip()}"
            else:
                yield from self._mixed(name)

    def _mixed(self, name: str) -> Iterator[str]:
        """Yield where two generations are mixed, once whoever locks the container next has finished a swap."""
        place = self.mkt.path / name
        with state.lock(self.mkt.path, name):
            record = bundle.read(place).record
            config = (place / "config").read_text()
        if not all(digest in config for digest in record.layers):
            yield f"{name}: its config names other layers than its record"
        if (place / "upper/mark").exists() and record.upgraded:
            yield f"{name}: layers of today below the upper of yesterday"

    def _damaged(self) -> Iterator[str]:
        store = Store(self.mkt.path / ".store")
        try:
            for name in collect.verify(store).damaged:
                yield f"damaged: {name}"
        finally:
            store.close()

    def _half_made(self) -> Iterator[str]:
        """Yield what a later command should have swept, everywhere in the store and beside it."""
        store = self.mkt.path / ".store"
        names = {path.name for path in self.mkt.path.glob("[!.]*")}
        drafts = [path for folder in FOLDERS for path in store.glob(f"{folder}/*")]
        drafts += [path for folder in HIDDEN for path in store.glob(f"{folder}/.*")]
        drafts += [path for path in self.mkt.path.glob(".*") if path != store]
        state = Path("/run/mktemplate", hashlib.sha256(os.fsencode(self.mkt.path)).hexdigest()[:16])
        drafts += [path for path in state.glob("*") if path.name.partition(".")[0] not in names]
        for path in drafts:
            if path.name != ".lock":
                yield f"left: {path}"
        for name in orphans.names(self.mkt.path):
            yield f"something is reserved for {name}, which is not there"
        owners = sorted(str(path.readlink()) for path in store.glob("ids/*"))
        if owners != sorted(names):
            yield f"ids are reserved for {owners}, there is {sorted(names)}"

    def _left_running(self) -> Iterator[str]:
        mark = f"MKT_CRASH={self.folder}".encode()
        deadline = time.monotonic() + 2
        while found := marked(mark):
            if time.monotonic() > deadline:
                yield f"still running after 2 s: {found}"
                return
            time.sleep(0.01)  # for the kernel to take the namespace down


def marked(mark: bytes) -> list[str]:
    """Return the processes with `mark` in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    found.append(f"{entry} {Path('/proc', entry, 'comm').read_text().strip()}")
    return found


def run(*argv: str | Path) -> None:
    """Run a program that must succeed."""
    subprocess.run(argv, check=True, timeout=SLOW)


# Where it can be killed


def points(scene: Scene, place: Place) -> list[Point]:
    """Return the points of an undisturbed run of the scene's command."""
    trace = place.folder / "trace"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "0", "-o", trace, "-e", f"trace={','.join(CALLS)}",
         *place.command(scene.argv(place.tiny))],
        env=place.mkt.environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SLOW, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(
            f"{scene.name}: the undisturbed run ended with {done.returncode}: {done.stderr}"
        )
    counts: Counter[tuple[str, str]] = Counter()
    main = ""
    found: dict[tuple[str, str, int], None] = {}
    for line in trace.read_text(errors="replace").split("\n"):
        match = LINE.match(line)
        if match is None:
            continue
        pid, call, arguments = match.groups()
        main = main or pid
        counts[pid, call] += 1
        if call in HARMLESS and HARMLESS[call].match(arguments):
            continue
        if (pid, call) == (main, "execve") and counts[pid, call] == 1:
            continue  # strace's own
        found["main" if pid == main else "child", call, counts[pid, call]] = None
    own = [Point(scene.name, who, call, number) for who, call, number in found if who == "main"]
    others = [
        Point(scene.name, kind, call, number)
        for who, call, number in found
        for kind in ("child", "all")
        if who == "child" and number > counts[main, call]
    ]
    return own + others


def died(scene: Scene, point: Point, place: Place) -> bool:
    """Run the command on the scene until the point; return whether it was hit there, and took that as it should."""
    place.restore()
    kill = point.who in ("main", "child", "all")
    follow = ["-f", "--kill-on-exit"] if point.who in ("child", "all") else []
    how = f"signal=KILL:when={point.number}" if kill else f"error={point.who}:when={point.number}+"
    with tempfile.TemporaryFile() as told, subprocess.Popen(
        ["strace", *follow, "-o", "/dev/stdout", "-s", "0", "-e", f"trace={point.call}",
         "-e", f"inject={point.call}:{how}", *place.command(scene.argv(place.tiny))],
        env=place.mkt.environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told, text=True,
        errors="replace",
    ) as tracer:  # fmt: skip
        assert tracer.stdout is not None
        hit = False
        for line in tracer.stdout:
            if "+++ killed by SIGKILL" in line or "(INJECTED)" in line:
                hit = True
                if point.who == "all":
                    tracer.kill()
        status = tracer.wait(timeout=SLOW)
        told.seek(0)
        text = told.read().decode(errors="replace")
    orderly = "Traceback" not in text and "E_BUG" not in text
    return hit and (point.who in ("main", "all") or orderly) and (kill or status in (0, 7))


# The scenes


def _nothing(mkt: Mkt, tiny: Tiny) -> None:
    pass


def _with_containers(mkt: Mkt, tiny: Tiny) -> None:
    mkt.ok(*tiny.create("keep"))
    mkt.ok(*tiny.create("own"))


def _with_newer(mkt: Mkt, tiny: Tiny) -> None:
    """Leave a container that wrote something, and a package of it that is newer."""
    tiny.release()
    _with_containers(mkt, tiny)
    (mkt.path / "own/upper/mark").write_text("of the old generation")
    before = int(time.time())
    while int(time.time()) == before:
        time.sleep(0.05)  # a Release has whole seconds
    tiny.release(replace(HELLO, version="2.0"))


def _with_upgraded(mkt: Mkt, tiny: Tiny) -> None:
    _with_newer(mkt, tiny)
    mkt.ok("upgrade", "own")


def _with_waste(mkt: Mkt, tiny: Tiny) -> None:
    """Leave layers of nobody, downloads, what killed commands were building, and half of a deleted tree."""
    mkt.ok(
        "prune"
    )  # an idle bridge goes now: the first of many runs would take it down, and the others make fewer calls
    mkt.ok(*tiny.create("own", "--packages", "other"))
    mkt.ok("destroy", "own")
    mkt.ok(*tiny.create("keep"))
    store = Store(mkt.path / ".store")
    waste = store.path / "trash/0"
    waste.mkdir()
    run("cp", "-a", next(iter(store.path.glob("layers/*/root/etc"))), waste)
    code = (
        "import os, sys; from pathlib import Path; from provisioner.store import Store\n"
        "with Store(Path(sys.argv[1])).draft('base') as draft:\n"
        "    (draft.root / 'a/b/c').mkdir(parents=True); (draft.root / 'a/b/c/d').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, store.path],
        env=mkt.environment, timeout=SLOW, check=False,
    )  # fmt: skip


SCENES = {
    scene.name: scene
    for scene in (
        Scene("create", _nothing, lambda tiny: tiny.create("own"), "E_EXISTS"),
        Scene("destroy", _with_containers, lambda tiny: ("destroy", "own"), "E_NOTFOUND"),
        Scene("prune", _with_waste, lambda tiny: ("prune",), "", "gone"),
        Scene("upgrade", _with_newer, lambda tiny: ("upgrade", "own"), ""),
        Scene("rollback", _with_upgraded, lambda tiny: ("rollback", "own"), ""),
        Scene("recover", _with_waste, lambda tiny: tiny.create("own"), "E_EXISTS", "gone"),
    )
}


# The report


def _may_fail(point: Point) -> bool:
    """Whether the disk has a say in this call of the command itself."""
    return point.who == "main" and point.call in DISK


def examine(scene: Scene, chosen: Sequence[Point], place: Place) -> int:
    """Kill at each chosen point; print what was wrong, return how many points had a fault."""
    bad = 0
    for point in chosen:
        hit = any(died(scene, point, place) for _ in range(3))
        found = [*([] if hit else ["was not killed, or fell over it"]), *place.faults(scene)]
        bad += bool(found)
        for fault in found:
            print(f"{point}: {fault}", flush=True)
    return bad


def play(scene: Scene, places: Sequence[Place], asked: argparse.Namespace) -> Counter[str]:
    """Go through the scene's points, or so many of them; return how many there were of each kind."""
    for place in places:
        place.prepare(scene)
    found = points(scene, places[0])
    if asked.errno:
        found = [replace(each, who=asked.errno) for each in found if _may_fail(each)]
    chance = random.Random(asked.seed)
    chosen = sorted(chance.sample(found, min(asked.sample or len(found), len(found))))
    shares = [chosen[number :: len(places)] for number in range(len(places))]
    with ThreadPoolExecutor(len(places)) as pool:
        wrong = sum(pool.map(partial(examine, scene), shares, places))
    kinds = Counter(point.who for point in chosen)
    told = ", ".join(f"{count} {who}" for who, count in kinds.items())
    print(
        f"{scene.name}: {len(chosen)} of {len(found)} points ({told}), {wrong} failures", flush=True
    )
    return Counter(points=len(chosen), failures=wrong)


def main() -> int:
    """Return 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join(SCENES))
    parser.add_argument("--sample", type=int, default=0, help="so many points of each scene")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--errno", help="let the disk refuse from there on instead: ENOSPC, EIO …")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--place", type=Path, help="work below this directory (a tmpfs is faster)")
    asked = parser.parse_args()
    started = time.monotonic()
    total: Counter[str] = Counter()
    with world(asked.place, asked.jobs) as places:
        for name in asked.scenes or SCENES:
            total += play(SCENES[name], places, asked)
    seconds = time.monotonic() - started
    print(f"{total['points']} points, {total['failures']} failures, {seconds:.0f} s")
    return 1 if total["failures"] else 0


@contextlib.contextmanager
def world(below: Path | None, jobs: int) -> Iterator[list[Place]]:
    """Have the tiny archive served, and a place for each job."""
    with tempfile.TemporaryDirectory(prefix="mkt-crash-", dir=below) as name, new_key() as key:
        top = Path(name)
        top.chmod(0o755)
        (top / "mirror").mkdir()
        publish_tiny(top / "mirror", key)
        with serve(top / "mirror") as served:
            tiny = Tiny(served=served, key=key, templates=write_template(top / "templates"))
            yield [Place(top / str(number), tiny) for number in range(jobs)]


if __name__ == "__main__":
    sys.exit(main())
