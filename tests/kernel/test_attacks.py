"""Attacks on a launch that others' runtimes fell for, as real artifacts: the table T-01 … T-56, one marker.

    pytest -m attack -v               as root, with and without a user namespace
    pytest -m attack -v --rootless    as a normal user; tests/system/test_rootless.py runs this

What an image or a process inside may have prepared lies in the container's upper layer; a canary on the host tells
whether anything reached it.
"""

from __future__ import annotations

import errno
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from runtime import enter, execprogram
from runtime.container import Container
from runtime.errors import ContainerError
from runtime.kernel.libc import MACHINE, raw
from runtime.kernel.syscall_names import numbers
from tests.kernel import tracing
from tests.kernel.conftest import log_of

pytestmark = [pytest.mark.root, pytest.mark.attack]
AS_ROOT = os.geteuid() == 0

Make = Callable[..., Container]
NUMBER = numbers(MACHINE)
START = "import sys; from runtime.container import Container; Container(*sys.argv[1:]).start()"


@dataclass(frozen=True, slots=True)
class Canary:
    """A folder of the host that nothing may change."""

    path: Path
    before: tuple[tuple[object, ...], ...]

    def is_unchanged(self) -> bool:
        return looks(self.path) == self.before


def looks(path: Path) -> tuple[tuple[object, ...], ...]:
    found = []
    for one in sorted((path, *path.rglob("*"))):
        status = one.lstat()
        content = one.read_bytes() if one.is_file() else b""
        found.append((str(one), status.st_mode, status.st_uid, status.st_gid, content))
    return tuple(found)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    path = tmp_path / "canary"
    path.mkdir()
    path.chmod(0o777)
    (path / "f").write_text("secret of the host\n")
    (path / "f").chmod(0o666)
    os.mkfifo(path / "fifo")
    found = Canary(path, looks(path))
    yield found
    assert found.is_unchanged()


MODES = {"userns": True, "no-userns": False} if AS_ROOT else {"rootless": True}


@pytest.fixture(params=MODES.values(), ids=MODES.keys())
def hostile(make: Make, request: pytest.FixtureRequest) -> Callable[..., Container]:
    """Return a function that makes a container of a script and of what `spoil` puts into its upper layer."""
    userns = bool(request.param)

    def one(
        script: str, *lines: str, spoil: Callable[[Path], object] = lambda _: None
    ) -> Container:
        quoted = script.replace('"', '\\"')
        container = make("victim", f'/bin/sh -c "{quoted}; echo end"', *lines, userns=userns)
        spoil(container.directory / "upper")
        return container

    return one


def said(container: Container) -> list[str]:
    """Start it, wait for its end, and return what it wrote."""
    container.start()
    assert container.wait("STOPPED", 60)
    log = (container.directory / "log").read_text(errors="replace")
    assert log.endswith("end\n"), log
    return log.split("\n")[:-2]


def refused(container: Container) -> str:
    with pytest.raises(ContainerError) as caught:
        container.start()
    assert container.state() == "STOPPED"
    return str(caught.value)


Hostile = Callable[..., Container]


@pytest.mark.parametrize("target", ["mnt/x/a/b", "mnt/y/a"], ids=["absolute", "upwards"])
def test_t01_a_mount_target_behind_a_link_reaches_nothing(
    target: str, hostile: Hostile, canary: Canary
) -> None:
    def spoil(upper: Path) -> None:
        (upper / "mnt").mkdir()
        (upper / "mnt/x").symlink_to(canary.path)
        (upper / "mnt/y").symlink_to("../../../../../../.." + str(canary.path))

    line = f"lxc.mount.entry = /usr/bin {target} none bind,create=dir 0 0"

    assert "E_MOUNT_TARGET" in refused(hostile("true", line, spoil=spoil))


