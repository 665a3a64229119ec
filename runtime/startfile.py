"""PATH/NAME/start and exec on disk: programs, and behind each what it was written from, so that a stale one is known.

A file that it was written from counts by what stat(2) says of it, a fact of the host by its words. Both stand as one
JSON object behind the segments, where no loader looks.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from runtime import state
from runtime.bundle import replace_file
from runtime.kernel import process
from runtime.state import RunState
from valuetypes import asdict, dataclass

_MARK = b"\nmktemplate start program, written from:\n"
_TAIL = 64 << 10  # bytes at the end of the file in which the mark is looked for
Looks = list[tuple[str, tuple[int, ...]]]
_COARSE = 5  # CLOCK_REALTIME_COARSE, clock_gettime(2): what files are stamped by
_TICK = 20_000_000  # ns, more than one of the slowest timer
_LIMITS = 16  # kinds of them, getrlimit(2)


@dataclass(frozen=True, slots=True)
class StartFile:
    """A start program that is as it would be written today."""

    path: Path
    wired: bool  # who executes it attaches a network
    grouped: bool  # … and makes its control group
    run: RunState  # what it will say, but for its processes


def looks(files: Iterable[str]) -> Looks:
    """Return `files` with what changes when they do: inode, size, mtime; nothing where one is missing."""
    found: Looks = []
    for name in files:
        try:
            status = os.stat(name)
        except OSError:
            found.append((name, ()))
        else:
            found.append((name, (status.st_ino, status.st_size, status.st_mtime_ns)))
    return found


def settled(files: Iterable[str]) -> Looks:
    """Return how `files` look once any later change shows: before Linux 6.13 mtime moves with the timer's tick only."""
    names = list(files)
    while True:
        found, now = looks(names), time.clock_gettime_ns(_COARSE)
        if not any(0 <= look[2] - now < _TICK for _, look in found if look):
            return found
        time.sleep(0.001)


def code() -> list[str]:
    """Return the files of the code that decides."""
    modules = [module for name, module in sys.modules.items() if name.startswith("runtime.")]
    return sorted(module.__file__ for module in modules if module.__file__)


def write(
    path: Path,
    program: bytes,
    seen: Looks,
    run: RunState,
    *,
    wired: bool = False,
    grouped: bool = False,
) -> None:
    """Put `program`, made on this host from files as they were when they were `seen`, at `path`, by one rename."""
    basis = {
        "wired": wired,
        "grouped": grouped,
        "run": asdict(run),
        "files": seen,
        "facts": [str(path), *_facts()],
    }
    replace_file(path, program + _MARK + json.dumps(basis).encode() + b"\n", 0o755)


def current(path: Path) -> StartFile | None:
    """Return the start program at `path`; None where there is none, or not ours alone to change, or a stale one."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            plain = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o022
            if not plain or status.st_uid != os.geteuid():
                return None
            file.seek(max(0, status.st_size - _TAIL))
            _, mark, text = file.read().rpartition(_MARK)
    except OSError:
        return None
    if not mark:
        return None
    try:
        basis = json.loads(text)
        seen = [(name, tuple(look)) for name, look in basis["files"]]
        if basis["facts"] != [str(path), *_facts()] or seen != looks(name for name, _ in seen):
            return None
        run = state.from_json(basis["run"])
        return StartFile(path, wired=basis["wired"], grouped=basis["grouped"], run=run)
    except (ValueError, KeyError, TypeError):
        return None  # another version of ours wrote it


def _facts() -> list[str]:
    """Return what of the host decides: the boot (kernel, control groups, devices), the user, his rights and limits."""
    limits = [resource.getrlimit(number)[1] for number in range(_LIMITS)]
    facts = [state.boot_id(), str(os.geteuid()), str(process.capget()[0]), repr(limits)]
    if os.geteuid() == 0:
        return facts
    from runtime import usergroup

    return [*facts, str(state.user_directory()), usergroup.lacking()]
