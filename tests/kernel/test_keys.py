"""Every key of LXC's that does something, seen from inside the container; what has files of its own is named there.

Hooks: test_hooks. lxc.namespace.share: test_sharing. lxc.console: test_console. Images: test_image. Nics: test_network.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import bundle, enter, state
from runtime.container import Container
from runtime.errors import ConfigError, ContainerError, HostError, StateError
from runtime.hierarchy import is_pure, mounted
from runtime.kernel.libc import MACHINE
from runtime.kernel.syscall_names import numbers
from tests.conftest import lacking
from tests.kernel.conftest import log_of
from valuetypes import replace

pytestmark = pytest.mark.root

Make = Callable[..., Container]
GROUP = "/sys/fs/cgroup/memory.max" if is_pure() else "/sys/fs/cgroup/memory/memory.limit_in_bytes"
TIME_NAMESPACES = os.path.exists("/proc/self/ns/time")
CAPS = "lxc.cap.drop ="  # forget those of the fixture
AUTO = "lxc.mount.auto ="
STATUS = "while read -r line; do echo $line; done </proc/self/status"
MOUNTED = (
    "while read -r source place kind options rest; do echo $place $options; done </proc/mounts"
)
CLOCKS = "while read -r clock offset rest; do echo $clock $offset; done </proc/self/timens_offsets"
KEYS_OF_KERNEL = "while read -r a b c d e f g h i; do echo $h $i; done </proc/keys"


def host(name: str) -> str:
    return re.escape(os.readlink(f"/proc/self/ns/{name}"))


@dataclass(frozen=True)
class Row:
    """Lines of a configuration, a script inside, and a pattern for one line that it writes."""

    key: str
    lines: tuple[str, ...]
    script: str
    wanted: str


def row(key: str, script: str, wanted: str, *lines: str) -> Row:
    return Row(key, lines, script, wanted)


ROWS = (
    row("arch", "cat /proc/self/personality", "00000008", "lxc.arch = i686"),
    row("uts.name", "hostname", "other", "lxc.uts.name = other"),
    row("init.cwd", "readlink /proc/self/cwd", "/mnt", "lxc.init.cwd = /mnt"),
    row("init.uid", "id -u", "33", "lxc.init.uid = 33"),
    row("init.gid", "id -g", "44", "lxc.init.gid = 44"),
    row("init.groups", STATUS, "Groups: 5 44", "lxc.init.groups = 44,5"),
    row("no_new_privs = 0", STATUS, "NoNewPrivs: 0", "lxc.no_new_privs = 0"),
    row("no_new_privs = 1", STATUS, "NoNewPrivs: 1", "lxc.no_new_privs = 1"),
    row("proc", "cat /proc/self/oom_score_adj", "321", "lxc.proc.oom_score_adj = 321"),
    row("prlimit, soft", "ulimit -n", "77", "lxc.prlimit.nofile = 77:99"),
    row("prlimit, hard", "ulimit -H -n", "99", "lxc.prlimit.nofile = 77:99"),
    row("sysctl, net", "cat /proc/sys/net/ipv4/ip_forward", "1", "lxc.sysctl.net.ipv4.ip_forward = 1"),
    row("sysctl, ipc", "cat /proc/sys/kernel/shmmni", "77", "lxc.sysctl.kernel.shmmni = 77"),
    row("environment", "env", "A=b c", "lxc.environment = A=b c"),
    row("environment.runtime", "env", "A=b", "lxc.environment.runtime = A=b"),
    row("keyring.session", KEYS_OF_KERNEL, "keyring mktemplate: empty"),
    row("pty.max", MOUNTED, "/dev/pts .*,gid=.*,mode=620,ptmxmode=666,max=3", "lxc.pty.max = 3"),
    row("autodev = 1", "stat -c %t:%T /dev/zero", "1:5"),
    row("autodev = 0", "ls -d /dev/zero || echo none", "none", "lxc.autodev = 0"),
    row("autodev.tmpfs.size", MOUNTED, "/dev .*,size=128k,.*", "lxc.autodev.tmpfs.size = 131072"),
    row("mount.fstab", "cat /mnt/group", "more:x:44:web", "lxc.mount.fstab = {fstab}"),
    row("mount.entry, a folder", "ls -d /a/b", "/a/b", "lxc.mount.entry = /etc a/b none bind,create=dir 0 0"),
    row("mount.entry, a file", "stat -c %F /a/b", "regular .*file",
        "lxc.mount.entry = /etc/hostname a/b none bind,create=file"),
    row("mount.entry, optional", "echo up", "up", "lxc.mount.entry = /none mnt none bind,optional 0 0"),
    row("mount.entry, relative", "cat /mnt/group", "more:x:44:web",
        "lxc.mount.entry = etc mnt none bind,relative 0 0"),
    row("mount.entry, a tmpfs", "stat -c %a /mnt", "711", "lxc.mount.entry = tmpfs mnt tmpfs size=4k,mode=0711 0 0"),
    row("mount.auto = proc:mixed", MOUNTED, "/proc/sys ro,.*", AUTO, "lxc.mount.auto = proc:mixed"),
    row("mount.auto = proc", MOUNTED, "/proc/sys ro,.*", AUTO, "lxc.mount.auto = proc"),
    row("mount.auto = proc:mixed, net", MOUNTED, "/proc/sys/net rw,.*", CAPS, "lxc.cap.keep = net_admin"),
    row("mount.auto = sys", MOUNTED, "/sys/devices/virtual/net rw,.*", "lxc.mount.auto = sys"),
    row("mount.auto = proc:rw", f"{MOUNTED}; ls -d /proc/sys", "/proc rw,.*", AUTO, "lxc.mount.auto = proc:rw"),
    row("mount.auto = sys:ro", MOUNTED, "/sys ro,.*", "lxc.mount.auto = sys:ro"),
    row("mount.auto = sys:mixed", MOUNTED, "/sys ro,nosuid,nodev,noexec.*", "lxc.mount.auto = sys:mixed"),
    row("mount.auto = sys:rw", MOUNTED, "/sys rw,.*", "lxc.mount.auto = sys:rw"),
    row("mount.auto = cgroup:ro", f"mkdir {Path(GROUP).parent}/x || echo refused", "refused",
        "lxc.mount.auto = cgroup:ro:force"),
    row("mount.auto = cgroup:rw", f"mkdir {Path(GROUP).parent}/x && echo made", "made",
        "lxc.mount.auto = cgroup:rw:force"),
    row("cgroup2, memory.max", f"cat {GROUP}", "67108864",
        "lxc.mount.auto = cgroup:ro:force", "lxc.cgroup2.memory.max = 64M"),
    row("cgroup2, a device denied", "cat </dev/zero || echo refused", "refused",
        "lxc.cgroup2.devices.deny = a", "lxc.cgroup2.devices.allow = c 1:3 rw"),
    row("cgroup2, a device allowed", "head -c1 </dev/zero >/dev/null && echo read", "read",
        "lxc.cgroup2.devices.deny = a", "lxc.cgroup2.devices.allow = c 1:3 rw",
        "lxc.cgroup2.devices.allow = c 1:5 r"),
    row("cgroup.dir", f"cat {GROUP}", "67108864",
        "lxc.cgroup.dir = mkt-keys/above", "lxc.mount.auto = cgroup:ro:force", "lxc.cgroup2.memory.max = 64M"),
    row("cap.drop", STATUS, "CapBnd: [0-9a-f]{8}fddfffff", CAPS, "lxc.cap.drop = sys_admin sys_time"),
    row("cap.keep", STATUS, "CapEff: 0000000000000021", CAPS, "lxc.cap.keep = chown kill"),
    row("cap.keep = none", STATUS, "CapEff: 0000000000000000", CAPS, "lxc.cap.keep = none"),
    row("seccomp.profile, version 1", "mkdir /x; echo $?", "159", "lxc.seccomp.profile = {v1}"),
    row("seccomp.profile, version 2", "mkdir /x 2>&1", ".*Operation not supported", "lxc.seccomp.profile = {v2}"),
    row("idmap", "while read -r a b c; do echo $a $c; done </proc/self/uid_map", "0 65536"),
    row("namespace.clone", "readlink /proc/self/ns/ipc", host("ipc"), "lxc.namespace.clone = mnt pid net uts cgroup"),
    row("namespace.keep", "readlink /proc/self/ns/uts", host("uts"), "lxc.namespace.keep = uts", "lxc.uts.name ="),
    row("time.offset.monotonic", CLOCKS, "monotonic 7200", "lxc.time.offset.monotonic = 2h"),
    row("time.offset.boot", CLOCKS, "boottime -180", "lxc.time.offset.boot = -3m"),
    row("net.type = empty", "cat /sys/class/net/lo/flags", "0x8"),
    row("net.flags = up", "cat /sys/class/net/lo/flags", "0x9", "lxc.net.0.flags = up"),
    row("net.type = none", "readlink /proc/self/ns/net", host("net"),
        "lxc.net.0.type = none", AUTO, "lxc.mount.auto = proc"),
)  # fmt: skip


@pytest.mark.parametrize("one", ROWS, ids=lambda one: one.key)
def test_what_a_key_does_is_seen_inside(make: Make, tmp_path: Path, one: Row) -> None:
    if one.key.startswith("time.") and not TIME_NAMESPACES:
        lacking("time namespaces")
    places = {name: tmp_path / name for name in ("fstab", "v1", "v2")}
    places["fstab"].write_text("etc mnt none bind,relative 0 0\n")
    made = {numbers(MACHINE)[name] for name in ("mkdir", "mkdirat") if name in numbers(MACHINE)}
    known = sorted(set(numbers(MACHINE).values()) - made)
    places["v1"].write_text("1\nallowlist\n" + "".join(f"{number}\n" for number in known))
    places["v2"].write_text("2\ndenylist\n[all]\nmkdir errno 95\nmkdirat errno 95\n")
    lines = [re.sub(r"\{(\w+)\}", lambda name: str(places[name[1]]), line) for line in one.lines]
    container = make("key", f"/bin/sh -c '{one.script}; echo end'", *lines, filtered=False)

    container.start()
    assert container.wait("STOPPED", 60)
    told = [line.strip() for line in log_of(container, "end\n").split("\n")]

    assert [line for line in told if re.fullmatch(one.wanted, line)], told


def groups(below: str) -> list[Path]:
    """Return the control groups called `below` in every hierarchy."""
    return [Path(tree.path, below) for tree in mounted() if Path(tree.path, below).is_dir()]


@pytest.fixture
def folder() -> Iterator[str]:
    """A name for groups of nobody else's; what is left of them is removed."""
    name = f"mkt-keys-{os.getpid()}"
    yield name
    for top in groups(name):
        for place in (*sorted(top.glob("**/"), reverse=True),):
            place.rmdir()


