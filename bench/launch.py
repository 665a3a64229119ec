"""How long a start takes, here and elsewhere: `python bench/launch.py [-n N] [--only WORD]… [--table WORD]…`.

Everybody starts /bin/true in the same small root and waits for its end, in turns: one round runs each contestant once,
so that a busy minute meets all of them. Each is given what it can of the same isolation: user, mount, pid, ipc, uts,
network and cgroup namespaces, 65536 ids, eight capabilities, no_new_privs, the seccomp allow-list of the profile
`service`. What a contestant leaves out stands behind its name. Needs root; the numbers are wall times of whole
processes, from posix_spawn to their end, and beside them what they and their children used of a processor, which a busy
machine disturbs less. Peers that are not installed are left out.

Then what running ones cost (bench/running.py): a command in one, its end, a hundred and five hundred of them with the
memory of each, sshd's first word over the bridge.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(Path(__file__).parent)]

import running  # noqa: E402  # the checkout comes first
from engines import engines  # noqa: E402
from place import COMMAND, SCRIPT, Place, config, made, oci_config, prepared  # noqa: E402

from runtime import capabilities, startprogram  # noqa: E402
from runtime.duties import Duties  # noqa: E402
from valuetypes import dataclass, field  # noqa: E402

IN_PYTHON = """
import os, sys
sys.path.insert(0, sys.argv[1])
from runtime.container import Container
container = Container(sys.argv[2], sys.argv[3])
os.waitpid(container.start(foreground=True).monitor, 0)
sys.exit(container.exit_status)
"""

TABLES = ("start", "running", "many", "ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to start a container. `clean` follows each run and is not timed."""

    name: str
    argv: tuple[str, ...]
    lacks: str = ""
    clean: Callable[[], None] = lambda: None
    open: tuple[str, int] | None = None  # a file that it finds open as this descriptor
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Result:
    """The milliseconds of each run of a contestant, or why there are none."""

    contestant: Contestant
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    problem: str = ""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=30, metavar="N", help="rounds (30)")
    parser.add_argument("--only", action="append", default=[], metavar="WORD")
    parser.add_argument("--table", action="append", default=[], choices=TABLES)
    parser.add_argument("--count", action="append", type=int, default=[], help="(100 and 500)")
    arguments = parser.parse_args()
    wanted = arguments.table or TABLES
    with ExitStack() as stack:
        place = stack.enter_context(prepared())

        def is_asked_for(one: Contestant | running.Engine) -> bool:
            return not arguments.only or any(word in one.name for word in arguments.only)

        if "start" in wanted:
            makers = (ours, bubblewrap, oci, lxc, nspawn, podman)
            contestants = [one for make in makers for one in make(place, stack)]
            results = [Result(one) for one in contestants if is_asked_for(one)]
            measure(results, arguments.n)
            print(table(results, arguments.n), flush=True)
        chosen = list(filter(is_asked_for, engines(place)))
        if "running" in wanted:
            print(f"\n{running.once(chosen, arguments.n)}", flush=True)
        for count in arguments.count or (100, 500) if "many" in wanted else ():
            print(f"\n{running.many(chosen, count)}", flush=True)
        if "ready" in wanted:
            print(f"\n{running.ready(SCRIPT, place.folder, arguments.n)}", flush=True)


def measure(results: list[Result], rounds: int) -> None:
    """Run every contestant once a round; one that fails is out."""
    for number in range(rounds + 1):
        for result in results:
            if result.problem:
                continue
            try:
                spent, cpu = timed(result.contestant)
            except (OSError, RuntimeError) as error:
                result.problem = str(error)
                continue
            if number:  # the first round warms the caches
                result.times.append(spent)
                result.cpu.append(cpu)


def timed(contestant: Contestant) -> tuple[float, float]:
    """Return the milliseconds from the spawn of a contestant to its end, and those of processors.

    RuntimeError: it failed, with the last line that it said.
    """
    with tempfile.TemporaryFile() as output:
        actions: list[tuple[object, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)]
        if contestant.open:
            path, number = contestant.open
            actions.append((os.POSIX_SPAWN_OPEN, number, path, os.O_RDONLY, 0))
        began = time.perf_counter()
        pid = os.posix_spawn(
            contestant.argv[0],
            contestant.argv,
            environment() | dict(contestant.environment),
            file_actions=actions,
        )
        _, status, used = os.wait4(pid, 0)
        spent = (time.perf_counter() - began) * 1000
        contestant.clean()
        if status:
            output.seek(0)
            words = output.read().decode(errors="replace").strip().split("\n")
            raise RuntimeError(words[-1] or f"status {os.waitstatus_to_exitcode(status)}")
    return spent, (used.ru_utime + used.ru_stime) * 1000