def test_t01_a_target_that_is_swapped_meanwhile_reaches_nothing(
    hostile: Hostile, canary: Canary
) -> None:
    line = "lxc.mount.entry = tmpfs mnt/x/deep tmpfs create=dir 0 0"
    container = hostile("true", line, spoil=lambda upper: (upper / "mnt/x").mkdir(parents=True))
    place = container.directory / "upper/mnt/x"
    flipper = os.fork()
    if flipper == 0:
        while True:
            try:
                os.rename(place, f"{place}.dir")
                os.symlink(canary.path, place)
                os.unlink(place)
                os.rename(f"{place}.dir", place)
            except OSError:
                os._exit(0)

    try:
        for _ in range(10):
            try:
                container.start()
                container.wait("STOPPED", 60)
            except ContainerError as error:
                assert error.code in {"E_MOUNT_TARGET", "E_ROOTFS_SYMLINK"}, error
            assert canary.is_unchanged()
    finally:
        os.kill(flipper, signal.SIGKILL)
        os.waitpid(flipper, 0)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_t02_t06_proc_sys_and_dev_are_folders_or_nothing_starts(
    name: str, kind: str, hostile: Hostile, canary: Canary
) -> None:
    def spoil(upper: Path) -> None:
        if kind == "link":
            (upper / name).symlink_to(canary.path)
        else:
            (upper / name).write_text("no folder")

    assert name in refused(hostile("true", spoil=spoil))


@pytest.mark.parametrize("target", ["{}/f", "../proc/sysrq-trigger"])
def test_t04_masks_are_the_hosts_null_device_whatever_the_image_has(
    target: str, hostile: Hostile, canary: Canary
) -> None:
    def spoil(upper: Path) -> None:
        (upper / "dev").mkdir()
        (upper / "dev/null").symlink_to(target.format(canary.path))

    script = "stat -c %t:%T /proc/timer_list /dev/null"

    assert said(hostile(script, spoil=spoil)) == ["1:3", "1:3"]


def test_t05_a_console_that_is_a_link_is_not_followed(hostile: Hostile, canary: Canary) -> None:
    def spoil(upper: Path) -> None:
        (upper / "dev/pts").mkdir(parents=True)
        (upper / "dev/console").symlink_to(canary.path / "new")
        (upper / "dev/pts/0").symlink_to(canary.path / "f")

    script = "stat -c %F.%t /dev/console"

    assert said(hostile(script, "lxc.console.path =", spoil=spoil))[0].endswith("file.88")


@pytest.mark.parametrize("cwd", ["/a/b/c", "/proc/self/fd/7", "/proc/self/cwd"])
def test_t07_t30_a_working_directory_leads_nowhere_outside(
    cwd: str, hostile: Hostile, canary: Canary
) -> None:
    container = hostile(
        "true", f"lxc.init.cwd = {cwd}", spoil=lambda upper: (upper / "a").symlink_to(canary.path)
    )

    assert "E_CONFIG_VALUE" in refused(container)


def test_t10_a_log_that_is_a_link_is_refused(hostile: Hostile, canary: Canary) -> None:
    container = hostile("echo overwritten")
    (container.directory / "log").symlink_to(canary.path / "f")

    refused(container)


def test_t30_nothing_of_the_starters_is_open_inside(hostile: Hostile, canary: Canary) -> None:
    container = hostile("ls -l /proc/self/fd; ls /proc/1/fd; pwd")
    held = [os.open("/", os.O_RDONLY), os.open("/proc", os.O_RDONLY), os.memfd_create("x", 0)]
    held += [socket.socket(socket.AF_UNIX).detach()]
    code = f"import os; os.chdir({str(canary.path)!r}); {START}"
    try:
        for descriptor in held:
            os.set_inheritable(descriptor, True)
        argv = [sys.executable, "-c", code, str(container.path), container.name]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(argv, check=True, close_fds=False, timeout=20, env=environment)
        assert container.wait("STOPPED", 60)
    finally:
        for descriptor in held:
            os.close(descriptor)

    log = (container.directory / "log").read_text()
    own = [line for line in log.split("\n") if "->" in line]
    assert {line.split()[-3] for line in own} <= {"0", "1", "2", "3"}, log  # 3: ls reads /proc
    assert log.split("\n")[-5:-2] == ["1", "2", "/"], log