@pytest.mark.parametrize("hook", ["", "lxc.hook.pre-start = /bin/true"], ids=["program", "python"])
@pytest.mark.parametrize("kind", ["dir", "dir.container"])
@pytest.mark.parametrize("inner", ["", "inside"], ids=["outer", "inner"])
def test_its_control_groups_are_where_the_keys_say(
    make: Make, folder: str, kind: str, inner: str, hook: str
) -> None:
    lines = [
        f"lxc.cgroup.{kind} = {folder}/deep",
        *([f"lxc.cgroup.dir.monitor = {folder}/monitor"] if kind == "dir.container" else []),
        *([f"lxc.cgroup.dir.container.inner = {inner}"] if inner else []),
        "lxc.cgroup2.memory.max = 64M",
        hook,
    ]
    script = "read -r line </proc/self/cgroup; echo $line; while :; do sleep 0.1; done"
    container = make("where", f"/bin/sh -c '{script}'", *lines)
    for _ in range(2):
        container.start()
        pid = container.pid
        assert pid is not None
        own = state.key(container.path, "where")
        wanted = f"{folder}/deep/{own}" if kind == "dir" else f"{folder}/deep"
        member = f"/{wanted}/{inner}".rstrip("/")
        seen = Path(f"/proc/{pid}/cgroup").read_text()

        assert f"memory:{member}\n" in seen or f"0::{member}\n" in seen
        limits = [path / Path(GROUP).name for path in groups(wanted)]
        assert [one.read_text() for one in limits if one.exists()] == ["67108864\n"]
        assert enter.execute(container, ["true"]) == 0
        container.freeze()
        container.unfreeze()
        container.stop(0)
        assert groups(wanted) == []
    container.destroy()
    assert groups(wanted) == []
    if kind == "dir":
        assert groups(f"{folder}/deep")  # others may have limits there


