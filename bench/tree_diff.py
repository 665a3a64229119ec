"""The same packages built by mmdebstrap and by mktemplate, compared path by path.

    sudo .venv/bin/python bench/tree_diff.py --set sshd [--set minbase …] [--release trixie] [--tmpdir /dev/shm]

Prints how long each took, and every difference in type, mode, owner, link target or content that is not on the list of
intended ones (docs/differences.md). Exit status 1 if there is one. mmdebstrap resolves and downloads; the archives that
it used are what mktemplate builds from, so nothing but the building is compared. `--singles N` takes N packages at
random from all sections; `--plain` builds ours once more without what saves scripts time (provisioner/deb/resident.py,
upkeep.py): that must be equal to the last byte and second, but for what is intended. Needs root, mmdebstrap, a mirror.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.parity import fetch, requests, suites
from provisioner.deb.archive import parse_stanza
from provisioner.deb.relation import parse_clauses, parse_relations
from provisioner.errors import StoreFailed
from provisioner.flatten import flatten
from provisioner.index import Package
from provisioner.provision import Facts, Tools, provision
from provisioner.resolver import PackageSet
from provisioner.store import Store
from provisioner.tree import Tree
from runtime.idmap import single_range
from runtime.sandbox import KernelSandbox

SETS = {
    "essential": ("essential", ""),
    "sshd": ("essential", "openssh-server"),
    "minbase": ("minbase", ""),
    "nginx": ("essential", "nginx"),
    "postgresql": ("essential", "postgresql"),
    "mariadb": ("essential", "mariadb-server"),
    "apache": ("essential", "apache2,php"),
}
# Both build on hosts of one name, that of the sandbox: mailers' scripts write it down.
NAMELESS = 'mount --bind "$1" /etc/hostname; hostname build; shift; exec "$@"'
# Told to both: passwd(1) dates new accounts with it. No file of a package is younger, else ours would be of that day,
# and an index of such files (mandb(8)) another one.
EPOCH = int(time.time()) // 86400 * 86400
# Their lines stand in the order in which packages were unpacked, and here that is the alphabet's, or configured: apt
# names them one by one to dpkg, which has an order of its own where it is asked for all.
SORTED = ("var/lib/dpkg/triggers/File", "etc/shells", "etc/shadow", "etc/gshadow")
ENDS = ("same", "different", "not compared", "that mmdebstrap refuses")
DEFAULT = ("sshd", "minbase", "nginx")
LIST = Path(__file__).parent.parent / "docs" / "differences.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A tree and how long it took."""

    root: Path
    seconds: float
    contents: tuple[str, ...] = ()  # digests of its layers


class NotBuilt(Exception):
    """mmdebstrap fails; nothing to compare with."""


class PlainPerl(KernelSandbox):
    """A sandbox for whose scripts no perl stays: none does where a sandbox is weaker than asked."""

    @property
    def degraded(self) -> str:
        """Return why: it is asked for here."""
        return "without the resident perl"


