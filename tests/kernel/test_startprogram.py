"""A start program starts, watches and tells as the Python performer does: each test executes one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runtime import birth, failurewords, startprogram
from runtime.duties import Duties
from runtime.errors import ContainerError
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.program import Call, Expect, Failure, Out, Pointer, Program, Slot, Struct
from runtime.state import Identity
from runtime.way import die_with_parent

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="this machine lacks an x86-64 processor"
    ),
]

AT_FDCWD = -100
STATUSES = {"E_MOUNT_SOURCE": 5, "E_INIT_DIED": 9}
Run = Callable[..., subprocess.Popen[bytes]]


def clone(flags: int = ns.CLONE_NEWPID) -> Call:
    return Call(
        name="clone", args=(flags | ns.CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0), result="init"
    )


def execute(*argv: str) -> tuple[Call, ...]:
    """Give init its three streams, and nothing else; then execute `argv`."""
    vector = Struct(f"@{len(argv) + 1}P", (*(Pointer(f"{a}\0".encode()) for a in argv), 0))
    return (
        *die_with_parent(),
        *(
            Call(name="dup3", args=(Slot(name), number, 0))
            for number, name in enumerate(("stdin", "stdout", "stderr"))
        ),
        Call(name="close_range", args=(3, 0xFFFFFFFF, process.CLOSE_RANGE_CLOEXEC)),
        Call(
            name="execve",
            args=(f"{argv[0]}\0".encode(), vector, Struct("@P", (0,))),
            failure=Failure("E_INIT_DIED", argv[0]),
        ),
    )


GO = Call(name="write", args=(Slot("go_write"), b"g", 1))
WAIT = Call(name="read", args=(Slot("go_read"), Out(1), 1), expect=(Expect(0, 1, ord("g")),))


def program(*init: Call, stage: tuple[Call, ...] = (), host: tuple[Call, ...] = ()) -> Program:
    return Program(stage=(*stage, clone()), host=(*host, GO), init=(WAIT, *init))


def shell(script: str) -> Program:
    return program(*execute("/bin/sh", "-c", script))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Run]:
    """Execute a Program's start program; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def start(made: Program, *arguments: str, **duties: object) -> subprocess.Popen[bytes]:
        path = tmp_path / "start"
        settled = Duties(name="web", log=tmp_path / "log", **duties)  # type: ignore[arg-type]
        path.write_bytes(startprogram.write(made, settled, lambda code: STATUSES.get(code, 70)))
        path.chmod(0o755)
        process_ = subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process_)
        return process_

    yield start
    for process_ in running:
        process_.kill()
        process_.communicate()


def ended(started: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = started.communicate(timeout=10)
    return started.returncode, out.decode(), err.decode()


def init_of(monitor: subprocess.Popen[bytes]) -> int:
    """Return the pid of init; before it, the stage may be there still."""
    children = Path(f"/proc/{monitor.pid}/task/{monitor.pid}/children").read_text().split()
    return int(children[-1])


def until(file: Path, words: str) -> str:
    """Return the text of `file` once `words` are in it."""
    deadline = time.monotonic() + 60
    watch = process.inotify_init1(process.IN_CLOEXEC)
    try:
        process.inotify_add_watch(watch, str(file.parent), 0x2 | process.IN_MOVED_TO)
        while not file.exists() or words not in file.read_text():
            assert select.select([watch], [], [], deadline - time.monotonic())[0], words
            os.read(watch, 4096)
        return file.read_text()
    finally:
        os.close(watch)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("ulimit -c 0; kill -ABRT $$", None), ("exit 255", 255)],
)
def test_in_the_foreground_its_status_is_inits(
    script: str, status: int | None, started: Run
) -> None:
    code, _, err = ended(started(shell(script)))

    assert err == ""
    assert code == (0 if status is None else status)  # pid 1 is not killed by its own signal


def test_a_killed_init_is_128_and_the_signal(started: Run) -> None:
    monitor = started(shell("echo $PPID; exec sleep 100"))
    assert monitor.stdout is not None
    monitor.stdout.readline()
    os.kill(init_of(monitor), signal.SIGKILL)

    assert ended(monitor)[0] == 128 + signal.SIGKILL


def test_init_has_the_streams_of_who_starts_it_in_the_foreground(started: Run) -> None:
    _, out, err = ended(started(shell("echo to out; echo to err >&2; ls -l /proc/self/fd | wc -l")))

    assert out == "to out\n5\n"  # a heading, 0, 1, 2, and that of ls
    assert err == "to err\n"


