"""What a running container costs, here and elsewhere: a command in it, its end, hundreds of them, sshd's first word.

Parts of `python bench/launch.py`, which prepares what they are given. Each engine starts /bin/sleep in the same small
root, with what it can of the same isolation, or sshd of this host's /usr.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.container import Container
from valuetypes import dataclass, field

KERNEL = ("Slab:", "KernelStack:", "PageTables:", "SecPageTables:", "Percpu:")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
_PATIENCE = 30.0  # seconds for sshd's first word
Spawned = tuple[float, float]  # milliseconds: of the clock, of processors


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One way to have containers that run; each function takes a container's name."""

    name: str
    start: Callable[[str], object]  # in the background
    commands: Callable[[str], dict[str, tuple[str, ...]]]  # /bin/true in it: how it is called, argv
    stop: Callable[[str], tuple[str, ...]]  # its end at once, and nothing of it left
    prepare: Callable[[str], object] = lambda _: None  # what stands before a start
    clean: Callable[[str], object] = lambda _: None  # … and after a stop
    lacks: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def spawned(argv: Sequence[str], more: dict[str, str] | None = None) -> Spawned:
    """Run a program without a terminal to its end; RuntimeError with its last line where it fails."""
    with tempfile.TemporaryFile() as said:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            *((os.POSIX_SPAWN_DUP2, said.fileno(), number) for number in (1, 2)),
        ]
        began = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, ENVIRONMENT | (more or {}), file_actions=actions)
        _, status, used = os.wait4(pid, 0)
        spent = (time.perf_counter() - began) * 1000
        if status:
            said.seek(0)
            why = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise RuntimeError(why or f"status {os.waitstatus_to_exitcode(status)}")
    return spent, (used.ru_utime + used.ru_stime) * 1000


def once(engines: Sequence[Engine], rounds: int) -> str:
    """Return a table of commands in a container, and of its end."""
    commands: dict[str, list[Spawned]] = {}
    ends: dict[str, list[Spawned]] = {}
    problems = {}
    for number in range(rounds + 1):
        for engine in [one for one in engines if one.name not in problems]:
            name = f"bench-once-{number}"
            try:
                _once(engine, name, commands, ends, counts=bool(number))  # the first warms caches
            except (OSError, RuntimeError) as error:
                problems[engine.name] = str(error)
    return "\n\n".join(
        (
            _table("/bin/true in a running container", commands),
            _table("end of a container that waits, at once", ends),
            *(f"{name}: not measured: {why}" for name, why in problems.items()),
        )
    )


def _once(
    engine: Engine,
    name: str,
    commands: dict[str, list[Spawned]],
    ends: dict[str, list[Spawned]],
    *,
    counts: bool,
) -> None:
    engine.prepare(name)
    engine.start(name)
    try:
        for words, argv in engine.commands(name).items():
            spawned(argv, engine.environment)  # what it writes down for later is not timed
            told = spawned(argv, engine.environment)
            if counts:
                commands.setdefault(words, []).append(told)
    finally:
        told = spawned(engine.stop(name), engine.environment)
        engine.clean(name)
    if counts:
        ends.setdefault(engine.name, []).append(told)


def _median(told: list[Spawned]) -> float:
    return statistics.median(spent for spent, _ in told)


def _table(title: str, found: dict[str, list[Spawned]]) -> str:
    lines = [f"| {title}, ms | p50 | p99 | least | processor |", "|---|---|---|---|---|"]
    for name, told in sorted(found.items(), key=lambda one: _median(one[1])):
        times = sorted(spent for spent, _ in told)
        last = times[min(len(times) - 1, round(len(times) * 0.99))]
        cpu = statistics.median(used for _, used in told)
        lines.append(
            f"| {name} | {statistics.median(times):.2f} | {last:.2f} | {times[0]:.2f} | {cpu:.2f} |"
        )
    return "\n".join(lines)


