"""Prove that `resolve` chooses what apt chooses: `python bench/parity.py [--release R] [--singles N] [--pairs M] …`.

For every request the same question goes to `apt-get -s install` in a scratch root of its own: its sources are the
host's mirror of Debian, its dpkg database says that our Essential closure is installed, and neither /etc/apt nor its
pins are read. Names and versions must agree; so must failure. Prints counts and every difference; exits 1 if there is
one.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from provisioner.deb.decode import decode
from provisioner.deb.index import DebIndex, IndexFile, read_index
from provisioner.errors import ProvisionError
from provisioner.index import Package
from provisioner.resolver import PackageSet, resolve

_INSTALL = re.compile(r"Inst (\S+) (?:\[\S+\] )?\((\S+) .*\)(?: \[.*\])?", re.ASCII)
_REMOVE = re.compile(r"Remv (\S+) .*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite at one mirror."""

    base: str
    name: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one solver says: name → version, what it would remove, or why it fails."""

    packages: frozenset[tuple[str, str]] = frozenset()
    removed: frozenset[str] = frozenset()
    failure: str = ""
    fallback: bool = False  # apt's 3.0 solver had to help


@dataclass(slots=True)
class Tally:
    """The comparison of many requests."""

    same: int = 0
    failed: int = 0
    fallback: int = 0
    different: list[str] = field(default_factory=list)


def suites(release: str) -> tuple[Suite, ...]:
    """Return the suites of `release` at the mirrors that the host's own apt sources name."""
    text = "\n".join(
        path.read_text()
        for path in sorted(Path("/etc/apt").glob("sources.list*/*.sources"))
        + sorted(Path("/etc/apt").glob("sources.list"))
        if path.is_file()
    )
    urls = [each.rstrip("/") for each in re.findall(r"https?://\S+", text)]
    main = next(each for each in urls if each.endswith("/debian"))
    if release in ("sid", "unstable", "experimental"):
        return (Suite(base=main, name=release),)
    security = next((each for each in urls if "security" in each), f"{main}-security")
    return (
        Suite(base=main, name=release),
        Suite(base=main, name=f"{release}-updates"),
        Suite(base=security, name=f"{release}-security"),
    )


def fetch(suite: Suite, folder: Path) -> IndexFile:
    """Fetch the Packages file of `suite`/main into `folder`, unless it is there."""
    path = folder / f"{suite.name}.xz"
    if not path.exists():
        url = f"{suite.base}/dists/{suite.name}/main/binary-amd64/Packages.xz"
        with urllib.request.urlopen(url, timeout=300) as answer:  # the host's own mirror
            path.write_bytes(answer.read())
    packed = path.read_bytes()
    plain = decode(packed, 1 << 28, str(path))
    return IndexFile(
        path=path,
        sha256=hashlib.sha256(packed).hexdigest(),
        plain_size=len(plain),
        plain_sha256=hashlib.sha256(plain).hexdigest(),
        base_url=suite.base,
        origin="Debian",
        suite=suite.name,
        component="main",
    )


