"""What processes with the host's rights did with paths below a rootfs, from a trace of strace(1).

A process counts as inside from its pivot_root(2), or from when it joined the container's mount namespace; so do its
children. What is traced is one file per process (-ff), with the paths of descriptors (-y).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CALLS = (
    "open openat openat2 open_tree execve execveat mkdir mkdirat mknodat symlinkat unlink unlinkat linkat rename "
    "renameat renameat2 chown fchownat fchmodat chmod truncate mount umount2 move_mount mount_setattr pivot_root "
    "chroot setns fork vfork clone clone3"
)
_LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
_PATH = re.compile(r'(?:(AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_BIRTHS = {"fork", "vfork", "clone", "clone3"}
_LAST_IS_NO_LINK = {
    "mkdirat",
    "mknodat",
    "unlinkat",
    "renameat",
    "renameat2",
    "symlinkat",
    "linkat",
}


def trace(
    words: Sequence[str], prefix: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `words` under strace, one file per process."""
    return subprocess.run(
        [
            *("strace", "-ff", "-y", "-qq", "-s", "4096", "-o", str(prefix)),
            *("-e", f"trace={','.join(_CALLS.split())}", *words),
        ],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@dataclass(frozen=True)
class Named:
    """A path in a call: as it is written, whether a descriptor says where it begins, and where it leads."""

    word: str
    by_descriptor: bool
    place: str


def breaches(prefix: Path, roots: Sequence[Path], own: Sequence[str] = ()) -> tuple[int, list[str]]:
    """Return how many calls from outside named something below `roots`, and those of them that could be led astray.

    `own` are places on file systems that we have just made and nobody else reaches; with / at the end, what is in them.
    """
    files = {int(path.suffix[1:]): path for path in prefix.parent.glob(f"{prefix.name}.*")}
    pending, seen, wrong = [_first(files)], 0, []
    while pending:
        for name, arguments, result in _calls(files[pending.pop()]):
            if name in _BIRTHS and result in files:
                pending.append(result)
            if result == 0 and _is_entry(name, arguments):
                break  # inside from here on, as are its children
            for path in _paths(name, arguments):
                if _is_below(path.place, roots):
                    seen += 1
                    if not _is_safe(name, arguments, path, own):
                        wrong.append(f"{name}({arguments}) = {result}")
    return seen, wrong


def _first(files: Mapping[int, Path]) -> int:
    """Return the process that was started: the one that nobody gave birth to, or only by a number of its own."""
    calls = {pid: list(_calls(path)) for pid, path in files.items()}
    born = {result for each in calls.values() for name, _, result in each if name in _BIRTHS}
    unborn = [pid for pid, each in calls.items() if each and pid not in born]  # some did nothing
    [first] = [pid for pid in unborn if "python" in calls[pid][0][1]]
    return first


def _calls(path: Path) -> Iterator[tuple[str, str, int]]:
    for line in path.read_text(errors="replace").split("\n"):
        if found := _LINE.match(line):
            yield found[1], found[2], int(found[3])


def _is_entry(name: str, arguments: str) -> bool:
    return name == "pivot_root" or (name == "setns" and "CLONE_NEWNS" in arguments)


def _paths(name: str, arguments: str) -> Iterator[Named]:
    """Yield the paths of a call; what a symlink is to say is none, nor are a program's arguments."""
    found = list(_PATH.finditer(arguments))
    if name in {"execve", "execveat"}:
        found = found[:1]
    elif name == "symlinkat":
        found = found[1:]
    for each in found:
        start = each[2] or "/"
        yield Named(each[3], each[1] not in (None, "AT_FDCWD"), os.path.join(start, each[3]))


def _is_below(place: str, roots: Sequence[Path]) -> bool:
    return any(place.startswith(f"{root}/") for root in roots)


def _is_safe(name: str, arguments: str, path: Named, own: Sequence[str]) -> bool:
    """Whether no symlink on the way, or in the end, could lead elsewhere."""
    if name == "openat2":
        return "RESOLVE_" in arguments
    if not path.word or path.place in own or f"{os.path.dirname(path.place)}/" in own:
        return True
    ends = name in _LAST_IS_NO_LINK or "NOFOLLOW" in arguments
    return path.by_descriptor and "/" not in path.word and path.word != ".." and ends
