"""How long a rootfs takes, here and elsewhere: `python bench/provision.py [-n N] [--only WORD]… [--write]`.

Everybody builds the same suites from the same mirror (the host's apt sources), in turns: one round runs each contestant
once, so that a busy minute meets all of them; debootstrap, far slower, runs in the first round only. Every run gets a
fresh directory and nothing is deleted before the very end: ext4 allocates inodes slowly for half a minute after an
`rm -rf`. Needs root; the numbers are wall times of whole processes. `--only` keeps the rows whose name contains a WORD;
`--write` puts the tables into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from bench.rivals import LIMIT, RELEASE, Bench, contestants, measure  # noqa: E402  # the checkout comes first
from provisioner import distro, release, sources  # noqa: E402
from provisioner.deb.index import read_index  # noqa: E402
from provisioner.fetch import HttpFetch  # noqa: E402
from provisioner.freshness import Policy  # noqa: E402
from provisioner.resolver import resolve  # noqa: E402
from runtime import network, state  # noqa: E402

SETS = {"ssh": "openssh-server", "nginx": "nginx"}
DOCUMENT = CHECKOUT / "docs/benchmarks.md"
BEGIN, END = "<!-- provision: written by bench/provision.py -->", "<!-- /provision -->"


@contextmanager
def places(only: list[str]) -> Iterator[dict[str, Path]]:
    """Yield a directory on tmpfs and one on the disk; both are deleted at the very end."""
    with tempfile.TemporaryDirectory(
        prefix="mkt-bench-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as disk:
        kind = subprocess.run(
            ["findmnt", "-no", "FSTYPE", "--target", disk],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()
        memory = Path(disk) / "tmpfs"
        memory.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16g,mode=755", "tmpfs", memory],
            check=True,
            timeout=20,
        )
        os.chmod(disk, 0o755)
        try:
            found = {"tmpfs": memory, kind: Path(disk) / "disk"}
            (Path(disk) / "disk").mkdir()
            yield {name: path for name, path in found.items() if wanted(name, only, found)}
        finally:
            made = [record.parent for record in Path(disk).glob("*/*/*/*/state.json")]
            subprocess.run(["umount", "--lazy", memory], check=True, timeout=60)
            for container in made:  # its address is another's now
                network.forget(state.key(container.parent, container.name))


def wanted(name: str, only: Iterable[str], names: Iterable[str]) -> bool:
    """Whether `name` is kept: no word of --only speaks of its kind, or one means it."""
    speaking = [word for word in only if any(word in each for each in names)]
    return not speaking or any(word in name for word in speaking)


def race(bench: Bench, place: str, home: Path, packages: str, options: argparse.Namespace) -> None:
    """Run everybody `options.n` times in turns."""
    home.mkdir()
    everybody = list(contestants(bench, home, packages))
    names = [each.name for each in everybody]
    chosen = [each for each in everybody if wanted(each.name, options.only, names)]
    for number in range(options.n):
        for each in (entry for entry in chosen if not (entry.slow and number)):
            bench.counter += 1
            fresh = home / f"run{bench.counter}"
            fresh.mkdir(mode=0o755)
            each.prepare(fresh)
            subprocess.run(
                ["sync", "-f", home], check=True, timeout=LIMIT
            )  # nobody pays for another's writes
            run = measure(each.argv(fresh), home / f"run{bench.counter}.log")
            bench.results[place, packages, each.name].append(run)
            print(
                f"{place:6} {packages:15} {number + 1}/{options.n} {run.wall:7.2f} s  {each.name}",
                flush=True,
            )


def resolve_times(store: Path, packages: Iterable[str], arch: str) -> dict[str, float]:
    """Return the median seconds that resolving takes where the index is mapped, and the question was asked before."""
    groups = sources.choose(distro.find("debian"), RELEASE, arch, host=sources.host_mirrors())
    _, files = release.read_suites(
        groups, HttpFetch({}), store, Policy(now=time.time()), offline=True
    )
    found = {}
    for name in packages:
        walls = []
        for _ in range(21):
            index = read_index(files, store / "cache/lists", arch)
            start = time.perf_counter()
            resolve([name], index)
            walls.append(time.perf_counter() - start)
        found[name] = statistics.median(walls)
    return found


# Telling


def table(bench: Bench) -> str:
    """Return the results as Markdown: medians, spread, ratios to mmdebstrap as it comes."""
    out = []
    for packages in dict.fromkeys(key[1] for key in bench.results):
        held = list(dict.fromkeys(key[0] for key in bench.results if key[1] == packages))
        head = "".join(f" {place}, s | spread | ratio |" for place in held)
        out += [
            f"\n### Essential packages + {packages}\n",
            f"| |{head} CPU, s | memory, MiB |",
            "|---" * (3 * len(held) + 3) + "|",
        ]
        for name in dict.fromkeys(key[2] for key in bench.results if key[1] == packages):
            cells = "".join(_cells(bench, place, packages, name) for place in held)
            runs = [run for place in held for run in bench.results.get((place, packages, name), [])]
            cpu = statistics.median(run.cpu for run in runs)
            memory = max(run.memory for run in runs) / (1 << 20)
            out.append(f"| {name} |{cells} {cpu:.2f} | {memory:.0f} |")
    return "\n".join(out)


def _cells(bench: Bench, place: str, packages: str, name: str) -> str:
    runs = [run.wall for run in bench.results.get((place, packages, name), [])]
    peers = [run.wall for run in bench.results.get((place, packages, "mmdebstrap"), [])]
    if not runs:
        return " – | – | – |"
    median = statistics.median(runs)
    ratio = f"{median / statistics.median(peers):.2f}" if peers else "–"
    return f" {median:.2f} | {min(runs):.2f}–{max(runs):.2f} | {ratio} |"


def phases(bench: Bench) -> str:
    """Return where our time goes: median milliseconds of each phase."""
    rows = {key: runs for key, runs in bench.results.items() if runs and runs[0].phases}
    names = list(
        dict.fromkeys(phase for runs in rows.values() for run in runs for phase in run.phases)
    )
    out = [
        "\n### Where the time goes\n",
        f"| milliseconds | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for (place, packages, name), runs in rows.items():
        cells = []
        for phase in names:
            told = [run.phases[phase] for run in runs if phase in run.phases]
            cells.append(f"{1000 * statistics.median(told):.0f}" if told else "–")
        out.append(f"| {place}, {packages}, {name.partition(', ')[2]} | {' | '.join(cells)} |")
    return "\n".join(out)


def machine(n: int) -> str:
    """Return what the numbers were measured on."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    versions = []
    for program in ("mmdebstrap", "debootstrap"):
        if shutil.which(program):
            told = subprocess.run(
                [program, "--version"], check=True, capture_output=True, text=True, timeout=20
            ).stdout
            versions.append(" ".join(told.split()[:2]))
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, Linux {platform.release()}, {os.cpu_count()} cores of "
        f"{platform.machine()}, {pages * size >> 30} GiB, Python {platform.python_version()}, {', '.join(versions)}; "
        f"n = {n}, load {os.getloadavg()[1]:.1f} on average."
    )