def test_a_group_that_two_name_is_one_containers_alone(folder: str, make: Make) -> None:
    lines = [f"lxc.cgroup.dir.container = {folder}/both", f"lxc.cgroup.dir.monitor = {folder}/m"]
    one, two = make("one", "/bin/sleep 1000", *lines), make("two", "/bin/sleep 1000", *lines)
    one.start()

    with pytest.raises(ContainerError, match=r"E_RUNNING|E_CGROUP"):
        two.start()
    two.destroy()

    assert one.state() == "RUNNING"


def test_what_lxc_wants_beside_it_is_wanted(make: Make) -> None:
    container = make("half", "/bin/true", "lxc.cgroup.dir.container = mkt-keys/half")

    with pytest.raises(ConfigError, match=r"and lxc\.cgroup\.dir\.monitor go together"):
        container.start()


def test_without_a_keyring_of_its_own_it_has_the_callers(make: Make) -> None:
    container = make("ring", f"/bin/sh -c '{KEYS_OF_KERNEL}; echo end'", "lxc.keyring.session = 1")
    container.start()
    assert container.wait("STOPPED", 60)

    assert "mktemplate: " not in log_of(container, "end\n")


@pytest.mark.parametrize("userns", [True, False], ids=["userns", "no-userns"])
def test_an_offset_moves_the_clock(make: Make, userns: bool) -> None:
    script = "read -r up rest </proc/uptime; echo ${up%.*}; echo end"
    container = make(
        "clock", f"/bin/sh -c '{script}'", "lxc.time.offset.boot = 1000h", userns=userns
    )
    if not TIME_NAMESPACES:
        with pytest.raises(HostError, match=r"E_KERNEL_FEATURE: lxc\.time\.offset: "):
            container.start()
        return
    container.start()
    assert container.wait("STOPPED", 60)
    seconds = int(log_of(container, "end\n").split("\n")[0])

    assert 3_600_000 <= seconds - time.clock_gettime(time.CLOCK_BOOTTIME) + 60 <= 3_600_120


