"""Containers come and go again and again, processes of ours are killed meanwhile, and nothing may be left.

    python bench/soak.py                          1,000 rounds as root, with a bridge and published ports
    python bench/soak.py --rootless               the same as a normal user, with pasta
    python bench/soak.py -n 200 --kill-every 5    more of them killed

Every tenth round a random process of ours (the command, the start program, the monitor, a helper) is killed with
SIGKILL at a random moment; the one command after it is `destroy --force`. Then, and at the end, these must be exactly
what they were: mounts, processes, zombies and so namespaces, links, nft rules, control groups, descriptors, files below
PATH and /run. It stands in namespaces of its own (pid, mount, network), so that all it sees there is ours, and nothing
of the machine's is touched but control groups and, in a copy, /etc/subuid. Needs root, nft, ip, unshare; with
--rootless newuidmap, pasta and setpriv, too.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from mktemplate.making import recovery, workshop  # noqa: E402  # the checkout first
from runtime import bundle, capabilities, enter, halt, idmap, lease, seccomp_profile, state  # noqa: E402
from runtime.bundle import Bundle, Port, Record  # noqa: E402
from runtime.container import Container  # noqa: E402
from runtime.enter import Command  # noqa: E402
from runtime.errors import ContainerError  # noqa: E402

USER, FIRST = 54321, 2_000_000
PROGRAMS = ("sh", "sleep", "true")
ACCOUNTS = {
    "passwd": f"mktsoak:x:{USER}:{USER}::/:/bin/sh\n",
    "group": f"mktsoak:x:{USER}:\n",
    "subuid": f"mktsoak:{FIRST}:65536\nroot:{FIRST + 65536}:6553600\n",
    "subgid": f"mktsoak:{FIRST}:65536\nroot:{FIRST + 65536}:6553600\n",
}
ENTER = """
place=$1 rootless=$2 closed=$3 wanted=$4; shift 4
for file in passwd group subuid subgid; do mount --bind "$place/$file" "/etc/$file"; done
mount -t tmpfs -o mode=755 none /run
ip link set lo up
if [ "$rootless" ]; then
    if [ "$closed" ]; then
        mkdir "$place/kept"; mount --bind "$wanted" "$place/kept"
        mount -t tmpfs -o mode=755 none "$closed"; mkdir -p "$wanted"; mount --bind "$place/kept" "$wanted"
    fi
    mount --bind "$place/tun" /dev/net/tun
    ip link add out0 type veth peer name out1; ip link set out1 up; ip link set out0 up
    ip address add 192.0.2.2/24 dev out0; ip route add default via 192.0.2.1
    mkdir -p /run/user/54321; chown 54321 /run/user/54321; chmod 700 /run/user/54321
    export XDG_RUNTIME_DIR=/run/user/54321
    set -- setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=-all "$@"
fi
exec "$@"
"""
TOLD = {
    "E_NOTFOUND",
    "E_NOTRUNNING",
    "E_INIT_DIED",
    "E_KERNEL_FEATURE",
    "E_NEWUIDMAP",
}  # of who was in the middle of it
SETTLED = 5.0  # seconds in which the kernel takes back what nobody has any more


def main() -> int:
    """Prepare a place, and go on in namespaces of its own; or be that."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=1000, metavar="N", help="rounds (1000)")
    parser.add_argument("--kill-every", type=int, default=10, metavar="N", help="(10; 0: never)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--rootless", action="store_true", help="as a normal user")
    parser.add_argument("--network", choices=("bridge", "none"), default="bridge")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return Soak(Path(arguments.inside), arguments).run()
    with tempfile.TemporaryDirectory(prefix="mktemplate-soak-", dir="/var/tmp") as name:
        place = Path(name)
        prepare(place, rootless=arguments.rootless)
        base = Path(sys.base_prefix)
        closed = next((p for p in reversed(base.parents) if not p.stat().st_mode & 0o001), "")
        argv = [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private", "sh", "-ec", ENTER, "sh", name),
            *("1" if arguments.rootless else "", str(closed), str(base)),
            *(sys.executable, "-P", str(place / "code/bench/soak.py"), *sys.argv[1:]),
            *("--inside", name),
        ]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(argv, env=environment, check=False).returncode


def prepare(place: Path, *, rootless: bool) -> None:
    """Make accounts, a copy of our code that the user may read, and a small root; all the user's where it is one."""
    place.chmod(0o755)
    for name, lines in ACCOUNTS.items():
        before = "" if name.startswith("sub") else Path("/etc", name).read_text()
        (place / name).write_text(before + lines)
    os.mknod(place / "tun", 0o020666, os.makedev(10, 200))
    (place / "tun").chmod(0o666)
    for name in ("mktemplate", "provisioner", "runtime", "valuetypes", "bench", "scripts"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, place / "code" / name, ignore=ignore)
    root = place / "root"
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for program in filter(None, map(shutil.which, PROGRAMS)):
        shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        shutil.copy(program, root / "bin")
        for library in (word for word in shown.split() if word.startswith("/")):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    (place / "containers").mkdir(0o711)
    for path in (root, *root.rglob("*"), place / "containers") if rootless else ():
        os.chown(path, USER, USER)


