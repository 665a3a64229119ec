"""How long a start takes, here and elsewhere: `python bench/launch.py [-n N] [--only WORD]…`.

Everybody starts /bin/true in the same small root and waits for its end, in turns: one round runs each contestant once,
so that a busy minute meets all of them. Each is given what it can of the same isolation: user, mount, pid, ipc, uts,
network and cgroup namespaces, 65536 ids, eight capabilities, no_new_privs, the seccomp allow-list of the profile
`service`. What a contestant leaves out stands behind its name. Needs root; the numbers are wall times of whole
processes, from posix_spawn to their end, and beside them what they and their children used of a processor, which a busy
machine disturbs less. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from runtime import bundle, capabilities, idmap, seccomp, seccomp_profile, startprogram  # noqa: E402  # the checkout comes first
from runtime.bundle import Bundle, Record  # noqa: E402
from runtime.container import Container  # noqa: E402
from runtime.duties import Duties  # noqa: E402
from runtime.kernel import mount as m  # noqa: E402
from runtime.kernel import namespace as ns  # noqa: E402

COMMAND = "/bin/true"
PROFILE = "service"
MASKED = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/acpi",
    "/proc/scsi",
    "/sys/firmware",
)
IN_PYTHON = """
import os, sys
sys.path.insert(0, sys.argv[1])
from runtime.container import Container
container = Container(sys.argv[2], sys.argv[3])
os.waitpid(container.start(foreground=True).monitor, 0)
sys.exit(container.exit_status)
"""
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What every contestant is given."""

    folder: Path
    root: Path  # owned as it is inside
    shifted: Path  # the same, owned by the ids that root and the others have outside
    first_id: int
    syscalls: tuple[str, ...]
    bpf: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to start a container. `clean` follows each run and is not timed."""

    name: str
    argv: tuple[str, ...]
    lacks: str = ""
    clean: Callable[[], None] = lambda: None
    open: tuple[str, int] | None = None  # a file that it finds open as this descriptor


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
    arguments = parser.parse_args()
    with ExitStack() as stack:
        place = stack.enter_context(prepared())
        contestants = [
            contestant
            for make in (ours, bubblewrap, oci, lxc, nspawn, podman)
            for contestant in make(place, stack)
            if not arguments.only or any(word in contestant.name for word in arguments.only)
        ]
        results = [Result(contestant) for contestant in contestants]
        measure(results, arguments.n)
    print(table(results, arguments.n))


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
            contestant.argv[0], contestant.argv, environment(), file_actions=actions
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


@contextmanager
def prepared() -> Iterator[Place]:
    """Make the root, twice, in a mount namespace of our own; remove all at the end."""
    ns.unshare(ns.CLONE_NEWNS)
    m.mount_setattr(m.AT_FDCWD, "/", m.AT_RECURSIVE, m.mount_attributes(0, 0, m.MS_PRIVATE))
    if Path("/sys/fs/cgroup/unified").is_dir():  # crun and podman refuse a hybrid host
        m.umount2("/sys/fs/cgroup/unified", m.MNT_DETACH)
    folder = Path(tempfile.mkdtemp(prefix="mktemplate-bench-"))
    folder.chmod(0o755)
    try:
        allocated = idmap.allocate(folder, "bench")
        root, shifted = folder / "root", folder / "shifted"
        fill(root)
        shutil.copytree(root, shifted, symlinks=True)
        for path in (shifted, *shifted.rglob("*")):
            os.lchown(path, allocated.first, allocated.first)
        text = seccomp_profile.default_profile(PROFILE)
        bpf = folder / "bpf"
        bpf.write_bytes(seccomp.compile_profile(text, PROFILE))
        words = tuple(line for line in text.split("\n") if line.isidentifier())
        yield Place(
            folder=folder,
            root=root,
            shifted=shifted,
            first_id=allocated.first,
            syscalls=words,
            bpf=bpf,
        )
    finally:
        shutil.rmtree(folder)


def fill(root: Path) -> None:
    """Put this host's /bin/true, its libraries and empty folders into `root`."""
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=bench\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    found = subprocess.run(["ldd", COMMAND], check=True, capture_output=True, text=True).stdout
    files = [word for word in found.split() if word.startswith("/")]
    for file in (COMMAND, *files):
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


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
    return [*found, Contestant(name="from Python, overlay", argv=argv)]


def made(place: Place, name: str, kind: str) -> Container:
    """Return a container that starts /bin/true upon an overlay of the root, or upon a copy of it."""
    directory = place.folder / name
    for part in ("upper", "work"):
        (directory / part).mkdir(parents=True)
    upper = directory / "upper"
    rootfs = f"overlay:{place.root}:{upper}" if kind == "overlay" else f"dir:{place.root}"
    (directory / "config").write_text(config(place, rootfs))
    record = Record(
        name=name, template="", distro="", release="", arch=platform.machine(), created=""
    )
    bundle.write(Bundle(path=directory, record=record))
    return Container(place.folder, name)


def config(place: Place, rootfs: str) -> str:
    """Return a container's configuration with all that a service gets."""
    kept = capabilities.SERVICE
    dropped = " ".join(name for name in capabilities.NAMES if name not in kept)
    masks = [
        f"lxc.mount.entry = /dev/null {path[1:]} none bind,ro,optional 0 0"
        if Path(path).is_file()
        else f"lxc.mount.entry = tmpfs {path[1:]} tmpfs ro,nosuid,nodev,noexec,size=4k,optional 0 0"
        for path in MASKED
    ]
    lines = [
        "lxc.uts.name = bench",
        f"lxc.init.cmd = {COMMAND}",
        "lxc.no_new_privs = 1",
        f"lxc.cap.drop = {dropped}",
        f"lxc.idmap = u 0 {place.first_id} 65536",
        f"lxc.idmap = g 0 {place.first_id} 65536",
        "lxc.net.0.type = empty",
        "lxc.autodev = 1",
        "lxc.pty.max = 64",
        "lxc.console.path = none",
        "lxc.mount.auto = proc:mixed sys:ro",
        "lxc.mount.entry = tmpfs dev/shm tmpfs nosuid,nodev,mode=1777,size=64m,create=dir 0 0",
        "lxc.mount.entry = mqueue dev/mqueue mqueue nosuid,nodev,noexec,create=dir,optional 0 0",
        "lxc.mount.entry = tmpfs run tmpfs nosuid,nodev,mode=0755,size=64m,create=dir 0 0",
        *masks,
        f"lxc.rootfs.path = {rootfs}",
        "lxc.rootfs.options = idmap=container",
        f"lxc.seccomp.profile = {place.folder / 'profile'}",
    ]
    (place.folder / "profile").write_text(seccomp_profile.default_profile(PROFILE))
    return "\n".join(lines) + "\n"


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


def oci_config(place: Place) -> dict[str, object]:
    """Return config.json: the same isolation, as far as OCI can say it."""
    kept = [f"CAP_{name.upper()}" for name in sorted(capabilities.SERVICE)]
    ids = [{"containerID": 0, "hostID": place.first_id, "size": 65536}]
    tmpfs = ["nosuid", "nodev", "size=65536k"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [COMMAND],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {name: kept for name in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": str(place.shifted), "readonly": False},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": [
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            },
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": tmpfs},
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid"],
            },
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": tmpfs},
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "ro"],
            },
        ],
        "linux": {
            "namespaces": [
                {"type": name}
                for name in ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
            ],
            "uidMappings": ids,
            "gidMappings": ids,
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": list(place.syscalls), "action": "SCMP_ACT_ALLOW"}],
            },
        },
    }


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
