"""What a start program does beside its Program: the value that Container hands to `startprogram.write`."""

from __future__ import annotations

import signal
from pathlib import Path

from runtime.program import Call
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What an exec program is written from: a command joins the container, whose run state is Duties.state."""

    join: tuple[Path, ...]  # cgroup.procs
    passwd: tuple[int, ...]  # the look of its /etc/passwd: inode, size, mtime
    environment: tuple[str, ...]
    path: tuple[str, ...]  # folders that a command is looked for in


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What the program does as the container's monitor.

    `claim` makes sure that it may start; a failure there changes nothing. From `prepare` on a failure gives back all
    by `release`, whose own failures are passed over, and by `finish`, a program that is run at the very end.
    """

    name: str
    log: Path  # what a container that is not in the foreground writes
    stop_signal: int = signal.SIGTERM
    root_ids: tuple[int, int] = (0, 0)  # the container's root, as the host numbers it
    claim: tuple[Call, ...] = ()
    prepare: tuple[Call, ...] = ()
    release: tuple[Call, ...] = ()
    finish: tuple[str, ...] = ()
    state: Path | None = None  # the file that tells others of it, as these two texts say:
    running: str = "%s %s%s"  # the identities of monitor and init, JSON objects; what its starter adds, `, KEY: VALUE`
    stopped: str = "%d"  # the exit status
    network: bool = (
        False  # descriptor 3 takes init's "b", 4 gives its "g": who starts it attaches a network
    )
    group: bool = False  # descriptor 7 is its control group's cgroup.procs
    basis: tuple[
        tuple[str, tuple[int, ...]], ...
    ] = ()  # files it was written from: inode, size, mtime; () is missing
    boot: str = ""  # the boot that it was written in
    instead: tuple[
        str, ...
    ] = ()  # a command that does the same where a person executes it and it is stale
    environment: tuple[str, ...] = ()  # of `finish` and `instead`: `KEY=VALUE`
    carrier: Path | None = (
        None  # the file that names who carries the network, which is killed at the end
    )
    inside: Inside | None = None
    console: bool = False  # init has one, whose master it hands over
    sealed: bool = False  # run from a sealed copy: the container's root could write to the file (CVE-2019-5736)
