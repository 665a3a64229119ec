"""A container's life, with real namespaces, cgroups and processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from glob import glob
from pathlib import Path

import pytest

from runtime import state
from runtime.container import Container, containers
from runtime.errors import ConfigError, ContainerError, LaunchError, ResourceError, StateError
from tests.kernel.conftest import log_of

pytestmark = pytest.mark.root

Make = Callable[..., Container]
WAITS = "/bin/sh -c 'trap \"exit 7\" TERM; echo up; while :; do sleep 0.1; done'"


def told(make: Make, script: str, *lines: str, **options: bool) -> list[str]:
    """Return the lines that `script` writes as the init of a container."""
    container = make("told", f"/bin/sh -c '{script}; echo end'", *lines, **options)
    container.start()
    assert container.wait("STOPPED", 60)
    return log_of(container, "end\n").split("\n")[:-2]


def leftovers(container: Container) -> list[str]:
    """Return what the host still has of a container: mounts, control groups, run state."""
    mounts = Path("/proc/self/mountinfo").read_text().split("\n")
    key = state.key(container.path, container.name)
    return [
        *(line for line in mounts if str(container.directory) in line),
        *glob(f"/sys/fs/cgroup/**/{key}", recursive=True),  # pathlib's minds what goes meanwhile
        *map(str, state.root().glob(f"{key.partition('.')[0]}/{container.name}.*")),
    ]


def test_a_container_runs_until_it_is_stopped(make: Make) -> None:
    container = make("life", WAITS)
    assert container.state() == "STOPPED"

    started = container.start()

    assert container.state() == "RUNNING"
    assert container.pid == started.pid
    log_of(container, "up")
    container.stop(5)
    assert container.state() == "STOPPED"
    assert container.exit_status == 7
    assert container.pid is None


def test_nothing_is_left_of_it_once_it_is_destroyed(make: Make) -> None:
    container = make("gone", WAITS)
    container.start()
    assert len(leftovers(container)) > 3

    container.destroy(force=True)

    assert leftovers(container) == []
    assert state.load(container.path, "gone") is None
    assert os.listdir(container.path / ".store/trash") == []
    assert os.listdir(container.path / ".store/ids") == []


def test_one_whose_record_a_newer_version_wrote_is_destroyed_all_the_same(make: Make) -> None:
    container = make("newer", WAITS)
    container.start()
    record = container.directory / "state.json"
    record.write_text(record.read_text().replace("{", '{"of tomorrow": [1],', 1))
    with pytest.raises(ResourceError, match=r"newer version: it has of tomorrow$"):
        container.stop()

    container.destroy(force=True)

    assert leftovers(container) == []
    assert os.listdir(container.path / ".store/ids") == []


def test_its_root_is_nobody_outside(make: Make) -> None:
    container = make("ids", WAITS)
    pid = container.start().pid

    assert os.stat(f"/proc/{pid}").st_uid == container.bundle.record.id_range[0]
    assert Path(f"/proc/{pid}/uid_map").read_text().split()[0] == "0"


def test_it_sees_only_its_own(make: Make) -> None:
    show = "id -u; hostname; cat /proc/self/cgroup /proc/mounts; echo processes"

    lines = told(make, f"{show}; for p in /proc/[0-9]*; do echo $p; done")

    assert lines[:2] == ["0", "told"]
    assert lines[lines.index("processes") + 1] == "/proc/1"
    assert len(lines) - lines.index("processes") <= 3
    assert not [line for line in lines if "mktemplate" in line]
    assert not [line for line in lines if "/containers" in line]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("cat /proc/self/status", "CapEff:\t00000000000400fb"),
        ("cat /proc/self/status", "CapInh:\t0000000000000000"),
        ("cat /proc/self/status", "CapBnd:\t00000000000400fb"),
        ("cat /proc/self/status", "NoNewPrivs:\t1"),
        ("cat /proc/self/status", "Seccomp:\t2"),
        ("cat /proc/1/status", "SigIgn:\t0000000000000000"),
        ("cat /proc/self/status", "SigBlk:\t0000000000000000"),
        ("echo /proc/self/fd/*", "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3"),
        ("umask", "0022"),
        ("ulimit -c", "0"),
        ("readlink /proc/self/fd/0", "/dev/null"),
        ("env", "container=mktemplate"),
        ("stat -c %t:%T /proc/timer_list /dev/null", "1:3"),
        ("stat -c %a /dev/shm", "1777"),
        ("cat /etc/hostname", "told"),
    ],
)
def test_what_its_init_starts_with(make: Make, script: str, line: str) -> None:
    assert line in told(make, script)


def test_an_environment_variable_of_the_host_stays_outside(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MKT_SECRET", "canary")

    lines = told(make, "env", "lxc.environment = GREETING=hello there")

    assert "GREETING=hello there" in lines
    assert not [line for line in lines if "canary" in line]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("mount -t tmpfs x /mnt", "permi"),
        ("umount /proc", "superuser"),
        ("mknod /run/x c 1 3", "not permitted"),
        ("echo 1 >/proc/sys/kernel/panic", "Read-only"),
        ("mkdir /sys/x", "Read-only"),
    ],
)
def test_what_it_may_not_do(make: Make, script: str, reason: str) -> None:
    lines = told(make, f"{script} 2>&1")

    assert any(reason.lower() in line.lower() for line in lines), lines


def test_without_lxc_idmap_there_is_no_user_namespace_as_in_lxc(make: Make) -> None:
    lines = told(make, "cat /proc/self/uid_map; touch /written", userns=False)

    assert lines[0].split() == ["0", "0", "4294967295"]


def test_a_read_only_root_cannot_be_written(make: Make) -> None:
    lines = told(make, "touch /x 2>&1; touch /run/x && echo run", "lxc.rootfs.options = ro")

    assert "Read-only file system" in lines[0]
    assert lines[1] == "run"


def test_a_plain_folder_is_a_root_too(make: Make, tiny: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(tiny), str(tmp_path / "flat")], check=True)

    lines = told(
        make,
        "stat -c %u /bin/sh; touch /made; stat -c %u /made",
        f"lxc.rootfs.path = dir:{tmp_path}/flat",
        "lxc.rootfs.options = idmap=container",
    )

    assert lines == ["0", "0"]
    assert (tmp_path / "flat/made").stat().st_uid == 0


@pytest.mark.parametrize(
    "line",
    [
        "lxc.rootfs.path = nbd:/dev/nbd0",
        "lxc.namespace.share.user = 1",
    ],
)
def test_a_key_that_would_have_no_effect_is_refused(make: Make, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make("refused", "/bin/true", line).start()

    assert caught.value.code == "E_CONFIG_KEY"


def test_what_is_left_out_is_said(make: Make) -> None:
    container = make("said", "/bin/sleep 1000", "lxc.tty.max = 4")

    assert "lxc.tty.max: no /dev/tty1 and up are made" in container.start().notes


def test_a_sysctl_is_set_in_its_own_network(make: Make) -> None:
    name = "net/ipv4/ip_unprivileged_port_start"
    before = Path(f"/proc/sys/{name}").read_text()

    lines = told(
        make, f"cat /proc/sys/{name}", "lxc.sysctl.net.ipv4.ip_unprivileged_port_start = 0"
    )

    assert lines == ["0"]
    assert Path(f"/proc/sys/{name}").read_text() == before


def test_a_hosts_folder_is_bound_where_the_entry_says(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("content\n")
    entry = f"lxc.mount.entry = {tmp_path}/data srv/deep/data none bind,ro,create=dir,idmap=container 0 0"

    lines = told(
        make,
        "cat /srv/deep/data/file; stat -c %u /srv/deep/data; touch /srv/deep/data/x 2>&1",
        entry,
    )

    assert lines[:2] == ["content", "0"]
    assert "Read-only" in lines[2]


@pytest.mark.parametrize("target", ["canary/x", "canary/new/deep"])
def test_a_target_behind_a_symlink_is_refused(make: Make, tmp_path: Path, target: str) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    container = make(
        "link", "/bin/true", f"lxc.mount.entry = /etc {target} none bind,create=dir 0 0"
    )
    (container.directory / "upper/canary").symlink_to(canary)

    with pytest.raises(LaunchError) as caught:
        container.start()

    assert caught.value.code == "E_MOUNT_TARGET"
    assert 'component "canary" is a symlink' in caught.value.detail
    assert list(canary.iterdir()) == []
    assert container.state() == "STOPPED"


def test_a_proc_that_is_a_symlink_is_refused(make: Make, tmp_path: Path) -> None:
    container = make("proc", "/bin/true")
    (container.directory / "upper/proc").symlink_to(tmp_path)

    with pytest.raises(ContainerError, match="E_ROOTFS_SYMLINK: proc"):
        container.start()


def test_an_optional_entry_that_cannot_be_mounted_is_left_out(make: Make) -> None:
    assert told(make, "echo up", "lxc.mount.entry = /nowhere mnt none bind,optional 0 0") == ["up"]


@pytest.mark.parametrize(
    ("init", "status", "words"),
    [
        ("/nowhere", 127, "not found in the rootfs"),
        ("/etc/passwd", 126, "not executable"),
        ("/bin/broken", 127, "its interpreter /no/such is missing"),
        ("/bin/text", 126, "no program for this machine"),
    ],
)
def test_a_program_that_cannot_be_executed_is_explained(
    make: Make, init: str, status: int, words: str
) -> None:
    container = make("bad", init)
    (container.directory / "upper/bin").mkdir()
    for name, body in (("broken", "#!/no/such\n"), ("text", "neither\n")):
        (container.directory / "upper/bin" / name).write_text(body)
        (container.directory / "upper/bin" / name).chmod(0o755)

    with pytest.raises(LaunchError, match=words) as caught:
        container.start()

    assert caught.value.status == status
    assert container.state() == "STOPPED"
    assert container.exit_status == status


def test_it_dies_with_its_monitor_and_the_rest_is_reclaimed(make: Make) -> None:
    container = make("orphan", WAITS)
    container.start()
    run = container.run
    assert run is not None

    assert run.monitor.send(signal.SIGKILL)

    assert container.wait("STOPPED", 30)
    container.recover()
    assert container.exit_status is None
    assert [found for found in leftovers(container) if "cgroup" in found or ".etc" in found] == []
    container.start()
    assert container.state() == "RUNNING"


def test_it_outlives_the_command_that_started_it(make: Make) -> None:
    container = make("alone", WAITS)
    code = "import sys; from runtime.container import Container; Container(*sys.argv[1:]).start()"

    subprocess.run(
        [sys.executable, "-c", code, str(container.path), container.name],
        check=True,
        timeout=20,
        cwd=Path(__file__).parents[2],
    )

    assert container.state() == "RUNNING"


def test_in_the_foreground_its_streams_are_the_callers(make: Make) -> None:
    container = make("front", "/bin/sh -c 'cat; exit 4'")
    code = (
        "import os, sys; from runtime.container import Container\n"
        "container = Container(*sys.argv[1:]); started = container.start(foreground=True)\n"
        "os.waitpid(started.monitor, 0); sys.exit(container.exit_status)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(container.path), container.name],
        input=b"through\n",
        stdout=subprocess.PIPE,
        timeout=20,
        cwd=Path(__file__).parents[2],
        check=False,
    )

    assert (done.stdout, done.returncode) == (b"through\n", 4)


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_in_the_foreground_it_may_open_what_it_writes_to(
    make: Make, tmp_path: Path, kind: str
) -> None:
    container = make("front", "/bin/sh -c 'echo out >/dev/stdout; echo err >/dev/stderr'")
    log = tmp_path / "log"
    log.touch()
    hears, speaks = {
        "file": lambda: (os.open(log, os.O_RDONLY), os.open(log, os.O_WRONLY)),
        "pipe": os.pipe,
        "socket": lambda: map(socket.socket.detach, socket.socketpair()),
    }[kind]()

    with open(speaks, "wb") as theirs:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mktemplate", "--path", container.path, "start", "--foreground", "front"],
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, timeout=60, cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False,
        )  # fmt: skip

    with open(hears, "rb") as file:
        said = file.read()
    assert (done.returncode, said) == (0, b"out\nerr\n")


def test_an_init_without_a_handler_is_not_waited_for(make: Make) -> None:
    container = make("deaf", "/bin/sleep 1000")
    container.start()
    began = time.monotonic()

    container.stop(10)

    assert time.monotonic() - began < 2
    assert container.exit_status == 137


def test_an_init_that_does_not_listen_is_killed_in_the_end(make: Make) -> None:
    container = make("stubborn", "/bin/sh -c 'trap : TERM; echo up; while :; do sleep 0.1; done'")
    container.start()
    log_of(container, "up")

    container.stop(0.3)

    assert container.state() == "STOPPED"


def test_frozen_it_stands_still_and_can_be_killed(make: Make) -> None:
    container = make("ice", WAITS)
    container.start()

    container.freeze()
    assert container.state() == "FROZEN"
    container.unfreeze()
    assert container.state() == "RUNNING"
    container.freeze()
    container.kill()

    assert container.state() == "STOPPED"


def test_a_signal_reaches_its_init(make: Make) -> None:
    container = make("signal", WAITS)
    container.start()
    log_of(container, "up")

    container.kill(signal.SIGTERM)

    assert container.wait("STOPPED", 30)
    assert container.exit_status == 7


def test_whoever_waits_is_woken(make: Make) -> None:
    container = make("brief", "/bin/sleep 0.2")
    container.start()

    assert not container.wait("STOPPED", 0.01)
    assert container.wait("STOPPED", 30)


def test_a_running_container_is_neither_started_nor_destroyed(make: Make) -> None:
    container = make("busy", WAITS)
    container.start()

    with pytest.raises(StateError, match="E_RUNNING"):
        container.start()
    with pytest.raises(StateError, match="E_RUNNING"):
        container.destroy()


def test_one_with_a_mount_below_it_is_not_destroyed(make: Make) -> None:
    container = make("mounted", "/bin/true")
    place = container.directory / "upper/place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", str(place)], check=True)
    try:
        with pytest.raises(StateError, match=r"still contains a mount at .*/place"):
            container.destroy()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_what_does_not_run_cannot_be_stopped(make: Make) -> None:
    with pytest.raises(StateError, match="E_NOTRUNNING"):
        make("still", "/bin/true").stop()
    with pytest.raises(StateError, match="E_NOTFOUND"):
        Container("/nowhere", "nobody").stop()


def test_two_commands_do_not_work_on_it_at_once(make: Make) -> None:
    container = make("held", "/bin/true")

    with (
        state.lock(container.path, "held"),
        pytest.raises(ResourceError, match="E_LOCKED"),
        state.lock(container.path, "held", wait=False),
    ):
        pass


def test_containers_are_listed_by_name(make: Make) -> None:
    for name in ("b", "a"):
        make(name, "/bin/true")

    [path] = {container.path for container in containers(make("c", "/bin/true").path)}
    assert [container.name for container in containers(path)] == ["a", "b", "c"]


def test_no_two_containers_share_an_id(make: Make) -> None:
    ranges = {make(f"n{number}", "/bin/true").bundle.record.id_range for number in range(20)}

    assert len(ranges) == 20