def test_t31_what_runs_inside_is_no_program_of_the_hosts(hostile: Hostile) -> None:
    interpreter = Path(sys.executable).resolve()
    before = (interpreter.stat().st_mtime_ns, interpreter.stat().st_size)

    def spoil(upper: Path) -> None:
        (upper / "bin").mkdir()
        (upper / "bin/again").write_text("#!/proc/self/exe\n")
        (upper / "bin/again").chmod(0o755)

    script = "readlink /proc/1/exe; /bin/again; for n in /proc/[0-9]*; do : >$n/exe; done"
    lines = said(hostile(f"({script}) 2>&1", spoil=spoil))

    assert lines[0].startswith(("/bin/", "/usr/bin/"))
    assert (interpreter.stat().st_mtime_ns, interpreter.stat().st_size) == before


def test_t33_nothing_can_be_typed_on_the_starters_terminal(hostile: Hostile) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    script = "tty; (exec 3<>/dev/tty) && echo terminal"
    container = hostile(f"({script}) 2>&1")
    argv = [sys.executable, "-c", START, str(container.path), container.name]
    subprocess.run(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, check=True, timeout=20, cwd=Path(__file__).parents[2]
    )  # fmt: skip
    assert container.wait("STOPPED", 60)

    log = (container.directory / "log").read_text()
    os.close(theirs)
    os.close(ours)
    assert "not a tty" in log
    assert "terminal" not in log


