"""A start as text: what would be called, with its reasons."""

from __future__ import annotations

import pytest

from runtime import launch, steps
from runtime.config import parse
from runtime.errors import ConfigError
from runtime.program import Call, Slot, Text
from runtime.show import call, show

CONFIG = """
lxc.uts.name = web
lxc.init.cmd = /sbin/init "two words"
lxc.no_new_privs = 1
lxc.cap.drop = sys_admin
lxc.mount.auto = proc:mixed sys:ro
lxc.mount.entry = /srv/data srv none bind,ro,create=dir 0 0
lxc.idmap = u 0 1000000 65536
lxc.idmap = g 0 1000000 65536
lxc.rootfs.path = overlay:/layers/top:/layers/base:/c/web/upper
"""


def order(text: str, *words: str) -> bool:
    places = [text.index(word) for word in words]
    return places == sorted(places)


def test_the_order_of_a_start() -> None:
    text = show(launch.decide(parse(CONFIG), launch.Host(name="web", bpf=bytes(8))))

    assert order(
        text,
        "unshare(CLONE_NEWNS)",
        'open_tree(AT_FDCWD, "/layers/top"',
        "clone(CLONE_PARENT|CLONE_NEWUSER|CLONE_NEWPID",
        "0 1000000 65536",
        "mount_setattr(layer0",
        'fsopen("overlay"',
        'openat2(root, "proc"',
        "pivot_root",
        "sethostname",
        "PR_CAPBSET_DROP",
        "PR_SET_NO_NEW_PRIVS",
        "seccomp(",
        'execve("/sbin/init", {"/sbin/init", "two words", NULL}',
    )


def test_without_no_new_privs_the_filter_comes_before_the_rights_go() -> None:
    config = CONFIG.replace("lxc.no_new_privs = 1", "lxc.no_new_privs = 0")
    text = show(launch.decide(parse(config), launch.Host(name="web", bpf=bytes(8))))

    assert order(text, "seccomp(", "PR_CAPBSET_DROP")
    assert "PR_SET_NO_NEW_PRIVS" not in text


def test_layers_keep_their_order_and_only_the_upper_is_written() -> None:
    text = show(launch.decide(parse(CONFIG), launch.Host(name="web")))

    assert '"lowerdir", "0:1"' in text
    assert '"upperdir", "upper/upper"' in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (steps.close("fd"), "close(fd)"),
        (Call(name="umask", args=(0o022,)), "umask(022)"),
        (
            Call(
                name="openat",
                args=(Slot("proc"), Text("%d/maps", (Slot("init"),)), 1),
                result="file",
            ),
            'file = openat(proc, "<init>/maps", O_WRONLY)',
        ),
        (Call(name="write", args=(Slot("a"), b"\x00\x01\xff", 3)), "write(a, <3 bytes>, 3)"),
        (
            Call(name="getpid", ignore=(2,), skip=3),
            "getpid()  # No such file or directory is ignored, the next 3 left out",
        ),
    ],
    ids=str,
)
def test_a_call_is_shown_in_straces_notation(value: Call, shown: str) -> None:
    assert call(value) == shown


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lxc.net.0.type = none\nlxc.sysctl.net.ipv4.ip_forward = 1", "is the host's"),
        ("lxc.namespace.keep = mnt", "mount namespace of its own"),
    ],
)
def test_what_cannot_be_started_is_refused_beforehand(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        launch.decide(parse(CONFIG + line + "\n"), launch.Host(name="web"))
