"""lxc.namespace.clone, keep and share: which namespaces are the container's own, seen from inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import ConfigError, ContainerError
from runtime.refuse import refuse
from tests.kernel.conftest import Make

pytestmark = pytest.mark.root
INIT = "/bin/sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.05; done'"
KINDS = ("mnt", "pid", "ipc", "uts", "net", "cgroup")
TIME = {"time"} & set(os.listdir("/proc/self/ns"))  # a kernel may be without


def links(pid: int) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in (*KINDS, "user", *TIME)}


def same(one: int | str, other: int | str) -> set[str]:
    """Return the kinds of namespaces that two processes share."""
    first, second = links(one), links(other)  # type: ignore[arg-type]  # "self" is a process, too
    return {kind for kind in first if first[kind] == second[kind]}


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("lxc.namespace.keep = net", {"net"}),
        ("lxc.namespace.keep = ipc uts", {"ipc", "uts"}),
        ("lxc.namespace.keep = cgroup", {"cgroup"}),
        ("lxc.namespace.clone = mnt pid", {"ipc", "uts", "net", "cgroup"}),
    ],
)
def test_clone_and_keep_decide_what_stays_the_hosts(make: Make, line: str, hosts: set[str]) -> None:
    kept = "lxc.uts.name =", "lxc.mount.auto =", "lxc.mount.auto = proc:mixed"
    container = make("one", INIT, line, *kept, userns=False)

    begun = container.start()

    assert same(begun.pid, "self") == hosts | TIME | {"user"}


@pytest.mark.parametrize("how", ["name", "pid", "path"])
@pytest.mark.parametrize("kind", ["net", "ipc", "uts", "cgroup"])
def test_a_namespace_is_shared_with_another_container(make: Make, kind: str, how: str) -> None:
    first = make("one", INIT).start()
    whose = {"name": "one", "pid": str(first.pid), "path": f"/proc/{first.pid}/ns/{kind}"}[how]
    lines = ("lxc.mount.auto =", "lxc.mount.auto = proc:mixed")
    container = make("two", INIT, *lines, f"lxc.namespace.share.{kind} = {whose}")

    second = container.start()

    assert same(first.pid, second.pid) == TIME | {kind}
    noted = [note for note in second.notes if note.startswith("lxc.")]
    assert noted == [
        f"{key}: not applied, the {kind} namespace is another's"
        for name, key in (("net", "lxc.net"), ("uts", "lxc.uts.name"))
        if name == kind
    ]


def test_one_pid_namespace_lives_as_long_as_its_owner(make: Make) -> None:
    first = make("one", INIT, userns=False).start()
    container = make("two", INIT, "lxc.namespace.share.pid = one", userns=False)

    second = container.start()

    inner = Path(f"/proc/{second.pid}/status").read_text()
    [ids] = [line.split()[1:] for line in inner.splitlines() if line.startswith("NSpid:")]
    assert same(first.pid, second.pid) >= {"pid", "user"}
    assert int(ids[-1]) > 1
    container.stop(2)
    assert container.state() == "STOPPED"
    assert Path(f"/proc/{first.pid}").exists()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("lxc.namespace.share.net = nobody", "E_NOTRUNNING"),
        ("lxc.namespace.share.net = /etc/passwd", "E_CONFIG_VALUE"),
        ("lxc.namespace.share.net = /proc/self/ns/uts", "E_CONFIG_VALUE"),
        ("lxc.namespace.share.net = /nonexistent", "E_CONFIG_VALUE"),
    ],
)
def test_what_is_no_namespace_of_the_kind_is_refused(make: Make, line: str, code: str) -> None:
    container = make("one", INIT, line)

    with pytest.raises(ContainerError) as caught:
        container.start()

    assert caught.value.code == code
    assert container.state() == "STOPPED"


@pytest.mark.parametrize("kind", ["user", "mnt"])
def test_what_a_container_cannot_share_is_refused_by_name(make: Make, kind: str) -> None:
    container = make("one", INIT, f"lxc.namespace.share.{kind} = 1")

    with pytest.raises(ConfigError, match=r"lxc\.namespace\.share: user and mnt"):
        refuse(container.config)