def mmdebstrap(variant: str, include: str, release: str, place: Path) -> tuple[Built, Path]:
    """Build with mmdebstrap; return the tree and the folder of the archives that it used."""
    debs = place / "debs"
    debs.mkdir()
    root = place / "mmdebstrap"
    hook = f'cp "$1"/var/cache/apt/archives/*.deb {debs}/; rm -f "$1"/var/cache/apt/archives/*.deb'
    first = f'ls "$1"/var/cache/apt/archives > {place}/essential'
    command = ["mmdebstrap", f"--variant={variant}", "--skip=essential/unlink"]
    command += [f"--essential-hook={first}", f"--customize-hook={hook}"]
    if include:
        command.append(f"--include={include}")
    name = place / "hostname"
    name.write_text("localhost\n")
    apart = ["unshare", "--mount", "--uts", "sh", "-c", NAMELESS, "sh", str(name)]
    start = time.monotonic()
    done = subprocess.run(
        [*apart, *command, release, str(root)],
        env={**os.environ, "TMPDIR": str(place), "SOURCE_DATE_EPOCH": str(EPOCH)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotBuilt(done.stderr.strip().rpartition("\n")[2])
    return Built(root=root, seconds=time.monotonic() - start), debs


def packages(debs: Path, store: Store) -> tuple[Package, ...]:
    """Put the archives into the store's cache; return them as packages."""
    return tuple(_package(deb, store) for deb in sorted(debs.glob("*.deb")))


def _package(deb: Path, store: Store) -> Package:
    body = deb.read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    folder = store.cache / "sha256" / digest[:2]
    folder.mkdir(exist_ok=True)
    (folder / digest).write_bytes(body)
    control = subprocess.run(["dpkg-deb", "-f", str(deb)], capture_output=True, check=True).stdout
    fields = parse_stanza(control, deb.name)
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        arch=fields["Architecture"],
        pre_depends=parse_clauses(fields.get("Pre-Depends", "")),
        depends=parse_clauses(fields.get("Depends", "")),
        provides=parse_relations(fields.get("Provides", "")),
        installed_size=int(fields.get("Installed-Size", 0)) * 1024,
        size=len(body),
        sha256=digest,
    )


def ours(
    debs: Path, release: str, place: Path, sandbox: KernelSandbox, name: str
) -> tuple[Built, dict[str, float]]:
    """Build `name` with mktemplate from cached archives; return the flat tree and the time of each phase."""
    base = {name.partition("_")[0] for name in (place / "essential").read_text().split()}
    store = Store(place / f"{name}.store")
    store.prepare()
    all_of_them = packages(debs, store)
    start = time.monotonic()
    chosen = PackageSet(
        essential=tuple(p for p in all_of_them if p.name in base),
        added=tuple(p for p in all_of_them if p.name not in base),
    )
    tools = Tools(store=store, sandbox=sandbox)
    merged = release in ("bookworm", "bullseye")
    facts = Facts(distro="debian", release=release, arch=_arch(), merged_usr=merged, epoch=EPOCH)
    layers = provision(chosen, Tree(), facts, tools, lambda packages: None)
    seconds = time.monotonic() - start
    root = place / name
    root.mkdir()
    flatten(layers, root)
    store.close()
    contents = tuple(layer.content for layer in layers)
    return Built(root=root, seconds=seconds, contents=contents), tools.timings


def _arch() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


def describe(root: Path, *, times: bool = False) -> dict[str, str]:
    """Return path → type, mode, owner and content of everything below `root`, with `times` also when it changed."""
    found = {}
    for path, status in _walk(root, ""):
        mode = stat.S_IMODE(status.st_mode)
        kind = stat.filemode(status.st_mode)[0]
        what = ""
        if kind == "l":
            what, mode = os.readlink(root / path), 0
        elif kind == "-":
            body = (root / path).read_bytes()
            if path in SORTED:
                body = b"\n".join(sorted(body.split(b"\n")))
            what = hashlib.sha256(body).hexdigest()[:16]
            if status.st_nlink > 1:
                what += f" nlink={status.st_nlink}"
        elif kind in "bc":
            what = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        found[path] = f"{kind}{mode:04o} {status.st_uid}:{status.st_gid} {what}"
        if times:
            found[path] += f" {int(status.st_mtime)}"
    return found


def _walk(root: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    for entry in sorted(os.scandir(root / prefix), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        status = entry.stat(follow_symlinks=False)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, f"{path}/")


def intended() -> list[str]:
    """Return the path patterns of docs/differences.md: the first column of its table."""
    return re.findall(r"^\| `([^`]+)` ", LIST.read_text(), re.MULTILINE)


def compare(theirs: Path, own: Path, *, times: bool = False) -> list[str]:
    """Return the differences that nobody intended."""
    left, right = describe(theirs, times=times), describe(own, times=times)
    patterns = intended()
    return [
        f"{path}\n    mmdebstrap: {left.get(path, '-')}\n    mktemplate: {right.get(path, '-')}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
        and not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
    ]


def singles(release: str, count: int, seed: int) -> list[str]:
    """Return `count` packages at random, as many of each section as can be."""
    with tempfile.TemporaryDirectory(prefix="tree-diff.") as scratch:
        files = [fetch(each, Path(scratch)) for each in suites(release)]
        return [name for (name,) in requests(files, seed, count, 0, 0)]


def main() -> int:
    """Build and compare each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--set", action="append", choices=sorted(SETS), dest="sets")
    parser.add_argument("--include", action="append", default=[], help="also: Essential and NAME,…")
    parser.add_argument("--singles", type=int, default=0, help="also so many single packages")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--plain", action="store_true", help="ours without the resident perl, too")
    parser.add_argument("--release", default="trixie")
    parser.add_argument("--tmpdir", default=None)
    parser.add_argument("--keep", action="store_true", help="leave the trees there")
    asked = parser.parse_args()
    includes = [*asked.include, *singles(asked.release, asked.singles, asked.seed)]
    sets = [SETS[name] for name in asked.sets or ([] if includes else DEFAULT)]
    ends = Counter(
        _tried(variant, include, asked)
        for variant, include in [*sets, *(("essential", names) for names in includes)]
    )
    print(f"{ends.total()} sets:", ", ".join(f"{ends[end]} {end}" for end in ENDS))
    return int(bool(ends["different"] or ends["not compared"]))


def _tried(variant: str, include: str, asked: argparse.Namespace) -> str:
    """Build and compare one set in a folder of its own; return how it ended."""
    place = Path(tempfile.mkdtemp(prefix="tree-diff.", dir=asked.tmpdir))
    place.chmod(0o755)
    try:
        return "different" if _one(variant, include, asked, place) else "same"
    except NotBuilt as problem:
        print(f"{variant} {include}: mmdebstrap cannot build it: {problem}", flush=True)
        return "that mmdebstrap refuses"
    except StoreFailed as problem:
        print(f"{variant} {include}: not compared: {problem}", flush=True)
        return "not compared"
    finally:
        if asked.keep:
            print(f"  kept in {place}")
        else:
            shutil.rmtree(place)


def _one(variant: str, include: str, asked: argparse.Namespace, place: Path) -> bool:
    """Build one set with both; print and return whether there is a difference that nobody intended."""
    theirs, debs = mmdebstrap(variant, include, asked.release, place)
    ids = single_range(1_000_000)
    built, timings = ours(debs, asked.release, place, KernelSandbox(ids), "mktemplate")
    differences = compare(theirs.root, built.root)
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in timings.items())
    print(f"{variant} {include} {asked.release}: {len(list(debs.iterdir()))} packages")
    print(f"  mmdebstrap {theirs.seconds:.2f} s (index, download and build)")
    print(f"  mktemplate {built.seconds:.2f} s (build): {phases}")
    if asked.plain:
        plain, _ = ours(debs, asked.release, place, PlainPerl(ids), "plain")
        print(f"  mktemplate {plain.seconds:.2f} s (build) without the resident perl")
        if plain.contents != built.contents:
            differences += compare(plain.root, built.root, times=True)
    print(f"  {len(differences)} differences that are not intended", flush=True)
    for difference in differences:
        print("   ", difference)
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