class Apt:
    """apt-get in a scratch root."""

    def __init__(
        self, root: Path, files: Sequence[IndexFile], solver: str, recommends: bool
    ) -> None:
        """Lay out `root` with `files` as its package lists."""
        for each in (
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "lists/partial",
            "cache",
            "dpkg",
        ):
            (root / each).mkdir(parents=True)
        sources = []
        for file in files:
            stem = f"{file.base_url.partition('://')[2].replace('/', '_')}_dists_{file.suite}"
            plain = decode(file.path.read_bytes(), file.plain_size, str(file.path))
            (root / "lists" / f"{stem}_main_binary-amd64_Packages").write_bytes(plain)
            (root / "lists" / f"{stem}_InRelease").write_text(
                f"Origin: Debian\nSuite: {file.suite}\nCodename: {file.suite}\nComponents: main\n"
                "Architectures: amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
            )
            sources.append(f"deb [trusted=yes arch=amd64] {file.base_url} {file.suite} main\n")
        (root / "etc/apt/sources.list").write_text("".join(sources))
        (root / "apt.conf").write_text(
            f'Dir "{root}";\nDir::State "{root}";\nDir::State::lists "{root}/lists";\n'
            f'Dir::State::status "{root}/dpkg/status";\nDir::Cache "{root}/cache";\n'
            f'Dir::Etc "{root}/etc/apt";\nDir::Etc::sourcelist "{root}/etc/apt/sources.list";\n'
            'Dir::Etc::sourceparts "-";\nDir::Log "/dev/null";\n'
            'APT::Architecture "amd64";\nAPT::Architectures "amd64";\nAcquire::Languages "none";\n'
            f'APT::Install-Recommends "{str(recommends).lower()}";\nAPT::Solver "{solver}";\n'
            'quiet::NoSolver3Explanation "true";\n'
        )
        self._root = root
        self.install_base(())

    def install_base(self, packages: Iterable[Package]) -> None:
        """Let dpkg's database say that exactly `packages` are installed."""
        wanted = {(each.name, each.version) for each in packages}
        out = []
        for path in sorted((self._root / "lists").glob("*_Packages")) if wanted else ():
            for stanza in path.read_text().split("\n\n"):
                if stanza.startswith("Package: "):
                    name = stanza[9 : stanza.index("\n")]
                    version = re.search(r"^Version: (.*)$", stanza, re.MULTILINE)
                    if version and (name, version[1]) in wanted:
                        wanted.discard((name, version[1]))
                        out.append(
                            stanza.replace("\n", "\nStatus: install ok installed\n", 1) + "\n\n"
                        )
        (self._root / "dpkg/status").write_text("".join(out))

    def install(self, words: Sequence[str], *options: str) -> Outcome:
        """Ask for `words`."""
        done = subprocess.run(
            ["/usr/bin/apt-get", "-s", "install", *options, "--", *words],
            env={
                "APT_CONFIG": str(self._root / "apt.conf"),
                "LC_ALL": "C",
                "PATH": "/usr/bin:/bin",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            return Outcome(failure=done.stdout + done.stderr)
        lines = done.stdout.split("\n")
        return Outcome(
            packages=frozenset((m[1], m[2]) for m in map(_INSTALL.fullmatch, lines) if m),
            removed=frozenset(m[1] for m in map(_REMOVE.fullmatch, lines) if m),
            fallback="3.0 solver" in done.stdout + done.stderr,
        )


def ours(words: Sequence[str], index: DebIndex, recommends: bool) -> Outcome:
    """Ask our resolver for `words`."""
    try:
        chosen = resolve(words, index, recommends=recommends)
    except ProvisionError as error:
        return Outcome(failure=f"{error}\n" + "\n".join(error.hints))
    return Outcome(packages=frozenset((each.name, each.version) for each in chosen.added))


def compare(words: Sequence[str], mine: Outcome, apts: Outcome, tally: Tally) -> None:
    """Add one comparison to `tally`."""
    tally.fallback += apts.fallback
    if (
        mine.packages == apts.packages
        and bool(mine.failure) == bool(apts.failure)
        and not apts.removed
    ):
        tally.same += 1
        tally.failed += bool(mine.failure)
        return
    lines = [f"{' '.join(words)}:{' (by the 3.0 solver)' if apts.fallback else ''}"]
    lines += [f"    - {name} {version}" for name, version in sorted(apts.packages - mine.packages)][
        :12
    ]
    lines += [f"    + {name} {version}" for name, version in sorted(mine.packages - apts.packages)][
        :12
    ]
    lines += [f"    apt removes {name}" for name in sorted(apts.removed)]
    if mine.failure:
        lines.append(f"    ours fails: {mine.failure.strip()}")
    if apts.failure:
        lines.append(f"    apt fails: {apts.failure.strip()[-600:]}")
    tally.different.append("\n".join(lines))
    print(tally.different[-1], flush=True)


def requests(
    files: Sequence[IndexFile], seed: int, singles: int, groups: int, rivals: int
) -> Iterator[tuple[str, ...]]:
    """Return `singles` names spread over all sections, `groups` random pairs and triples, `rivals` that conflict."""
    sections: defaultdict[str, set[str]] = defaultdict(set)
    foes: dict[tuple[str, str], None] = {}
    for file in files:
        text = decode(file.path.read_bytes(), file.plain_size, str(file.path)).decode()
        for name, section in re.findall(
            r"^Package: (\S+)$(?:\n.+)*?\nSection: (\S+)$", text, re.MULTILINE
        ):
            sections[section].add(name)
        for name, named in re.findall(
            r"^Package: (\S+)$(?:\n.+)*?\n(?:Conflicts|Breaks): (.+)$", text, re.MULTILINE
        ):
            foes.update(
                ((name, foe.split()[0].partition(":")[0]), None) for foe in named.split(", ")
            )
    chance = random.Random(seed)  # a repeatable sample, no secret
    pools = [chance.sample(sorted(names), len(names)) for _, names in sorted(sections.items())]
    names = [pool[at] for at in range(singles) for pool in pools if at < len(pool)][:singles]
    yield from ((name,) for name in names)
    every = sorted({name for pool in pools for name in pool})
    for at in range(groups):
        yield tuple(chance.sample(every, 2 + at % 2))
    known = set(every)
    real = [pair for pair in foes if pair[1] in known and pair[0] != pair[1]]
    yield from chance.sample(real, min(rivals, len(real)))


def report(tally: Tally, seconds: float) -> None:
    """Print the counts."""
    total = tally.same + len(tally.different)
    print(
        f"{total} requests: {tally.same} same ({tally.failed} of them fail in both), "
        f"{len(tally.different)} different; apt used its 3.0 solver for {tally.fallback}; {seconds:.0f} s"
    )


def main() -> int:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--release", default="trixie")
    parser.add_argument("--singles", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=150, help="pairs and triples")
    parser.add_argument(
        "--rivals",
        type=int,
        default=0,
        help="pairs of which one names the other in Conflicts or Breaks",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recommends", action="store_true")
    parser.add_argument("--solver", default="internal", help="which of apt's: internal or 3.0")
    parser.add_argument("--lists", type=Path, help="keep Packages files and indexes here")
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="only every Nth request, from the Kth on"
    )
    parser.add_argument("names", nargs="*", help="compare this one request only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parity-") as scratch:
        lists = args.lists or Path(scratch) / "packages"
        lists.mkdir(parents=True, exist_ok=True)
        files = [fetch(each, lists) for each in suites(args.release)]
        index = read_index(files, lists, "amd64")
        apt = Apt(Path(scratch) / "root", files, args.solver, args.recommends)
        base = resolve((), index)
        part, parts = map(int, args.part.split("/"))
        asked = list(requests(files, args.seed, args.singles, args.pairs, args.rivals))
        asked = asked[part - 1 :: parts]
        return run([tuple(args.names)] if args.names else asked, apt, base, index, args.recommends)


def run(
    asked: Sequence[tuple[str, ...]], apt: Apt, base: PackageSet, index: DebIndex, recommends: bool
) -> int:
    """Compare the Essential closure, then every request of `asked` on top of it."""
    tally = Tally()
    begin = time.monotonic()
    mine = frozenset((each.name, each.version) for each in base.essential)
    compare(
        ("the Essential closure",),
        Outcome(packages=mine),
        apt.install([each.name for each in index.essential()], "--no-install-recommends"),
        tally,
    )
    apt.install_base(base.essential)
    apt.install(("dpkg",))  # writes apt's own cache, for all that follow
    with ThreadPoolExecutor(2) as two:
        for words, apts in zip(asked, two.map(apt.install, asked), strict=True):
            compare(words, ours(words, index, recommends), apts, tally)
    report(tally, time.monotonic() - begin)
    return bool(tally.different)


if __name__ == "__main__":
    sys.exit(main())
