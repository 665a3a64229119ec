"""lxc.hook.*: each at its point, in LXC's order, told what LXC tells; a failure undoes the start."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.container import Container
from runtime.errors import ConfigError, ContainerError
from tests.kernel.conftest import Make, let_through

pytestmark = pytest.mark.root
POINTS = ("pre-start", "pre-mount", "mount", "autodev", "start-host", "stop", "post-stop")
INIT = "/bin/sh -c 'echo init >>/run/order; trap \"exit 3\" TERM; while :; do sleep 0.05; done'"
# What a hook notes: its arguments, whether the container's files are where it is told, and its namespaces.
NOTE = r"""#!/bin/sh
{
    echo "args $*"
    echo "type ${LXC_HOOK_TYPE-none} ${LXC_HOOK_SECTION-none}"
    env | grep ^LXC_ | sort
    [ -e "$LXC_ROOTFS_MOUNT/bin/sh" ] && echo rooted
    [ -e "$LXC_ROOTFS_MOUNT/dev/null" ] && echo "has dev"
    for ns in user mnt pid net; do echo "$ns $(readlink /proc/self/ns/$ns)"; done
    echo "uid_map $(cat /proc/self/uid_map)"
} >"$0.$(date +%s%N).${LXC_HOOK_TYPE-$3}" 2>&1
"""


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """Return a program that notes how it was called; the container's root may run it and write beside it."""
    folder = tmp_path / "notes"
    folder.mkdir()
    let_through(folder)
    folder.chmod(0o1777)
    program = folder / "note"
    program.write_text(NOTE)
    program.chmod(0o755)
    return program


def notes(note: Path) -> dict[str, list[str]]:
    """Return what each hook noted, in the order of time."""
    files = sorted(note.parent.glob("note.*"), key=lambda file: int(file.name.split(".")[1]))
    return {file.name.split(".")[2]: file.read_text().splitlines() for file in files}


def lines(note: Path, *more: str) -> tuple[str, ...]:
    return (*(f"lxc.hook.{point} = {note}" for point in POINTS), *more)


def namespaces(noted: list[str]) -> set[str]:
    """Return the kinds of namespaces in which a hook was not on the host."""
    pairs = dict(line.split(" ", 1) for line in noted if "[" in line)
    return {kind for kind, link in pairs.items() if link != os.readlink(f"/proc/self/ns/{kind}")}


def test_hooks_run_in_lxcs_order_where_lxc_runs_them(make: Make, note: Path) -> None:
    start = 'lxc.hook.start = /bin/sh -c \'echo hook "$3" "$LXC_NAME" >/run/order\' sh'
    container = make("one", INIT, *lines(note, start))

    begun = container.start()
    order = Path(f"/proc/{begun.pid}/root/run/order")
    deadline = time.monotonic() + 60
    while (said := order.read_text().split()) != ["hook", "start", "one", "init"]:
        assert time.monotonic() < deadline, said
        time.sleep(0.01)
    init = begun.pid
    container.stop()

    noted = notes(note)
    assert list(noted) == list(POINTS)
    for point in POINTS[:-2]:
        assert noted[point][0] == f"args one lxc {point}"
        assert "type none none" in noted[point]
    assert namespaces(noted["pre-start"]) == namespaces(noted["start-host"]) == set()
    assert namespaces(noted["post-stop"]) == namespaces(noted["stop"]) == set()
    assert namespaces(noted["pre-mount"]) == {"mnt"}
    assert (
        namespaces(noted["mount"]) == namespaces(noted["autodev"]) == {"user", "mnt", "pid", "net"}
    )
    assert {"rooted", "has dev"} <= set(noted["mount"]) & set(noted["autodev"])
    assert "rooted" not in noted["pre-mount"]
    assert f"LXC_PID={init}" in noted["start-host"]


def test_hooks_are_told_what_lxc_tells_them(make: Make, note: Path) -> None:
    container = make("one", INIT, *lines(note, "lxc.environment = COLOUR=blue"))
    container.start()
    container.stop()

    noted = notes(note)

    root = container.config.rootfs_path.removeprefix("overlay:")
    for point in POINTS:
        assert {
            "LXC_NAME=one",
            f"LXC_CONFIG_FILE={container.directory}/config",
            f"LXC_ROOTFS_PATH={root}",
            "LXC_CGNS_AWARE=1",
            "LXC_HOOK_VERSION=0",
        } <= set(noted[point])
    assert {"LXC_TARGET=stop"} <= set(noted["stop"]) & set(noted["post-stop"])
    words = noted["stop"][0].split()
    assert words[:4] == ["args", "one", "lxc", "stop"]
    assert [word.split(":")[0] for word in words[4:]] == [
        *("user", "mnt", "pid", "uts", "ipc", "net", "cgroup")
    ]


def test_version_1_gives_variables_instead_of_arguments(make: Make, note: Path) -> None:
    container = make("one", INIT, "lxc.hook.version = 1", *lines(note))
    container.start()
    container.stop()

    noted = notes(note)

    for point in POINTS:
        assert noted[point][:2] == ["args ", f"type {point} lxc"]
    assert {line.partition("=")[0] for line in noted["stop"]} >= {"LXC_MNT_NS", "LXC_NET_NS"}


