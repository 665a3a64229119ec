"""Control groups: the words of v2 on any host, and the real thing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import cgroup, hierarchy
from runtime.cgroup import Cgroup
from runtime.errors import HostError
from runtime.limits import Limit, device_policy, limits, twins

CONFINED = (("devices.deny", "a"), ("devices.allow", "c 1:3 rwm"))


def test_limits_have_their_twins_on_v1() -> None:
    asked = limits(
        (
            ("memory.max", "64M"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "50"),
            ("io.weight", "5"),
        )
    ).v2

    found, missing = twins(asked)

    assert [(limit.file, limit.value) for limit in found] == [
        ("memory.limit_in_bytes", "64M"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.shares", "512"),
    ]
    assert [limit.file for limit in missing] == ["io.weight"]


def test_swap_counts_both_together_on_v1() -> None:
    found, _ = twins(limits((("memory.max", "1M"), ("memory.swap.max", "1M"))).v2)

    assert found[-1] == Limit(file="memory.memsw.limit_in_bytes", value=str(2 << 20))


def test_device_lines_add_and_take_access() -> None:
    lines = (
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rw"),
        ("devices.allow", "c 1:3 m"),
        ("devices.deny", "c 1:3 w"),
    )

    policy = device_policy(limits(lines).v2)

    assert policy is not None
    assert (policy.open, [one.access for one in policy.exceptions]) == (False, ["mr"])


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    made = Cgroup.make(
        f"test-{os.getpid()}", limits((("pids.max", "16"), ("memory.max", "64M"), *CONFINED))
    )
    yield made
    made.kill()
    made.remove()


def started(group: Cgroup, *argv: str) -> subprocess.Popen[bytes]:
    """Start a program that waits for a line and then is `argv`, in `group`."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'read _; exec "$@"', "sh", *argv], stdin=subprocess.PIPE
    )
    for file in group.join_files():
        file.write_text(str(process.pid))
    assert process.stdin
    process.stdin.write(b"\n")
    process.stdin.close()
    return process


@pytest.mark.root
def test_a_group_holds_freezes_and_kills(group: Cgroup) -> None:
    process = started(group, "sleep", "60")

    assert group.pids() == (process.pid,)
    group.freeze()
    assert group.is_frozen()
    group.kill()

    assert process.wait(5) == -signal.SIGKILL
    assert group.pids() == ()


@pytest.mark.root
def test_who_joins_goes_where_init_has_moved_to_on_v2(group: Cgroup) -> None:
    init = started(group, "sleep", "60")
    [two] = [Path(one.path) for one in group.groups if one.version == 2]
    (two / "init.scope").mkdir()
    (two / "init.scope/cgroup.procs").write_text(str(init.pid))

    joined = group.join_files_of(init.pid)

    assert two / "init.scope/cgroup.procs" in joined
    assert set(joined) ^ set(group.join_files()) == {
        two / "cgroup.procs",
        two / "init.scope/cgroup.procs",
    }
    group.kill()
    init.wait()


@pytest.mark.root
def test_devices_but_the_listed_are_denied(group: Cgroup) -> None:
    process = started(group, "sh", "-c", "head -c0 /dev/null && ! head -c1 /dev/zero 2>/dev/null")

    assert process.wait(5) == 0


@pytest.mark.root
def test_a_filter_of_bpf_denies_as_well() -> None:
    trees = [tree for tree in hierarchy.mounted() if tree.version == 2]
    if not trees:
        pytest.skip("this machine lacks a cgroup v2 tree")
    group = Cgroup.make(f"bpf-{os.getpid()}", limits(CONFINED), trees)
    try:
        process = started(
            group, "sh", "-c", "head -c0 /dev/null && ! head -c1 /dev/zero 2>/dev/null"
        )

        assert process.wait(5) == 0
    finally:
        group.remove()


@pytest.mark.root
def test_memory_beyond_the_limit_is_an_oom_kill(group: Cgroup) -> None:
    hungry = "x = bytearray(256 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
    process = started(group, "python3", "-c", hungry)

    assert process.wait(20) == -signal.SIGKILL
    assert group.oom_kills() >= 1


@pytest.mark.root
def test_it_survives_being_written_down_and_is_gone_when_removed(group: Cgroup) -> None:
    again = Cgroup.from_json(group.as_json())

    again.remove()
    again.remove()

    assert again == group
    assert not any(Path(one.path).exists() for one in group.groups)


@pytest.mark.root
def test_what_was_asked_for_and_cannot_be_is_an_error_and_a_default_is_a_note() -> None:
    key = f"asked-{os.getpid()}"
    with pytest.raises(HostError) as caught:
        Cgroup.make(key, limits((("nosuch.max", "1"),)))
    made = Cgroup.make(key, limits((("nosuch.max", "1"),), defaults=(("nosuch.max", "1"),)))
    made.remove()

    assert caught.value.code == "E_CGROUP"
    assert len(made.notes) == 1


@pytest.mark.root
def test_another_start_does_not_take_a_group_that_is_in_use(group: Cgroup) -> None:
    process = started(group, "sleep", "60")

    with pytest.raises(HostError, match="earlier start"):
        Cgroup.make(group.key, limits(()))
    process.kill()
    process.wait()


def test_a_key_is_a_plain_name() -> None:
    with pytest.raises(HostError):
        cgroup.Cgroup.make("../x", limits(()))
