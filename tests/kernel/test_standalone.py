"""A container started by its start program is the container that Python starts."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from glob import glob
from pathlib import Path

import pytest

from runtime import byprogram, hierarchy, standalone, startfile, state
from runtime.container import Container
from runtime.errors import ContainerError, StateError
from runtime.kernel.libc import MACHINE
from tests.kernel.conftest import log_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(MACHINE != "x86_64", reason="this machine lacks an x86-64 processor"),
]

Make = Callable[..., Container]
WAITS = "/bin/sh -c 'trap \"exit 7\" TERM; echo up; while :; do sleep 0.1; done'"
REMOVES = """\
import os, signal, sys
ended, taken = [], dict.fromkeys(sys.argv[1:], 0)
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended:
    for folder in taken:
        try:
            if os.stat(folder).st_nlink > 2:
                taken[folder] = 0
            elif taken[folder] < 4:
                os.rmdir(folder)
                taken[folder] += 1
                os.write(1, b".")
        except OSError:
            pass
"""  # as the ends of four last containers do
LOOKS = {
    "who it is": "cat /proc/self/status",
    "what it may use": "ulimit -a; cat /proc/1/limits",
    "its mounts": "cat /proc/self/mountinfo",
    "its devices": "ls -ln --time-style=+ /dev /dev/pts /dev/shm",
    "its files": "ls -ln --time-style=+ / /proc/sys /sys; cat /etc/hosts /etc/hostname /etc/resolv.conf",
    "its descriptors": "ls -l --time-style=+ /proc/1/fd",
    "its control groups": "cat /proc/self/cgroup",
    "its environment": "env; pwd; umask; hostname",
    "its processes": "ps ax -o pid,ppid,sid,pgid,args",
    "its ids": "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups",
    "its network": "ls /sys/class/net; cat /proc/net/if_inet6 /sys/class/net/lo/flags",
}


def written(container: Container) -> Path:
    start = container.directory / "start"
    with container._locked():
        standalone.write(container._place, container._look(), start)
    return start


def start_it(start: Path) -> None:
    """Execute a start program by hand, detached."""
    done = subprocess.run([start, "detach"], stderr=subprocess.PIPE, timeout=10)
    if done.returncode:
        raise byprogram.meant(done.stderr.decode(), done.returncode, start)


def leftovers(container: Container) -> list[str]:
    """Return what the host still has of a stopped container: mounts, control groups, files for /etc."""
    mounts = Path("/proc/self/mountinfo").read_text().split("\n")
    key = state.key(container.path, container.name)
    return [
        *(line for line in mounts if str(container.directory) in line),
        *glob(f"/sys/fs/cgroup/**/{key}", recursive=True),  # pathlib's minds what goes meanwhile
        *map(str, state.root().glob(f"{key.partition('.')[0]}/{container.name}.etc")),
    ]


@pytest.mark.parametrize("script", LOOKS.values(), ids=LOOKS.keys())
@pytest.mark.parametrize("userns", [True, False], ids=["mapped", "not mapped"])
def test_from_inside_both_look_the_same(script: str, userns: bool, make: Make) -> None:
    seen = []
    shows = f"/bin/sh -c '{script}; echo end'"
    container = make("same", shows, "lxc.net.0.flags = up", userns=userns)
    by_program = written(container)
    for start in (container.start, lambda: start_it(by_program)):
        start()
        assert container.wait("STOPPED", 60)
        seen.append(neutral(log_of(container, "end\n")))
        (container.directory / "log").unlink()

    assert seen[0] == seen[1]
    assert len(seen[0]) > 1


def neutral(text: str) -> list[str]:
    """Return lines without what differs between any two starts: numbers of mounts, pipes, times."""
    ways = {
        r"(?m)^\d+ \d+ \d+:\d+ ": "",  # of a mount, its parent and its device
        "uuid=on,": "",  # an upper's first mount
        r"(?m)^(d\S+) +\d+ (.* proc)$": r"\1 \2",  # as many links as processes
        r" +": " ",  # ... and as many digits widen the column of all
        r"pipe:\[\d+\]": "pipe",
        r"\b\d\d:\d\d\b": "time",
        r"(?m)^(VmSize|VmPeak|Vm\w+|RssAnon|RssFile|RssShmem|(non)?voluntary_ctxt\w+|Sig[QP]\w*):.*$": "",
        r"(?m)^total \d+$": "",
    }
    for pattern, replacement in ways.items():
        text = re.sub(pattern, replacement, text)
    return text.split("\n")


def test_everybody_sees_it_run_and_end(make: Make) -> None:
    container = make("life", WAITS)
    start_it(written(container))

    assert container.state() == "RUNNING"
    assert container.pid is not None
    log_of(container, "up")
    container.freeze()
    assert container.state() == "FROZEN"
    container.unfreeze()
    container.stop(5)
    assert container.state() == "STOPPED"
    assert container.exit_status == 7
    assert leftovers(container) == []


def test_a_running_container_is_not_started_again(make: Make) -> None:
    container = make("once", WAITS)
    start = written(container)
    start_it(start)
    pid = container.pid

    with pytest.raises(StateError, match="is running already") as caught:
        start_it(start)

    assert caught.value.code == "E_RUNNING"
    assert container.pid == pid
    assert container.state() == "RUNNING"
    assert leftovers(container) != []


def test_ends_of_others_do_not_take_the_folder_above_its_groups_away(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hierarchy, "PARENT", f"mktemplate-test-{os.getpid()}")
    container = make("between", WAITS)
    by_program = written(container)
    parents = [f"{tree.path}/{hierarchy.PARENT}" for tree in hierarchy.mounted()]
    ending = subprocess.Popen([sys.executable, "-c", REMOVES, *parents], stdout=subprocess.PIPE)
    try:
        for _ in range(40):
            start_it(by_program)
            container.stop(0)
    finally:
        ending.terminate()

    assert ending.communicate()[0]


def test_what_python_started_is_not_started_again(make: Make) -> None:
    container = make("both", WAITS)
    start = written(container)
    container.start()

    with pytest.raises(StateError, match="is running already"):
        start_it(start)


def test_after_the_monitor_was_killed_it_starts_again(make: Make) -> None:
    container = make("killed", WAITS)
    start = written(container)
    start_it(start)
    run = container.run
    assert run is not None
    pidfd = os.pidfd_open(run.init.pid)
    os.kill(run.monitor.pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)

    start_it(start)

    assert container.state() == "RUNNING"
    assert container.pid != run.init.pid


@pytest.mark.parametrize(
    ("init", "lines", "words"),
    [
        ("/nonexistent", (), "not found in the rootfs"),
        ("/etc/passwd", (), "not executable"),
        ("/bin/true", ("lxc.mount.entry = /nonexistent mnt none bind 0 0",), "/nonexistent"),
        ("/bin/true", ("lxc.mount.entry = /etc nowhere/x none bind 0 0",), "nowhere"),
        ("/bin/true", ("lxc.init.cwd = /nonexistent",), "/nonexistent"),
        ("/bin/true", ("lxc.init.uid = 70000",), "not mapped"),
    ],
)
def test_both_refuse_in_the_same_words_and_leave_nothing(
    init: str, lines: tuple[str, ...], words: str, make: Make
) -> None:
    container = make("refused", init, *lines)
    said = []
    start = written(container)
    for begin in (container.start, lambda: start_it(start)):
        with pytest.raises(ContainerError, match=re.escape(words)) as caught:
            begin()
        error = caught.value
        said.append((type(error), error.code, error.subject, error.detail, error.hints))
        assert container.state() == "STOPPED"
        assert leftovers(container) == []

    assert said[0] == said[1]


def test_without_a_user_namespace_it_runs_from_a_sealed_copy(make: Make) -> None:
    container = make("sealed", WAITS, userns=False)
    start_it(written(container))
    run = container.run
    assert run is not None

    assert os.readlink(f"/proc/{run.monitor.pid}/exe") == "/memfd:mktemplate (deleted)"


def test_executed_by_hand_it_stays_and_its_status_is_inits(make: Make) -> None:
    container = make("hand", "/bin/sh -c 'echo here; exit 5'")

    done = subprocess.run([written(container)], capture_output=True, timeout=10)

    assert (done.returncode, done.stdout, done.stderr) == (5, b"here\n", b"")
    assert container.exit_status == 5


@pytest.mark.parametrize("words", [(), ("detach",)], ids=["foreground", "detached"])
def test_executed_by_hand_when_it_is_stale_it_is_written_anew(
    words: tuple[str, ...], make: Make
) -> None:
    container = make("anew", "/bin/sh -c 'echo $A; exit 5'")
    start = written(container)
    with open(container.directory / "config", "a") as file:
        file.write("lxc.environment = A=changed\n")

    done = subprocess.run([start, *words], capture_output=True, timeout=30)

    if words:
        assert (done.returncode, done.stderr) == (0, b"")
        assert log_of(container, "changed") == "changed\n"
    else:
        assert (done.returncode, done.stdout, done.stderr) == (5, b"changed\n", b"")
    assert startfile.current(start)


def test_a_start_in_the_foreground_as_typed_needs_no_python(make: Make) -> None:
    container = make("typed", "/bin/sh -c 'echo here; exit 5'")
    written(container)
    script = Path(__file__).parents[2] / "scripts" / "mktemplate"
    environment = {"MKTEMPLATE_PATH": str(container.path), "PATH": "/nonexistent"}

    done = subprocess.run(
        ["/bin/sh", script, "start", "--foreground", "typed"],
        capture_output=True,
        timeout=10,
        env=environment,
    )

    assert (done.returncode, done.stdout, done.stderr) == (5, b"here\n", b"")


def test_it_is_known_to_be_stale_when_the_config_has_changed(make: Make) -> None:
    container = make("stale", "/bin/true")
    start = written(container)
    assert startfile.current(start)

    with open(container.directory / "config", "a") as file:
        file.write("lxc.environment = A=b\n")

    assert not startfile.current(start)