def test_core_scheduling_is_had_or_refused(make: Make) -> None:
    container = make("core", "/bin/true", "lxc.sched.core = 1")
    try:
        container.start()
    except ContainerError as error:  # a kernel without CONFIG_SCHED_CORE
        assert (error.code, error.subject) == ("E_KERNEL_FEATURE", "lxc.sched.core")


def test_the_signal_that_asks_it_to_end(make: Make) -> None:
    script = 'trap "exit 5" USR1; echo up; while :; do sleep 0.1; done'
    container = make("halt", f"/bin/sh -c '{script}'", "lxc.signal.halt = SIGUSR1")
    container.start()
    log_of(container, "up")

    container.stop(20)

    assert container.exit_status == 5


def test_the_signal_that_its_monitors_death_sends(make: Make) -> None:
    script = 'trap "touch /mourned; exit" TERM; echo up; while :; do sleep 0.1; done'
    container = make("grief", f"/bin/sh -c '{script}'", "lxc.monitor.signal.pdeath = SIGTERM")
    container.start()
    log_of(container, "up")
    run = container.run
    assert run is not None

    os.kill(run.monitor.pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    while not (container.directory / "upper/mourned").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_written_goes_to_its_log_file(make: Make, tmp_path: Path) -> None:
    wanted = tmp_path / "console"
    container = make("told", "/bin/sh -c 'echo hello'", f"lxc.console.logfile = {wanted}")
    container.start()
    assert container.wait("STOPPED", 60)

    deadline = time.monotonic() + 20
    while not wanted.exists() or wanted.read_text() != "hello\n":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(container: Container, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while container.directory.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("hook", ["", "lxc.hook.pre-start = /bin/true"], ids=["program", "python"])
@pytest.mark.parametrize("how", ["stop", "kill", "by itself"])
def test_one_that_is_ephemeral_is_destroyed_at_its_end(make: Make, hook: str, how: str) -> None:
    wait = "" if how == "by itself" else "; while :; do sleep 0.1; done"
    container = make("brief", f"/bin/sh -c 'echo up{wait}'", "lxc.ephemeral = 1", hook)
    container.start()

    if how == "stop":
        container.stop(0)
    elif how == "kill":
        container.kill()

    assert gone(container)
    with pytest.raises(StateError, match="E_NOTFOUND"):
        container.start()


def test_one_that_is_ephemeral_in_the_foreground_leaves_its_status(make: Make) -> None:
    container = make("status", "/bin/sh -c 'exit 3'", "lxc.ephemeral = 1")

    _, status = os.waitpid(container.start(foreground=True).monitor, 0)

    assert os.waitstatus_to_exitcode(status) == 3
    assert gone(container)


def test_one_that_is_ephemeral_cannot_be_started_again_by_a_policy(make: Make) -> None:
    container = make("both", "/bin/true", "lxc.ephemeral = 1")
    found = container.bundle
    bundle.write(replace(found, record=replace(found.record, restart="always")))

    with pytest.raises(ConfigError, match=r"lxc\.ephemeral: its restart policy is always"):
        container.start()