def test_init_gets_no_signal_ignored_or_blocked(started: Run) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    try:
        _, out, _ = ended(started(program(*execute("/bin/cat", "/proc/thread-self/status"))))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    masks = dict(line.split(":\t") for line in out.splitlines() if line.startswith("Sig"))
    assert int(masks["SigIgn"], 16) == int(masks["SigBlk"], 16) == 0


OPEN = Failure("E_MOUNT_SOURCE", "/srv/a\nb", "must be there", hints=("make it", "or not"))


def opening(path: bytes, failure: Failure | None = OPEN) -> Call:
    return Call(name="openat", args=(AT_FDCWD, path, 0), failure=failure)


LOOKING = Call(
    name="fstatfs",
    args=(0, Out(120)),
    expect=(Expect(0, 8, 1),),
    unexpected=Failure("E_MOUNT_SOURCE", "stdin", "is no file system of mine"),
)
SCRIPT = Path(tempfile.gettempdir()) / f"mktemplate-test-{os.getpid()}"
FAILING = {
    "in the stage": program(stage=(opening(b"/nonexistent\0"),)),
    "in the host's part": program(host=(opening(b"/etc/passwd/x\0"),)),
    "in init": program(opening(b"/proc/self/mem/x\0")),
    "without words": program(opening(b"/nonexistent\0", None)),
    "with an unexpected answer": program(LOOKING),
    "with an unexpected answer in the stage": program(stage=(LOOKING,)),
    "at execve, as nothing is there": program(*execute("/nonexistent")),
    "at execve, as it is a folder": program(*execute("/etc")),
    "at execve, as a script's interpreter is missing": program(*execute(str(SCRIPT))),
    "at execve, as it is no program": program(*execute("/etc/hostname")),
}


@pytest.mark.parametrize("made", FAILING.values(), ids=FAILING.keys())
@pytest.mark.parametrize("arguments", [(), ("detach",)], ids=["foreground", "detached"])
def test_a_failure_is_told_in_the_words_of_the_python_performer(
    made: Program, arguments: tuple[str, ...], started: Run
) -> None:
    SCRIPT.write_text("#!  /no/such -x\n")
    SCRIPT.chmod(0o755)
    try:
        error = python_says(made)
        status, out, err = ended(started(made, *arguments))
    finally:
        SCRIPT.unlink()

    assert err == failurewords.text(error.code, error.subject, error.detail, error.hints)
    assert out == ""
    execve = getattr(error, "status", 125) if error.code == "E_INIT_DIED" else 125
    assert status == (execve if execve != 125 else STATUSES.get(error.code, 70))


def python_says(made: Program) -> ContainerError:
    """Return what the Python performer raises for a Program that fails."""
    names = ("stdin", "stdout", "stderr")
    slots = {name: fcntl.fcntl(n, fcntl.F_DUPFD_CLOEXEC, 10) for n, name in enumerate(names)}
    try:
        born = birth.bear(made, "web", lambda *_: os._exit(0), slots)
    except ContainerError as error:
        return error
    finally:
        for descriptor in slots.values():
            os.close(descriptor)
    try:
        return birth.failure(made, born.heard(), "web")
    finally:
        born.wait()
        born.close()


def test_with_an_argument_it_returns_when_init_runs_and_keeps_the_log(
    tmp_path: Path, started: Run
) -> None:
    status, out, err = ended(started(shell("echo one; echo two >&2"), "detach"))

    assert (status, out, err) == (0, "", "")
    assert until(tmp_path / "log", "two") == "one\ntwo\n"


def test_who_started_it_is_held_by_no_descriptor_while_it_runs(
    tmp_path: Path, started: Run
) -> None:
    end = tmp_path / "end"
    os.mkfifo(end)

    assert ended(started(shell(f"echo up; read x < {end}; echo $x"), "detach")) == (0, "", "")
    end.write_text("down\n")

    assert until(tmp_path / "log", "down") == "up\ndown\n"


def test_a_link_in_the_logs_place_is_refused(tmp_path: Path, started: Run) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")

    status, _, err = ended(started(shell("echo one"), "detach"))

    assert status == 70
    assert err.startswith(f"mktemplate: error[E_IO]: {tmp_path}/log: openat: ")
    assert not (tmp_path / "elsewhere").exists()


def test_a_log_that_is_full_begins_anew(tmp_path: Path, started: Run) -> None:
    size = (16 << 20) - 1000
    with open(tmp_path / "log", "wb") as file:
        file.truncate(size)

    ended(started(shell("head -c 3000 /dev/zero; exec 2>&1; sleep .1; echo new"), "detach"))

    assert until(tmp_path / "log", "new") == "new\n"
    assert (tmp_path / "log.1").stat().st_size == size + 3000