def environment() -> dict[str, str]:
    """Return a small environment that every contestant understands."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


def table(results: list[Result], rounds: int) -> str:
    """Return the results as Markdown, slowest last, each beside the first of ours."""
    done = sorted((r for r in results if r.times), key=lambda r: statistics.median(r.times))
    base = next((statistics.median(r.times) for r in results if r.times), 1.0)
    lines = [
        f"{platform.machine()}, Linux {platform.release()}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}; {rounds} rounds, ms",
        "",
        "| start of /bin/true | p50 | p99 | least | times ours | processor | leaves out |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in done:
        times = sorted(result.times)
        median = statistics.median(times)
        last = times[min(len(times) - 1, round(len(times) * 0.99))]
        lines.append(
            f"| {result.contestant.name} | {median:.2f} | {last:.2f} | {times[0]:.2f} | "
            f"{median / base:.2f} | {statistics.median(result.cpu):.2f} | {result.contestant.lacks} |"
        )
    lines += [f"\n{r.contestant.name}: not measured: {r.problem}" for r in results if r.problem]
    return "\n".join(lines)


def ours(place: Place, stack: ExitStack) -> list[Contestant]:
    """Return the start program as it is, with all that it does; without control groups, as crun; and Python's way."""
    found = []
    for kind in ("overlay", "bind"):
        container = made(place, f"bench-{kind}", kind)
        stack.callback(container.destroy, force=True)
        program = container.start_program()
        if program is None:
            raise SystemExit(f"no start program for {platform.machine()} as this user")
        found.append(Contestant(name=f"start program, {kind}", argv=(str(program.path),)))
        bare = container.directory / "bare"
        duties = Duties(name=container.name, log=container.directory / "log")
        bare.write_bytes(startprogram.write(container.program(), duties, lambda _: 125))
        bare.chmod(0o755)
        found.append(
            Contestant(
                name=f"start program, {kind}, bare",
                argv=(str(bare),),
                lacks="no cgroup, lock, run state",
            )
        )
    argv = (
        sys.executable,
        "-I",
        "-c",
        IN_PYTHON,
        str(CHECKOUT),
        str(place.folder),
        "bench-overlay",
    )
    typed = Contestant(
        name="mktemplate start --foreground, as typed, overlay",
        argv=(SCRIPT, "start", "--foreground", "bench-overlay"),
        environment=(("MKTEMPLATE_PATH", str(place.folder)),),
    )
    return [*found, typed, Contestant(name="from Python, overlay", argv=argv)]


def bubblewrap(place: Place, _: ExitStack) -> list[Contestant]:
    """Return bwrap, which maps one id only."""
    if (program := shutil.which("bwrap")) is None:
        return []
    kept = [
        word
        for name in sorted(capabilities.SERVICE)
        for word in ("--cap-add", f"CAP_{name.upper()}")
    ]
    argv = (
        *(program, "--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0"),
        *(
            "--bind",
            str(place.root),
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--mqueue",
            "/dev/mqueue",
        ),
        *("--tmpfs", "/run", "--ro-bind", "/sys", "/sys", "--hostname", "bench", "--new-session"),
        *("--die-with-parent", "--cap-drop", "ALL", *kept, "--seccomp", "9", COMMAND),
    )
    return [
        Contestant(
            name="bwrap",
            argv=argv,
            lacks="one id instead of 65536, no overlay, /sys of the host",
            open=(str(place.bpf), 9),
        )
    ]


def oci(place: Place, _: ExitStack) -> list[Contestant]:
    """Return crun and runc over the folder whose owners are shifted."""
    directory = place.folder / "oci"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(oci_config(place)))
    state = str(place.folder / "oci-state")
    found = []
    options = {"crun": ("--cgroup-manager=disabled",), "runc": ()}
    for name, more in options.items():
        if program := shutil.which(name):
            argv = (
                program,
                "--root",
                state,
                *more,
                "run",
                "--bundle",
                str(directory),
                f"{name}-bench",
            )
            lacks = "no cgroup, no overlay" if more else "no overlay"
            found.append(Contestant(name=f"{name} run", argv=argv, lacks=lacks))
    return found


def lxc(place: Place, _: ExitStack) -> list[Contestant]:
    """Return lxc-start in the foreground, and lxc-execute where its init can be found inside."""
    found = []
    text = config(place, f"dir:{place.shifted}").replace(
        "lxc.rootfs.options = idmap=container\n", ""
    )
    text += "lxc.apparmor.profile = unconfined\n"
    file = place.folder / "lxc.conf"
    file.write_text(text)
    path = place.folder / "lxc"
    path.mkdir()
    for name, more in (("lxc-start", ("-F",)), ("lxc-execute", ())):
        if program := shutil.which(name):
            argv = (program, "-P", str(path), "-n", "bench", "-f", str(file), *more)
            argv += ("--", COMMAND) if name == "lxc-execute" else ()
            found.append(Contestant(name=name, argv=argv, lacks="no overlay"))
    return found


def nspawn(place: Place, _: ExitStack) -> list[Contestant]:
    """Return systemd-nspawn."""
    if (program := shutil.which("systemd-nspawn")) is None:
        return []
    argv = (
        *(program, "--quiet", "--register=no", "--keep-unit", "--private-network", "--as-pid2"),
        *(f"--private-users={place.first_id}:65536", "-D", str(place.shifted), "--machine=bench"),
        *("--no-new-privileges=yes", "--console=pipe", COMMAND),
    )
    return [Contestant(name="systemd-nspawn", argv=argv, lacks="its own capabilities and filter")]


def podman(place: Place, _: ExitStack) -> list[Contestant]:
    """Return podman run over the folder whose owners are shifted."""
    if (program := shutil.which("podman")) is None:
        return []
    argv = (
        *(program, "run", "--rm", "--network=none", "--cgroups=disabled", "--log-driver=none"),
        *("--security-opt=no-new-privileges", f"--uidmap=0:{place.first_id}:65536"),
        *(f"--gidmap=0:{place.first_id}:65536", "--rootfs", str(place.shifted), COMMAND),
    )
    return [Contestant(name="podman run", argv=argv, lacks="no cgroup, its own filter")]


if __name__ == "__main__":
    main()
