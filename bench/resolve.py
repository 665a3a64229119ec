"""How long index and resolver take: `python bench/resolve.py [--release R]`.

Cold is decoding and mapping every Packages file; warm is opening the maps and resolving, with every cache of the
process empty: a question that was never asked of these files, and one that was. Milliseconds of wall clock, the median
of many.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.parity import fetch, suites
from provisioner.deb import relation, version
from provisioner.deb.index import DebIndex, read_index
from provisioner.resolver import resolve

NAMES = ("nginx", "postgresql", "mariadb-server", "openssh-server")


def median(runs: int, action: Callable[[], object]) -> float:
    """Return the median time of `action` in milliseconds."""
    times = []
    for _ in range(runs):
        for cached in (relation.parse_relation, relation.parse_clause, version.sort_key):
            cached.cache_clear()
        begin = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--release", default="trixie")
    parser.add_argument("--lists", type=Path, help="keep Packages files here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resolve-") as scratch:
        lists = args.lists or Path(scratch)
        files = [fetch(each, lists) for each in suites(args.release)]

        def cold() -> None:
            with tempfile.TemporaryDirectory(dir=scratch) as empty:
                read_index(files, Path(empty), "amd64")

        print(f"{'cold index':16} {median(3, cold):8.1f}")

        def warm() -> DebIndex:
            return read_index(files, Path(scratch), "amd64")

        print(f"{'open':16} {median(21, warm):8.2f}")
        resolve([], warm())
        base = set(Path(scratch).glob("*.chosen"))

        def first(name: str) -> None:
            for answer in set(Path(scratch).glob("*.chosen")) - base:
                answer.unlink()
            resolve([name], warm())

        for name in NAMES:
            times = median(21, partial(first, name)), median(21, lambda: resolve([name], warm()))  # noqa: B023  # called at once
            print(f"{name:16} {times[0]:8.2f} first, {times[1]:.2f} again")


if __name__ == "__main__":
    main()
