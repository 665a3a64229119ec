"""A start program is executed and understood."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import byprogram, hierarchy, launch, standalone, startprogram
from runtime.duties import Duties
from runtime.errors import ContainerError, HostError, LaunchError
from runtime.kernel import mount
from runtime.kernel import namespace as ns
from runtime.program import Call, Expect, Failure, Out, Pointer, Program, Slot, Struct
from runtime.startentry import GROUP
from tests.conftest import children
from valuetypes import replace

pytestmark = pytest.mark.root

NO_FILE = Call(
    name="openat",
    args=(-100, b"/nonexistent\0", 0),
    failure=Failure("E_SECCOMP", "filter", "the kernel refuses it", hints=("one", "two")),
)


def waits(slot: str, word: bytes) -> Call:
    return Call(
        name="read",
        args=(Slot(slot), Out(1), 1),
        expect=(Expect(0, 1, word[0]),),
        unexpected=Failure("E_INIT_DIED", "monitor", "it ended before its time"),
    )


def program(*init: Call) -> Program:
    flags = ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_PARENT | signal.SIGCHLD
    return Program(
        stage=(Call(name="clone", args=(flags, 0, 0, 0, 0), result="init"),),
        host=(Call(name="write", args=(Slot("go_write"), b"g", 1)),),
        init=(waits("go_read", b"g"), *init),
    )


def written(path: Path, made: Program, **duties: object) -> Path:
    settled = Duties(name="web", log=path / "log", **duties)  # type: ignore[arg-type]
    start = path / "start"
    start.write_bytes(startprogram.write(made, settled, lambda _: 70))
    start.chmod(0o755)
    return start


def start_it(
    start: Path, attach: Callable[[int, int], dict[str, object]] | None = None, **more: object
) -> None:
    with open(start.with_name("lock"), "w") as lock:
        byprogram.start(start, lock.fileno(), attach, **more)


EXECUTE = Call(
    name="execve", args=(b"/bin/true\0", None, None), failure=Failure("E_INIT_DIED", "/bin/true")
)
SLEEP = Call(
    name="execve",
    args=(
        b"/bin/sleep\0",
        Struct("@3P", (Pointer(b"sleep\0"), Pointer(b"1000\0"), 0)),
        Struct("@P", (0,)),
    ),
)
RUNNING = '{"monitor": %s, "init": %s%s}'
NETWORK = (Call(name="write", args=(Slot("born"), b"b", 1)), waits("net_go", b"g"))


def test_it_returns_once_init_runs(tmp_path: Path) -> None:
    start_it(written(tmp_path, program(EXECUTE)))


def test_what_is_added_goes_into_the_state(tmp_path: Path) -> None:
    start = written(tmp_path, program(SLEEP), state=tmp_path / "state", running=RUNNING)
    start_it(start, started="then", notes=["é", 'a "quoted" one'])

    running = json.loads((tmp_path / "state").read_text())
    os.kill(running["init"]["pid"], signal.SIGKILL)
    assert (running["started"], running["notes"]) == ("then", ["é", 'a "quoted" one'])


def test_with_streams_the_monitor_is_our_child_and_ends_as_init_does(tmp_path: Path) -> None:
    vector = (Pointer(b"sh\0"), Pointer(b"-c\0"), Pointer(b"echo said; exit 6\0"), 0)
    shell = Call(name="execve", args=(b"/bin/sh\0", Struct("@4P", vector), None))
    streams = (Call(name="dup3", args=(Slot("stdout"), 1, 0)), shell)
    start = written(tmp_path, program(*streams), state=tmp_path / "state", running=RUNNING)
    with open(tmp_path / "out", "wb+") as out, open(tmp_path / "lock", "w") as lock:
        stdio = (0, out.fileno(), out.fileno())
        monitor = byprogram.start(start, lock.fileno(), None, stdio, started="then")
        _, status = os.waitpid(monitor, 0)

    assert os.waitstatus_to_exitcode(status) == 6
    assert (tmp_path / "out").read_text() == "said\n"


def test_with_streams_a_failure_is_raised_all_the_same(tmp_path: Path) -> None:
    start = written(tmp_path, program(NO_FILE))
    with open(tmp_path / "lock", "w") as lock, pytest.raises(HostError, match="refuses it"):
        byprogram.start(start, lock.fileno(), None, (0, 1, 2))


def test_a_starter_that_is_killed_takes_the_start_with_it(tmp_path: Path) -> None:
    start = written(tmp_path, program(*NETWORK, SLEEP), network=True)
    inits = []
    before = children()

    def attach(_: int, init: int) -> dict[str, object]:
        inits.append(os.pidfd_open(init))
        [starter] = children() - before
        os.kill(int(starter), signal.SIGKILL)
        os.waitid(os.P_PID, int(starter), os.WEXITED | os.WNOWAIT)
        return {}

    with pytest.raises(LaunchError):
        start_it(start, attach)

    assert select.select(inits, [], [], 10)[0], "nobody would have heard of it"
    os.close(inits[0])


def test_what_is_too_much_for_the_state_is_left_out(tmp_path: Path) -> None:
    start = written(tmp_path, program(SLEEP), state=tmp_path / "state", running=RUNNING)
    start_it(start, started="then", notes=["long"] * 2000, ips=["1"])

    running = json.loads((tmp_path / "state").read_text())
    os.kill(running["init"]["pid"], signal.SIGKILL)
    assert (running["started"], running["ips"]) == ("then", ["1"])
    assert "notes" not in running


def test_where_nothing_may_be_executed_it_runs_from_memory(tmp_path: Path) -> None:
    start = written(tmp_path, program(EXECUTE))
    child = os.fork()
    if child == 0:
        try:
            ns.unshare(ns.CLONE_NEWNS)
            mount.mount_setattr(-100, "/", 0x8000, mount.mount_attributes(0, 0, mount.MS_PRIVATE))
            folder = mount.open_tree(-100, str(tmp_path), mount.OPEN_TREE_CLONE)
            noexec = mount.mount_attributes(mount.MOUNT_ATTR_NOEXEC)
            mount.mount_setattr(folder, "", mount.AT_EMPTY_PATH, noexec)
            mount.move_mount(folder, -100, str(tmp_path))
            with pytest.raises(PermissionError):
                os.posix_spawn(start, [str(start)], {})
            start_it(start)
            os._exit(0)
        finally:
            os._exit(1)

    assert os.waitpid(child, 0)[1] == 0


def test_what_the_program_says_is_raised(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        start_it(written(tmp_path, program(NO_FILE)))

    assert caught.value.code == "E_SECCOMP"
    assert caught.value.subject == "filter"
    assert caught.value.detail == "the kernel refuses it: openat: No such file or directory"
    assert caught.value.hints == ("one", "two")


def test_a_program_that_is_not_there_has_the_status_of_a_shell(tmp_path: Path) -> None:
    missing = Call(
        name="execve", args=(b"/nonexistent\0", None, None), failure=Failure("E_INIT_DIED", "/x")
    )

    with pytest.raises(LaunchError, match="not found in the rootfs") as caught:
        start_it(written(tmp_path, program(missing)))

    assert caught.value.status == 127


def test_the_network_is_attached_while_init_waits(tmp_path: Path) -> None:
    seen: list[str] = []
    pids: list[int] = []

    def attach(namespace: int, init: int) -> dict[str, object]:
        seen.append(os.readlink(f"/proc/self/fd/{namespace}"))
        pids.append(init)
        return {"ips": ["10.1.2.3"]}

    duties = {"network": True, "state": tmp_path / "state", "running": RUNNING, "stopped": "%d"}
    start = written(tmp_path, program(*NETWORK, SLEEP), **duties)
    start_it(start, attach, started="now")

    running = json.loads((tmp_path / "state").read_text())
    os.kill(running["init"]["pid"], signal.SIGKILL)
    assert (running["ips"], running["started"]) == (["10.1.2.3"], "now")
    assert len(seen) == 1
    assert pids == [running["init"]["pid"]]
    assert seen[0].startswith("net:[")
    assert seen[0] != os.readlink("/proc/self/ns/net")


def test_what_hinders_the_network_is_raised_and_ends_the_start(tmp_path: Path) -> None:
    def attach(*_: int) -> dict[str, object]:
        raise HostError("E_NET_BRIDGE", "br0", "is not there")

    with pytest.raises(HostError, match="br0"):
        start_it(written(tmp_path, program(*NETWORK, EXECUTE), network=True), attach)


def test_an_init_that_fails_before_its_network_is_told(tmp_path: Path) -> None:
    def attach(*_: int) -> dict[str, object]:
        pytest.fail("there is nothing to attach to")

    with pytest.raises(ContainerError, match="the kernel refuses it"):
        start_it(written(tmp_path, program(NO_FILE, *NETWORK), network=True), attach)


def test_nothing_stays_open_here(tmp_path: Path) -> None:
    start = written(tmp_path, program(*NETWORK, EXECUTE), network=True)
    before = os.listdir("/proc/self/fd")

    for _ in range(3):
        start_it(start, lambda *_: {})

    assert os.listdir("/proc/self/fd") == before


def test_init_joins_the_control_group_that_is_handed_over(tmp_path: Path) -> None:
    group = Path(next(tree.path for tree in hierarchy.mounted() if "pids" in tree.controllers))
    group /= f"mktemplate-test-{os.getpid()}"
    join = launch._join(standalone._JOIN)
    made = program(SLEEP)
    made = replace(made, host=(*join, *made.host))
    start = written(tmp_path, made, group=True, state=tmp_path / "state", running=RUNNING)
    group.mkdir()
    try:
        with open(group / "cgroup.procs", "w") as procs:
            start_it(start, group=procs.fileno(), cgroup={"key": "one"})
        running = json.loads((tmp_path / "state").read_text())
        inside = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        held = os.listdir(f"/proc/{running['monitor']['pid']}/fd")
        pidfd = os.pidfd_open(running["init"]["pid"])
        os.kill(running["init"]["pid"], signal.SIGKILL)
        assert select.select([pidfd], [], [], 60)[0]
        os.close(pidfd)
    finally:
        group.rmdir()

    assert inside == [running["init"]["pid"]]
    assert running["cgroup"] == {"key": "one"}
    assert str(GROUP) not in held