def test_a_mount_hook_gives_the_container_what_it_mounts(make: Make, tmp_path: Path) -> None:
    let_through(tmp_path)
    root = "$LXC_ROOTFS_MOUNT/mnt"
    script = f"mount -t tmpfs hooked {root} && echo hello >{root}/file"
    container = make("one", INIT, f"lxc.hook.mount = /bin/sh -c '{script}'")

    begun = container.start()

    assert Path(f"/proc/{begun.pid}/root/mnt/file").read_text() == "hello\n"


@pytest.mark.parametrize("point", [*POINTS[:-2], "start"])
def test_a_hook_that_fails_ends_the_start_and_leaves_nothing(
    make: Make, note: Path, point: str
) -> None:
    container = make(
        "one", INIT, f"lxc.hook.{point} = /bin/sh -c 'exit 7'", f"lxc.hook.post-stop = {note}"
    )

    with pytest.raises(ContainerError) as caught:
        container.start()

    error = caught.value
    assert (error.code, error.subject) == ("E_SCRIPT_FAILED", f"lxc.hook.{point}")
    assert "ended with 7" in error.detail
    assert container.state() == "STOPPED"
    left = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/mktemplate/*.{container.name}")]
    assert [path for path in left if str(container.path) in path] == []
    assert ("post-stop" in notes(note)) == (point != "pre-start")


def test_stop_and_post_stop_may_fail(make: Make) -> None:
    container = make("one", INIT, "lxc.hook.stop = /bin/false", "lxc.hook.post-stop = /bin/false")
    container.start()

    container.stop()

    assert (container.state(), container.exit_status) == ("STOPPED", 3)


def test_a_destroy_hook_that_fails_keeps_the_container(make: Make, note: Path) -> None:
    container = make("one", INIT, f"lxc.hook.destroy = {note}", "lxc.hook.destroy = /bin/false")

    with pytest.raises(ContainerError, match=r"lxc\.hook\.destroy"):
        container.destroy()

    assert container.directory.is_dir()
    assert list(notes(note)) == ["destroy"]
    config = container.directory / "config"
    config.write_text(config.read_text().replace("lxc.hook.destroy = /bin/false\n", ""))
    container.destroy()
    assert not container.directory.exists()


@pytest.mark.parametrize("what", ["config", "folder", "owner", "included"])
def test_a_hook_that_somebody_else_could_have_written_is_not_run(
    make: Make, note: Path, tmp_path: Path, what: str
) -> None:
    container: Container = make("one", INIT)
    config = container.directory / "config"
    more = tmp_path / "more.conf"
    hook = f"lxc.hook.pre-start = {note}\n"
    if what == "included":
        more.write_text(hook)
        os.chown(more, 1, 1)
        hook = f"lxc.include = {more}\n"
    config.write_text(config.read_text() + hook)
    if what == "config":
        config.chmod(0o664)
    elif what == "folder":
        container.directory.chmod(0o777)
    elif what == "owner":
        os.chown(config, 1, 1)

    with pytest.raises(ConfigError, match="others than you may write") as caught:
        container.start()

    assert caught.value.code == "E_CONFIG_GRANT"
    assert notes(note) == {}


def test_the_real_lxc_runs_the_same_hooks_in_the_same_order_with_the_same_words(
    make: Make, note: Path, tiny: Path, needs: Callable[..., None]
) -> None:
    needs("lxc-start")
    plain = ("lxc.seccomp.profile =", f"lxc.rootfs.path = dir:{tiny}")
    more = ("lxc.cap.drop =", "lxc.console.path = none", "lxc.cgroup2.pids.max =", *plain)
    container = make("one", INIT, *lines(note, *more), userns=False)
    container.start()
    container.stop()
    ours = notes(note)
    for file in note.parent.glob("note.*"):
        file.unlink()

    place = ["-P", str(container.path), "-n", "one"]
    subprocess.run(["lxc-start", *place, "-o", "/dev/null"], check=True, timeout=30)
    subprocess.run(["lxc-stop", *place], check=True, timeout=30)
    deadline = time.monotonic() + 60
    while "post-stop" not in notes(note) and time.monotonic() < deadline:
        time.sleep(0.02)

    theirs = notes(note)
    assert list(ours) == list(theirs)
    for point in POINTS:
        own = namespaces(ours[point]) ^ namespaces(theirs[point])
        assert own == ({"pid", "net"} if point == "pre-mount" else set()), point
        stale = {fact for fact in facts(theirs[point]) if "_NS=" in fact and point != "stop"}
        assert facts(ours[point]) == facts(theirs[point]) - stale, point


def facts(noted: list[str]) -> set[str]:
    """Return what a hook noted, but for what no two starts have alike."""
    own = ("LXC_PID=", "LXC_ROOTFS_MOUNT=", "LXC_LOG_LEVEL=")
    kept = {re.sub(r"/proc/\d+/fd/\d+", "FD", line) for line in noted if "[" not in line}
    return {line for line in kept if not line.startswith((*own, "uid_map", "rooted", "has dev"))}
