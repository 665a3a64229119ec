"""Two generations of one container, and how one takes the place of the other whole, whoever is killed on the way.

    PATH/NAME/swap       what is to take the place: once it is there, whoever locks the container next finishes it
    PATH/NAME/replaced   what had the place, until it is settled that the new one works
    PATH/NAME/previous   what `rollback` goes back to

A generation is an upper and the texts that name the layers below it; they never go apart. What else lies in PATH/NAME
(volumes, snapshots, the log, a key pair) belongs to the container, whichever generation it runs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

INCOMING, REPLACED, PREVIOUS = "swap", "replaced", "previous"
GENERATIONS = (PREVIOUS, REPLACED, INCOMING)
TREE = "upper"
START, EXEC, STOP = "start", "exec", "stop"  # programs, written from one generation
# In the order in which they go: no config names new layers while the old upper is in its place.
PARTS = (TREE, "work", "fstab", "seccomp", "lock", "fstab.made", "config.made", "config", "state.json")  # fmt: skip


def complete(generation: Path, directory: Path) -> None:
    """Make `generation` what can be renamed to `directory`/swap, and nothing else: it is the last thing before that.

    A part that only the present one has gets an empty counterpart, lest it stay.
    """
    for name in set(os.listdir(generation)) - set(PARTS):
        os.unlink(generation / name)  # the draft of a text that nobody finished
    for part in PARTS:
        if os.path.lexists(directory / part) and not os.path.lexists(generation / part):
            if os.path.isdir(directory / part):
                os.mkdir(generation / part, 0o700)
            else:
                (generation / part).touch(mode=0o600)


def forget(directory: Path) -> None:
    """Remove the programs that were written for the container of `directory` as it was."""
    for program in (START, EXEC, STOP):
        with suppress(FileNotFoundError):
            os.unlink(directory / program)


def finish(directory: Path) -> None:
    """Let what lies in `directory`/swap take its place, from wherever an earlier call was killed; else do nothing.

    The caller holds the container's lock, and the container is stopped.
    """
    incoming, replaced = directory / INCOMING, directory / REPLACED
    if not os.path.isdir(incoming):
        return
    forget(directory)
    with suppress(FileExistsError):
        os.mkdir(replaced, 0o700)
    for part in PARTS:
        _exchange(incoming / part, directory / part, replaced / part)
    _sync(replaced)
    _sync(directory)
    os.rmdir(incoming)


def _exchange(new: Path, now: Path, old: Path) -> None:
    """Put `new` at `now` and what was there at `old`: each step shows on disk that it is done."""
    if not os.path.lexists(new):
        return
    if os.path.lexists(now) and not os.path.lexists(old):
        if os.path.isdir(now):
            os.rename(now, old)
        else:
            os.link(now, old)  # so that there is a file at `now` all the time
    os.rename(new, now)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