def many(engines: Sequence[Engine], count: int) -> str:
    """Return a table of `count` containers one after the other: the rate, and the memory of each beside its own."""
    lines = [
        f"| {count} containers | per second | all, s | monitor, KiB | kernel, KiB | each, KiB |",
        "|---|---|---|---|---|---|",
    ]
    for engine in engines:
        names = [f"bench-{number}" for number in range(count)]
        started: list[str] = []
        try:
            for name in names:
                engine.prepare(name)
            memory = _kernel()
            began = time.perf_counter()
            for name in names:
                started.append(name)
                engine.start(name)
            spent = time.perf_counter() - began
            monitors = sum(map(_pss, _monitors())) / count
            kernel = (_kernel() - memory) / count
            lines.append(
                f"| {engine.name} | {count / spent:.0f} | {spent:.2f} | {monitors:.0f} | "
                f"{kernel:.0f} | {monitors + kernel:.0f} |"
            )
        except (OSError, RuntimeError) as error:
            lines.append(f"| {engine.name} | not measured: {error} | | | | |")
        finally:
            for name in started:
                subprocess.run(
                    engine.stop(name), env=ENVIRONMENT | engine.environment,
                    stdin=subprocess.DEVNULL, capture_output=True, check=False,
                )  # fmt: skip
            for name in names:
                engine.clean(name)
    return "\n".join(lines)


def _monitors() -> set[int]:
    """Return the processes that name one of these containers and are in none."""
    here = os.readlink("/proc/self/ns/pid")
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_bytes()
            if b"bench-" in words and os.readlink(f"/proc/{name}/ns/pid") == here:
                found.add(int(name))
        except OSError:
            continue  # it has ended
    return found


def _pss(pid: int) -> int:
    """Return the KiB that the process has of memory, its share where others have it, too."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def _kernel() -> int:
    """Return the KiB that the kernel has for itself."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(KERNEL))


def ready(mktemplate: str, path: Path, rounds: int) -> str:
    """Return a table of the time from a start to sshd's first word over the bridge: ours, and LXC's of the same."""
    environment = ENVIRONMENT | {"MKTEMPLATE_PATH": str(path)}
    found: dict[str, list[Spawned]] = {}
    for name, more in (("layered", ()), ("flat", ("--flat",))):
        argv = [mktemplate, "create", "sshd", name, "--share-host", *more]
        subprocess.run(argv, env=environment, check=True, capture_output=True)
    try:
        for number in range(rounds + 1):
            for words, name, begin, end in (
                ("mktemplate, library", "layered", _by_library, _end_by_library),
                ("mktemplate, library, flat", "flat", _by_library, _end_by_library),
                ("lxc-start -d, flat", "flat", _by_lxc, _end_by_lxc),
            ):
                container = Container(path, name)
                began, used = time.perf_counter(), time.process_time()
                try:
                    _first_word(begin(container))
                    spent = (time.perf_counter() - began) * 1000
                    cpu = (time.process_time() - used) * 1000
                finally:
                    end(container)
                if number:
                    found.setdefault(words, []).append((spent, cpu))
    finally:
        for name in ("layered", "flat"):
            Container(path, name).destroy(force=True)
    return _table(
        "from a start to sshd's first word over the bridge (processor: ours alone)", found
    )


def _by_library(container: Container) -> str:
    return container.start().ips[0].partition("/")[0]


def _end_by_library(container: Container) -> None:
    container.stop(0)


def _by_lxc(container: Container) -> str:
    spawned(["/usr/bin/lxc-start", "-P", str(container.path), "-n", container.name, "-d"])
    return next(nic.ipv4[0].ip for nic in container.config.nics if nic.ipv4)


def _end_by_lxc(container: Container) -> None:
    spawned(["/usr/bin/lxc-stop", "-k", "-P", str(container.path), "-n", container.name])


def _first_word(address: str) -> None:
    """Wait until who listens on port 22 of `address` has said something; RuntimeError where nobody does."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((address, 22), timeout=_PATIENCE) as reached:
                if reached.recv(4) == b"SSH-":
                    return
        except ConnectionRefusedError:
            continue
    raise RuntimeError(f"{address}: no word of sshd")