def test_who_asks_the_monitor_to_end_asks_init_with_its_own_signal(started: Run) -> None:
    monitor = started(
        shell("trap 'echo asked; exit 3' USR2; echo ready; while :; do sleep .05; done"),
        stop_signal=signal.SIGUSR2,
    )
    assert monitor.stdout is not None
    monitor.stdout.readline()
    monitor.terminate()

    assert ended(monitor)[:2] == (3, "asked\n")


def test_a_stage_that_is_killed_takes_init_with_it(started: Run) -> None:
    waiting = Call(name="ppoll", args=(None, 0, None, None, 8))
    monitor = started(program(*execute("/bin/sleep", "1000"), host=(waiting,)))
    stage, init = wait_for_children(monitor, 2)
    pidfd = os.pidfd_open(init)
    os.kill(stage, signal.SIGKILL)

    assert ended(monitor)[0] == 128 + signal.SIGKILL
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


def wait_for_children(monitor: subprocess.Popen[bytes], count: int) -> list[int]:
    """Return the pids of the children, once there are `count`."""
    file = Path(f"/proc/{monitor.pid}/task/{monitor.pid}/children")
    deadline = time.monotonic() + 60
    while len(pids := file.read_text().split()) < count:
        assert time.monotonic() < deadline
        os.sched_yield()
    return [int(pid) for pid in pids]


def test_init_dies_with_its_monitor(started: Run) -> None:
    monitor = started(shell("echo ready; exec sleep 1000"))
    assert monitor.stdout is not None
    monitor.stdout.readline()
    pidfd = os.pidfd_open(init_of(monitor))

    monitor.kill()

    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


def test_a_waiting_monitor_needs_less_than_64_kilobytes(started: Run) -> None:
    monitor = started(shell("echo ready; exec sleep 1000"))
    assert monitor.stdout is not None
    monitor.stdout.readline()
    rollup = Path(f"/proc/{monitor.pid}/smaps_rollup").read_text()

    [pss] = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    assert pss <= 64


def test_its_state_names_two_processes_and_then_the_status(tmp_path: Path, started: Run) -> None:
    state = tmp_path / "paths" / "web.json"
    state.parent.mkdir()
    monitor = started(
        shell("trap 'exit 4' TERM; echo ready; while :; do sleep .05; done"),
        state=state,
        running='{"monitor": %s, "init": %s%s}',
        stopped='{"status": %d}',
    )
    assert monitor.stdout is not None
    monitor.stdout.readline()
    running = json.loads(until(state, "init"))
    pids = [monitor.pid, init_of(monitor)]
    expected = [asdict(Identity.of(pid)) for pid in pids]
    monitor.terminate()
    code = ended(monitor)[0]

    assert [running["monitor"], running["init"]] == expected
    assert code == 4
    assert json.loads(state.read_text()) == {"status": 4}
    assert sorted(os.listdir(state.parent)) == ["web.json", "web.lock"]


def test_what_it_took_is_given_back_whatever_happens(tmp_path: Path, started: Run) -> None:
    for made in (shell("exit 0"), FAILING["in the stage"], FAILING["in init"]):
        group = os.fsencode(tmp_path / "group") + b"\0"
        monitor = started(
            made,
            prepare=(Call(name="mkdirat", args=(AT_FDCWD, group, 0o755)),),
            release=(
                Call(name="rmdir", args=(b"/nonexistent\0",)),
                Call(name="rmdir", args=(group,)),
            ),
        )

        ended(monitor)

        assert not (tmp_path / "group").exists()


def test_who_may_not_start_it_gives_nothing_back(tmp_path: Path, started: Run) -> None:
    state = tmp_path / "web.json"
    state.write_text("of another")
    group = os.fsencode(tmp_path / "group") + b"\0"
    os.mkdir(tmp_path / "group")
    monitor = started(
        shell("echo ran"),
        state=state,
        claim=(Call(name="mkdirat", args=(AT_FDCWD, group, 0o755)),),
        release=(Call(name="unlinkat", args=(AT_FDCWD, group, 0x200)),),
    )

    assert ended(monitor) == (
        70,
        "",
        "mktemplate: error[E_KERNEL_FEATURE]: web: mkdirat: File exists\n",
    )
    assert (tmp_path / "group").exists()
    assert state.read_text() == "of another"


def test_a_sealed_one_runs_from_a_copy_that_not_even_root_can_write_to(started: Run) -> None:
    """CVE-2019-5736: without a user namespace the container's root is the owner of the file."""
    monitor = started(shell("echo ready; exec sleep 1000"), sealed=True)
    assert monitor.stdout is not None
    monitor.stdout.readline()
    executable = f"/proc/{monitor.pid}/exe"

    assert os.readlink(executable) == "/memfd:mktemplate (deleted)"
    for flags in (os.O_WRONLY, os.O_RDWR):
        with pytest.raises(OSError, match=r"busy|not permitted"):
            os.open(executable, flags)
    descriptor = os.open(executable, os.O_RDONLY)
    monitor.kill()
    monitor.wait()
    with pytest.raises(PermissionError):
        os.write(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR), b"x")