@dataclass(slots=True)
class Soak:
    """The rounds, as process 1 of a pid namespace."""

    place: Path
    wanted: argparse.Namespace
    killed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    took: float = 0.1  # seconds of the last round that was not killed

    def run(self) -> int:
        """Do all rounds; return 1 where something was left or went wrong."""
        chance = random.Random(self.wanted.seed)
        path = self.place / "containers"
        recovery.sweep(path, workshop.store(path))
        for _ in range(2):  # the bridge, the table, the folders of the run state come, and stay
            began = time.monotonic()
            self.round("warm")
            self.took = time.monotonic() - began
        self.settle()
        before = self.look()
        begun = time.monotonic()
        for number in range(1, self.wanted.n + 1):
            name = f"soak{number}"
            if self.wanted.kill_every and number % self.wanted.kill_every == 0:
                self.killed_round(name, chance)
                self.compare(before, f"round {number}")
            else:
                began = time.monotonic()
                try:
                    self.round(name)
                except ContainerError as error:
                    self.faults.append(f"{name}: {error}")
                self.took = time.monotonic() - began
            if len(self.faults) > 5:
                break
        spent = time.monotonic() - begun
        self.compare(before, "the end")
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.killed.most_common())
        print(
            f"{self.wanted.n} rounds in {spent:.1f} s as {'a user' if os.geteuid() else 'root'}, "
            f"network {self.wanted.network}, {self.killed.total()} killed ({kinds}); "
            f"{len(self.faults)} faults"
        )
        for fault in self.faults:
            print(fault)
        return 1 if self.faults else 0

    def round(self, name: str) -> None:
        """Lead one container through its life."""
        self.live(self.made(name))

    def live(self, container: Container) -> None:
        """Start, enter, stop and destroy a container."""
        container.start()
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            status = enter.run(container, Command(argv=("/bin/true",)), (nothing,) * 3)
        finally:
            os.close(nothing)
        while (pid := container.pid) and not halt.listens(
            pid, signal.SIGTERM
        ):  # its trap is to come
            time.sleep(0.001)
        self.stop(container)
        ended = container.exit_status
        if (status, ended) != (0, 0):
            self.faults.append(f"{container.name}: exec ended with {status}, init with {ended}")
        container.destroy()

    def stop(self, container: Container) -> None:
        """Stop a container as it is typed, so by its stop program where it has one."""
        environment = os.environ | {"MKTEMPLATE_PATH": str(container.path)}
        argv = [str(CHECKOUT / "scripts/mktemplate"), "stop", container.name]
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        if done.returncode < 0:  # it was killed: whoever typed it tries again
            container.stop()
        elif done.returncode:
            self.faults.append(f"{container.name}: stop: {done.stderr}")

    def killed_round(self, name: str, chance: random.Random) -> None:
        """Lead a container's life in a process of its own, kill one of ours at some moment, destroy what there is."""
        container = self.made(name)
        child = self.apart(lambda: self.live(container))
        time.sleep(chance.uniform(0, self.took * 1.3))
        self.kill_one(child, chance)
        self.until_ended(child)
        again = self.apart(lambda: container.destroy(force=True))
        if status := self.until_ended(again):
            self.faults.append(f"{name}: destroy --force ended with {status}")
        self.settle()
        recovery.recover(container.path, workshop.store(container.path))  # as every create does
        self.settle()

    def apart(self, work: Callable[[], None]) -> int:
        """Do `work` in a process of its own, as a command does; return its pid. A bug's trace is printed."""
        if child := os.fork():
            return child
        status = 70
        try:
            work()
            status = 0
        except ContainerError as error:  # somebody was killed, and it was told
            status = 0 if error.code in TOLD else 1
            if status:
                print(error, flush=True)
        except BaseException:  # noqa: BLE001  # whatever it is
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
        os._exit(status)

    def until_ended(self, child: int) -> int:
        """Wait for a child of ours, and reap the orphans meanwhile, as every process 1 does; return its status."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                if code == 70:
                    self.faults.append("a trace instead of an error: see above")
                return 0 if code == -signal.SIGKILL else code

    def kill_one(self, child: int, chance: random.Random) -> None:
        """Kill the command, or rather, where there are any, another process of ours."""
        others = [one for one in processes() if one not in (os.getpid(), child)]
        ours = [one for one in others if not (self.is_inside(one) or "(zombie)" in command(one, 0))]
        victim = chance.choice(ours) if ours and chance.random() < 0.75 else child
        kind = command(victim, child)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            self.killed[kind] += 1

    def is_inside(self, pid: int) -> bool:
        """Whether the process is in a pid namespace below ours: the container's own."""
        try:
            return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
        except OSError:
            return True  # it has just ended, or is one that we may not look at

    def settle(self) -> None:
        """Reap what was left to us, until nobody but us is there."""
        deadline = time.monotonic() + SETTLED
        while processes() != [os.getpid()] and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.002)

    def compare(self, before: dict[str, list[str]], when: str) -> None:
        """Note every difference that stays."""
        self.settle()
        deadline = time.monotonic() + SETTLED
        while (now := self.look()) != before and time.monotonic() < deadline:
            time.sleep(0.05)  # the kernel takes down a network namespace, and its links, by and by
        for what, old in before.items():
            more, less = set(now[what]) - set(old), set(old) - set(now[what])
            if more or less:
                self.faults.append(f"{when}: {what}: more {sorted(more)}, less {sorted(less)}")
        before.update(now)  # each is told once

    def look(self) -> dict[str, list[str]]:
        """Return what must not change."""
        path = self.place / "containers"
        key = state.key(path, "")
        folders = [path, state.root(), lease.FOLDER]
        rules = ""
        if os.geteuid() == 0:
            nft = ["nft", "list", "ruleset"]
            rules = subprocess.run(nft, capture_output=True, text=True, check=True).stdout
        return {
            "mounts": Path("/proc/self/mountinfo").read_text().split("\n"),
            "processes": [command(pid, 0) for pid in processes() if pid != os.getpid()],
            "links": links(),
            "rules": rules.split("\n"),
            "cgroups": [
                str(group)
                for below in ("", "*/")  # cgroup v2, v1
                for group in Path("/sys/fs/cgroup").glob(f"{below}mktemplate/{key}*")
            ],
            "descriptors": descriptors(),
            "files": [str(file) for folder in folders for file in folder.rglob("*")],
            "leases": [(lease.FOLDER / "leases.json").read_text()]
            if (lease.FOLDER / "leases.json").exists()
            else [],
        }

    def made(self, name: str) -> Container:
        """Write a container as `create` would."""
        path = self.place / "containers"
        container = Container(path, name)
        folder = container.directory
        for below in ("upper", "work"):
            (folder / below).mkdir(parents=True)
        (folder / "upper").chmod(0o755)
        (folder / "seccomp").write_text(seccomp_profile.default_profile("service"))
        ids = idmap.allocate(path, name)
        dropped = [one for one in capabilities.NAMES if one not in capabilities.SERVICE]
        init = "trap 'exit 0' TERM; sleep 1000 & wait"
        bridged = self.wanted.network == "bridge"
        nic = ["type = veth", "link = mkt0", "name = eth0", "flags = up"] if bridged else []
        ports = [Port(host=8080, container=80)] if bridged else []
        if bridged and os.geteuid() == 0:
            nic.append("ipv6.address = fd00::1/64")  # any: it gets one of its own
            ports.append(Port(host=8080, container=80, address="::"))
        lines = [
            f"lxc.uts.name = {name}",
            f"lxc.init.cmd = /bin/sh -c {shlex.quote(init)}",
            "lxc.signal.halt = SIGTERM",
            "lxc.console.path = none",
            "lxc.pty.max = 8",
            "lxc.no_new_privs = 1",
            f"lxc.cap.drop = {' '.join(dropped)}",
            *(() if os.geteuid() else ("lxc.cgroup2.pids.max = 64",)),
            "lxc.mount.auto = proc:mixed sys:ro",
            "lxc.mount.entry = tmpfs run tmpfs nosuid,nodev,mode=0755,size=1m,create=dir 0 0",
            *(f"lxc.net.0.{word}" for word in nic or ["type = empty"]),
            f"lxc.rootfs.path = overlay:{self.place}/root:{folder}/upper",
            f"lxc.seccomp.profile = {folder}/seccomp",
            *(f"{key} = {value}" for key, value in ids.lines),
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        record = Record(
            name=name,
            template="soak",
            distro="debian",
            release="trixie",
            arch="amd64",
            created="2026-01-01T00:00:00Z",
            id_range=(ids.first, ids.count),
            ports=tuple(ports),
        )
        bundle.write(Bundle(path=folder, record=record))
        return container


def processes() -> list[int]:
    """Return the processes of this pid namespace, zombies too."""
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def command(pid: int, child: int) -> str:
    """Return what a process is, for people."""
    if pid == child:
        return "command"
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        state_ = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "ended"
    return f"{name} (zombie)" if state_ == "Z" else name


def links() -> list[str]:
    """Return the names of the links of this network namespace."""
    rows = Path("/proc/self/net/dev").read_text().split("\n")[2:]
    return [row.partition(":")[0].strip() for row in rows if row]


def descriptors() -> list[str]:
    """Return our open files; a number alone would not tell one from another."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return [one for one in found if "/proc/1/fd" not in one]


if __name__ == "__main__":
    sys.exit(main())