def test_t34_t36_nothing_of_the_starters_environment_arrives(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKT_SECRET", "canary")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    script = "env; umask; cat /proc/self/status"

    lines = said(hostile(script))

    assert not any("MKT_SECRET" in line for line in lines)
    assert "0022" in lines
    masks = {line.split()[0]: line.split()[1] for line in lines if line.startswith("Sig")}
    assert [int(masks[name], 16) & ~(1 << 16) for name in ("SigBlk:", "SigIgn:")] == [0, 0]


def test_t40_t41_no_capability_is_inheritable_and_no_group_stays(hostile: Hostile) -> None:
    before = os.getgroups()
    if AS_ROOT:
        os.setgroups([4, 27, 100])
    try:
        lines = said(hostile("id -G; cat /proc/self/status"))
    finally:
        if AS_ROOT:
            os.setgroups(before)

    caps = {line.split()[0]: line.split()[1] for line in lines if line.startswith("Cap")}
    assert lines[0] == "0"
    assert [int(caps[name], 16) for name in ("CapInh:", "CapAmb:")] == [0, 0]
    assert caps["CapBnd:"] == caps["CapPrm:"] == caps["CapEff:"]


@pytest.mark.parametrize(
    "user",
    ["1000:", ":0", "4294967295", "4294967296", "-1"],  # liblxc reads 0x3e8 and +1000: so do we
)
def test_t42_an_id_is_a_decimal_number(user: str, hostile: Hostile) -> None:
    assert "lxc.init.uid" in refused(hostile("true", f"lxc.init.uid = {user}"))


@pytest.mark.skipif(not AS_ROOT, reason="needs root: nobody else can be somebody else")
def test_t43_nobody_else_reaches_the_container(hostile: Hostile) -> None:
    container = hostile("sleep 100")
    container.start()

    places = [
        container.directory / "upper/..",
        container.directory / "config",
        container.directory / "log",
    ]
    script = "".join(
        f"cat {place}/* {place} 2>/dev/null; ls {place}/ 2>/dev/null;" for place in places[1:]
    )
    seen = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert seen.stdout == ""


KEYCTL_SEARCH, KEYCTL_UNLINK, SESSION = 10, 9, -3  # keyctl(2)
KEY = (b"user\0", b"mktemplate-test\0")


@pytest.fixture
def key() -> Iterator[int]:
    """A key in the session keyring of whoever starts the container, and runs commands in it."""
    raw(NUMBER["keyctl"], 1, None)  # a session keyring of our own
    made = raw(NUMBER["add_key"], *KEY, b"secret", 6, SESSION)
    assert made > 0
    yield made
    raw(NUMBER["keyctl"], KEYCTL_UNLINK, made, SESSION)


def test_t45_no_key_is_listed(hostile: Hostile, key: int) -> None:
    masked = "lxc.mount.entry = /dev/null proc/keys none bind,ro 0 0"  # as templates have it

    assert said(hostile("cat /proc/keys", masked)) == []


def test_t45_keys_are_neither_found_nor_made(hostile: Hostile, key: int) -> None:
    container = hostile("sleep 1000")
    container.start()

    def asks() -> bytes:
        made = raw(NUMBER["add_key"], *KEY, b"other", 5, SESSION)
        return b"%d %d" % (made, raw(NUMBER["keyctl"], KEYCTL_SEARCH, SESSION, *KEY, 0))

    answers = [-int(word) for word in enter.inside(container, asks).split()]
    assert set(answers) <= {errno.EPERM, errno.ENOSYS}


def test_t45_the_callers_keys_are_not_those_of_a_command(make: Make, key: int) -> None:
    container = make("victim", "/bin/sleep 1000", filtered=False)
    container.start()

    def asks() -> bytes:
        return b"%d" % raw(NUMBER["keyctl"], KEYCTL_SEARCH, SESSION, *KEY, 0)

    assert raw(NUMBER["keyctl"], KEYCTL_SEARCH, SESSION, *KEY, 0) == key
    assert -int(enter.inside(container, asks)) == errno.ENOKEY


def test_t46_a_device_is_neither_made_nor_opened(hostile: Hostile) -> None:
    def spoil(upper: Path) -> None:
        (upper / "disk").mkdir()
        if AS_ROOT:
            os.mknod(upper / "disk/b", 0o060666, os.makedev(7, 0))

    lines = said(hostile("(mknod /tmp/n c 1 3; head -c 1 /disk/b) 2>&1", spoil=spoil))

    assert "Operation not permitted" in lines[0]
    denied = ("Permission denied", "not permitted") if AS_ROOT else ("No such file",)
    assert any(word in lines[1] for word in denied)


def test_t50_no_control_group_is_writable(hostile: Hostile) -> None:
    script = "(mount -t cgroup none /mnt; : >/sys/fs/cgroup/release_agent; ls /sys/fs/cgroup) 2>&1"

    lines = said(hostile(script))

    assert any("denied" in line or "not permitted" in line for line in lines[:1]), lines
    assert not any(
        "release_agent" in line
        and "ermission" not in line
        and "irectory" not in line
        and "ead-only" not in line
        for line in lines
    ), lines


@pytest.mark.parametrize(
    "line",
    [
        "lxc.sysctl.net.x+kernel.core_pattern = |/x",
        "lxc.sysctl.kernel/core_pattern = |/x",
        "lxc.sysctl.kernel.core_pattern = |/x",
        "lxc.sysctl.net..ipv4 = 1",
    ],
)
def test_t51_a_sysctl_of_the_hosts_is_refused(line: str, hostile: Hostile) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()

    refused(hostile("true", line))

    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_t52_nothing_dumps_core(hostile: Hostile) -> None:
    lines = said(hostile("ulimit -Hc; (kill -ABRT \\$\\$); ls /"))

    assert lines[0] == "0"
    assert not any(line.startswith("core") for line in lines)


def test_t53_the_hosts_mounts_stay_as_they_are(hostile: Hostile) -> None:
    container = hostile("sleep 100")
    seen: list[tuple[str, ...]] = []
    for _ in range(5):  # others may mount something meanwhile, but not each time
        before = Path("/proc/self/mountinfo").read_text()
        container.start()
        during = Path("/proc/self/mountinfo").read_text()
        container.stop(0)
        seen.append((before, during, Path("/proc/self/mountinfo").read_text()))
        if len(set(seen[-1])) == 1:
            break

    assert len(set(seen[-1])) == 1


def test_t55_a_pid_that_was_given_anew_is_not_killed(hostile: Hostile) -> None:
    container = hostile("sleep 100")
    container.start()
    run = container.run
    assert run is not None
    time.sleep(2 / os.sysconf("SC_CLK_TCK"))  # proc(5) tells starts of one tick not apart
    bystander = subprocess.Popen(["sleep", "30"])
    container.stop(0)

    from dataclasses import replace

    taken = replace(run.init, pid=bystander.pid)  # its number is somebody else's now

    assert not taken.send(signal.SIGKILL)
    time.sleep(0.05)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


LOOKS_AT_ALL = """
while :; do for p in /proc/[1-9]*; do
    [ $p = /proc/1 ] || [ $p = /proc/$$ ] || { readlink $p/exe; cat $p/environ; ls -l $p/fd; }
done; done 2>/dev/null
"""


def test_t32_who_joins_is_not_looked_into_before_it_is_inside(hostile: Hostile) -> None:
    container = hostile(LOOKS_AT_ALL.replace("\n", " "))
    container.start()
    execprogram.keep(container)
    program = container.directory / "exec"
    script = "from runtime import enter; from runtime.container import Container; import sys\n"
    script += "enter.execute(Container(*sys.argv[1:3]), sys.argv[3:])"
    environment = {**os.environ, "MARK": "of the host"}
    words = [sys.executable, "-P", "-c", script, str(container.path), container.name]
    for _ in range(5):
        true = [*words, "/bin/true"]
        subprocess.run(true, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
    joins = [program, "/", "/bin/false", "--in-python", "exec", container.name, "--", "/bin/true"]
    for _ in range(50 if program.exists() else 0):
        subprocess.run(joins, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=60)
    with subprocess.Popen([*words, "/bin/sleep", "100"], env=environment, stdin=subprocess.DEVNULL):
        log_of(container, "/bin/sleep")  # it does look
        container.stop(0)

    seen = log_of(container)
    assert not [one for one in ("MARK=", "python", str(container.path), "/exec") if one in seen]


def test_t35_no_socket_of_ours_has_a_name_without_a_file(hostile: Hostile) -> None:
    container = hostile("sleep 1000")
    container.start()
    run = container.run
    assert run is not None

    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    nameless = {row[6] for row in rows if len(row) > 7 and row[7].startswith("@")}
    held = [
        os.readlink(one)
        for process in (run.monitor, run.init)
        for one in Path(f"/proc/{process.pid}/fd").iterdir()
    ]
    assert held
    assert not [one for one in held if one.strip("socket:[]") in nameless]


def alone(container: Container) -> None:
    """Map the caller's own id and no other: who is traced by a user has no use of newuidmap, which is setuid."""
    file = container.directory / "config"
    lines = [line for line in file.read_text().split("\n") if not line.startswith("lxc.idmap")]
    maps = [f"lxc.idmap = u 0 {os.geteuid()} 1", f"lxc.idmap = g 0 {os.getegid()} 1", ""]
    file.write_text("\n".join([*lines, *maps]))


LIVES = """
import os, sys
from runtime import enter
from runtime.container import Container
container = Container(*sys.argv[1:])
container.start()
enter.execute(container, ["true"])
os.geteuid() or enter.execute(container, ["true"], user="web")
enter.inside(container, lambda: open("/etc/passwd", "rb").read())
container.stop(0)
container.start()
container.kill()
os.geteuid() or container.destroy()  # a user's is removed from inside, by way of newuidmap
"""
POISON = """#!/bin/sh
[ "$(readlink /proc/self/ns/mnt)" != "{host}" ] || echo poisoned >>{canary}/f
exec /bin/true
"""
POISONED = (
    "bin/tar",
    "bin/newuidmap",
    "bin/python3",
    "usr/bin/xz",
    "usr/bin/zstd",
    "usr/bin/env",
    "sbin/ldconfig",
)


@pytest.mark.parametrize("hook", ["", "lxc.hook.pre-start = /bin/true"], ids=["program", "python"])
def test_t12_the_host_runs_nothing_and_opens_nothing_of_the_rootfs_by_its_name(
    hook: str,
    hostile: Hostile,
    canary: Canary,
    tiny: Path,
    tmp_path: Path,
    needs: Callable[..., None],
) -> None:
    needs("strace")

    def spoil(upper: Path) -> None:
        text = POISON.format(host=os.readlink("/proc/self/ns/mnt"), canary=canary.path)
        for name in POISONED:
            (upper / name).parent.mkdir(parents=True, exist_ok=True)
            (upper / name).write_text(text)
            (upper / name).chmod(0o755)
        library = upper / "lib/x86_64-linux-gnu/libnss_files.so.2"
        library.parent.mkdir(parents=True)
        library.write_bytes(b"no library")
        module = upper / "usr/lib/python3/dist-packages/sitecustomize.py"
        module.parent.mkdir(parents=True)
        module.write_text(f"open({str(canary.path / 'f')!r}, 'a').write('poisoned')\n")
        (upper / "etc").mkdir()
        (upper / "etc/ld.so.preload").write_text("/lib/x86_64-linux-gnu/libnss_files.so.2\n")

    container = hostile("while :; do sleep 1; done", hook, spoil=spoil)
    if not AS_ROOT:
        alone(container)
    where = tmp_path / "trace"
    where.mkdir()
    words = [sys.executable, "-P", "-c", LIVES, str(container.path), container.name]
    done = tracing.trace(words, where / "of", PYTHONPATH=str(Path(__file__).parents[2]))

    assert done.returncode == 0, done.stderr
    upper = container.directory / "upper"  # the desk of layers covers it, with short names for them
    own = [f"{upper}/{name}" for name in ("0", "upper", "root", "root/dev/", "root/proc/")]
    roots = (upper, tiny, container.path / ".store/trash")
    seen, wrong = tracing.breaches(where / "of", roots, own)
    bundle = f'rename("{container.directory}", '  # which is ours, goes to the trash whole
    wrong = [line for line in wrong if not line.startswith(bundle)]
    assert not wrong, "\n".join(wrong)
    assert seen > 20


def test_t12_a_breach_would_be_seen(tmp_path: Path, needs: Callable[..., None]) -> None:
    needs("strace")
    root = tmp_path / "root"
    root.mkdir()
    code = (
        f"import os; top = os.open({str(root)!r}, os.O_PATH)\n"
        f"for name, place in (({str(root)!r} + '/by name', None), ('a/b', top), ('followed', top)):\n"
        "    try: os.open(name, os.O_RDONLY, dir_fd=place)\n"
        "    except OSError: pass\n"
    )
    where = tmp_path / "trace"
    where.mkdir()
    tracing.trace([sys.executable, "-P", "-c", code], where / "of")

    seen, wrong = tracing.breaches(where / "of", (root,))

    assert (seen, len(wrong)) == (3, 3)


@pytest.mark.skipif(not AS_ROOT, reason="needs root: a user covers nothing of /proc")
def test_t03_a_proc_that_is_covered_is_not_written_to(hostile: Hostile, canary: Canary) -> None:
    name = "sys/net/ipv4/ip_forward"
    container = hostile(f"cat /proc/{name}", "lxc.sysctl.net.ipv4.ip_forward = 1")
    script = f"mount --bind {canary.path}/f /proc/{name}; mount --bind {canary.path}/f /proc/self/oom_score_adj; "
    script += 'exec "$@"'
    words = [sys.executable, "-P", "-c", START, str(container.path), container.name]
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh", *words],
        timeout=60, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."},
        capture_output=True, text=True,
    )  # fmt: skip

    assert container.wait("STOPPED", 60)
    if done.returncode:  # in a user namespace the kernel gives no /proc where the host's is covered
        assert "E_KERNEL_FEATURE: proc: the host's /proc is partly covered" in done.stderr
    else:
        assert log_of(container, "end\n").split("\n")[0] == "1"


PASSWDS: dict[str, Callable[[Path, Path], object]] = {
    "a fifo of the host's": lambda file, canary: file.symlink_to(canary / "fifo"),
    "a fifo": lambda file, canary: os.mkfifo(file),
    "a folder": lambda file, canary: file.mkdir(),
    "a file of the host's": lambda file, canary: file.symlink_to(canary / "f"),
    "no end of it": lambda file, canary: file.write_bytes(b"x" * (2 << 20)),
}


@pytest.mark.parametrize("kind", PASSWDS)
def test_t10_who_is_who_is_read_from_a_plain_file_inside(
    kind: str, hostile: Hostile, canary: Canary
) -> None:
    def spoil(upper: Path) -> None:
        (upper / "etc").mkdir()
        PASSWDS[kind](upper / "etc/passwd", canary.path)

    container = hostile("sleep 100", spoil=spoil)
    container.start()
    began = time.monotonic()

    with pytest.raises(ContainerError) as caught:
        enter.execute(container, ["true"], user="web")

    assert caught.value.code in {"E_ROOTFS_FILE", "E_USER"}
    assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 5


def test_t13_what_is_destroyed_takes_nothing_of_the_hosts_along(
    hostile: Hostile, canary: Canary
) -> None:
    def spoil(upper: Path) -> None:
        (upper / "link").symlink_to(canary.path)
        (upper / "new\nline -rf").mkdir()
        deep = upper / "deep"
        for _ in range(900):
            deep.mkdir()
            deep = deep / "d"
        if AS_ROOT:
            (upper / "fixed").write_text("kept")
            subprocess.run(["chattr", "+i", upper / "fixed"], check=True)

    container = hostile("true", spoil=spoil)
    container.start()
    assert container.wait("STOPPED", 60)
    if AS_ROOT:
        place = container.directory / "upper/bound"
        place.mkdir()
        subprocess.run(["mount", "--bind", canary.path, place], check=True)
        try:
            with pytest.raises(ContainerError, match="still contains a mount"):
                container.destroy()
        finally:
            subprocess.run(["umount", place], check=True)

    container.destroy()

    assert not container.directory.exists()
    assert os.listdir(container.path / ".store/trash") == []


@pytest.mark.skipif(not AS_ROOT, reason="needs root: a user has one range for all its containers")
def test_t44_no_two_containers_have_an_id_in_common(make: Make) -> None:
    ranges = sorted(make(f"c{number}", "/bin/true").bundle.record.id_range for number in range(4))

    assert all(one[0] + one[1] <= other[0] for one, other in pairwise(ranges))


NEWUSER, AF_ALG, AF_VSOCK, SOCK_RAW = 0x10000000, 38, 40, 3
FORBIDDEN: dict[str, tuple[int | bytes | None, ...]] = {
    "unshare": (NEWUSER,),
    "clone": (NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": (None, 0),
    "setns": (-1, 0),
    "bpf": (0, None, 0),
    "io_uring_setup": (1, None),
    "userfaultfd": (0,),
    "perf_event_open": (None, 0, 0, 0, 0),
    "mount": (None, b"/\0", None, 0, None),
    "fsopen": (b"ext4\0", 0),
    "open_tree": (-100, b"/\0", 0),
    "ptrace": (0, 0, 0, 0),
    "keyctl": (0, 0, 0, 0, 0),
    "kexec_load": (0, 0, None, 0),
    "init_module": (None, 0, b"\0"),
    "open_by_handle_at": (-1, None, 0),
    "socket": (AF_ALG, SOCK_RAW, 0),
    "socket, vsock": (AF_VSOCK, SOCK_RAW, 0),
}


def test_t54_what_kernels_are_broken_by_is_out_of_reach(hostile: Hostile) -> None:
    container = hostile("sleep 100")
    container.start()

    def asks() -> bytes:
        calls = ((name.partition(",")[0], words) for name, words in FORBIDDEN.items())
        return b" ".join(b"%d" % raw(NUMBER[name], *words) for name, words in calls)

    answers = dict(zip(FORBIDDEN, map(int, enter.inside(container, asks).split()), strict=True))
    refused = {-errno.EPERM, -errno.ENOSYS, -errno.EAFNOSUPPORT}
    assert {name: answer for name, answer in answers.items() if answer not in refused} == {}