def test_a_sealed_one_is_what_it_is_without_seals(tmp_path: Path, started: Run) -> None:
    assert ended(started(shell("echo one; exit 3"), sealed=True)) == (3, "one\n", "")
    assert ended(started(shell("echo two"), "detach", sealed=True)) == (0, "", "")
    assert until(tmp_path / "log", "two") == "two\n"
    assert ended(started(FAILING["in init"], sealed=True))[0] == 5


def test_helpers_map_ids_with_the_pid_of_init(tmp_path: Path, started: Run) -> None:
    script = f"echo $* >> {tmp_path}/mapped"
    made = replace(
        shell("exit 3"),
        maps=(("/bin/sh", "-c", script, "sh", "%d", "0", "100%", "1"), ("/bin/true", "%d")),
    )
    status, _, err = ended(started(made))

    assert (status, err) == (3, "")
    pid, *rest = (tmp_path / "mapped").read_text().split()
    assert int(pid) > 1
    assert rest == ["0", "100%", "1"]


def test_a_helper_that_refuses_the_map_ends_the_start(started: Run) -> None:
    made = replace(shell("exit 3"), maps=(("/bin/true", "%d"), ("/bin/false", "%d", "0", "1000")))

    status, _, err = ended(started(made))

    error = python_says(made)
    assert err == failurewords.text(error.code, error.subject, error.detail, error.hints)
    assert status == 70


NETWORKED = (
    Call(name="write", args=(Slot("born"), b"b", 1)),
    Call(
        name="read",
        args=(Slot("net_go"), Out(1), 1),
        expect=(Expect(0, 1, ord("g")),),
        unexpected=Failure("E_INIT_DIED", "monitor", "it ended before its time"),
    ),
)


def test_one_with_a_network_leaves_it_to_python(started: Run) -> None:
    made = program(*NETWORKED, *execute("/bin/echo", "on the net"))
    instead = ("/bin/sh", "-c", "echo instead $*; exit 3", "sh")

    assert ended(started(made, network=True, instead=instead)) == (3, "instead\n", "")


def test_a_stale_one_leaves_it_to_python(tmp_path: Path, started: Run) -> None:
    (tmp_path / "config").write_text("one")
    status = (tmp_path / "config").stat()
    look = (status.st_ino, status.st_size, status.st_mtime_ns)
    duties: dict[str, object] = {
        "basis": ((str(tmp_path / "config"), look), (str(tmp_path / "fstab"), ())),
        "boot": Identity.of(1).boot_id,
        "instead": ("/bin/sh", "-c", "echo instead $*", "sh"),
    }

    assert ended(started(shell("echo itself"), **duties)) == (0, "itself\n", "")
    (tmp_path / "fstab").touch()
    assert ended(started(shell("echo itself"), **duties)) == (0, "instead\n", "")
    (tmp_path / "fstab").unlink()
    other = {**duties, "boot": "0" * 36}
    assert ended(started(shell("echo itself"), **other)) == (0, "instead\n", "")
    os.utime(tmp_path / "config", ns=(0, status.st_mtime_ns + 1))
    assert ended(started(shell("echo itself"), **duties)) == (0, "instead\n", "")
    assert ended(started(shell("echo itself"), "detach", **duties)) == (0, "instead detach\n", "")
    nowhere = {**duties, "instead": ("/nonexistent",)}
    assert "no Python is there" in ended(started(shell("echo itself"), **nowhere))[2]


def test_at_the_very_end_it_runs_a_program(tmp_path: Path, started: Run) -> None:
    script = f"grep Sig /proc/self/status > {tmp_path}/signals"
    status, _, _ = ended(started(shell("exit 4"), finish=("/bin/sh", "-c", script)))

    assert status == 4
    masks = dict(line.split(":\t") for line in (tmp_path / "signals").read_text().splitlines())
    assert int(masks["SigBlk"], 16) == int(masks["SigIgn"], 16) == 0


def test_nothing_of_the_callers_reaches_the_container(tmp_path: Path, started: Run) -> None:
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        _, out, _ = ended(started(shell("ls /proc/self/fd; echo $$")))
    finally:
        os.close(leak)

    assert out.split() == ["0", "1", "2", "3", "1"]


def test_errno_of_a_kernel_that_is_newer_than_its_words_is_not_needed() -> None:
    assert max(errno.errorcode) < 0xFF