def report(bench: Bench, n: int) -> str:
    """Return our part of docs/benchmarks.md."""
    return f"## Provisioning\n\n{machine(n)}\n{table(bench)}\n{phases(bench)}"


def document(text: str) -> None:
    """Replace our part of docs/benchmarks.md."""
    old = DOCUMENT.read_text() if DOCUMENT.exists() else "# Benchmarks\n"
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=3, help="rounds (3)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="part of a row's name; repeatable",
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    row = distro.find("debian")
    arch = distro.architecture(row, platform.machine())
    groups = sources.choose(row, RELEASE, arch, host=sources.host_mirrors())
    keyring = next((file for file in row.keyring_files if Path(file).exists()), "")
    bench = Bench(
        arch=arch, suites=tuple((group[0].url, group[0].suite) for group in groups), keyring=keyring
    )
    os.umask(0o022)
    with places(options.only) as found:
        for place, folder in found.items():
            for packages in SETS.values():
                if wanted(packages, options.only, SETS.values()):
                    race(bench, place, folder / packages, packages, options)
                    if options.write:  # at once: the next race may be interrupted
                        document(report(bench, options.n))
        store = (
            next(iter(found.values())) / next(iter(key[1] for key in bench.results)) / "seed/.store"
        )
        times = resolve_times(store, SETS.values(), arch)
    warm = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in times.items())
    text = f"{report(bench, options.n)}\n\nResolving, warm: {warm}."
    print(text)
    if options.write:
        document(text)


if __name__ == "__main__":
    main()
