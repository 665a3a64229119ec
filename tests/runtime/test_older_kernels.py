"""What a start may not do on the kernels of Debian 12 and 13: only newer ones take mounts on detached mounts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime import launch, sandbox
from runtime.config import parse
from runtime.idmap import single_range
from runtime.kernel import mount as m
from runtime.program import Call, Program, Slot

CONFIG = """
lxc.uts.name = web
lxc.init.cmd = /sbin/init
lxc.mount.auto = proc:mixed sys:ro
lxc.mount.entry = /dev/null proc/kcore none bind,ro,optional 0 0
lxc.mount.entry = tmpfs proc/acpi tmpfs ro,size=4k,optional 0 0
lxc.mount.entry = /srv/data srv none bind,ro,create=dir 0 0
lxc.idmap = u 0 1000000 65536
lxc.idmap = g 0 1000000 65536
lxc.mount.entry = /dev/full dev/given none bind,create=file,idmap=device:44 0 0
lxc.rootfs.path = overlay:/layers/top:/layers/base:/c/web/upper
"""


def container() -> Program:
    return launch.decide(parse(CONFIG), launch.Host(name="web"))


def build() -> Program:
    root = SimpleNamespace(lowers=(Path("/l/base"),), upper=Path("/s/upper"), work=Path("/s/work"))
    return sandbox._program(root, single_range(1000000), sandbox._system())


def detached_use(calls: Sequence[Call], detached: set[str]) -> list[Call]:
    """Return the calls that clone from, or attach to, a mount that is attached nowhere."""
    wrong = []
    for call in calls:
        source = call.args[0] if call.args and isinstance(call.args[0], Slot) else None
        if call.name == "open_tree" and source and source.name in detached:
            wrong.append(call)
        if call.name == "move_mount":
            target = call.args[2]
            if isinstance(target, Slot) and target.name in detached:
                wrong.append(call)
            detached.discard(source.name if source else "")
        if call.result:
            made = call.name == "fsmount" or (
                call.name == "open_tree" and int(str(call.args[2])) & m.OPEN_TREE_CLONE
            )
            (detached.add if made else detached.discard)(call.result)
    return wrong


@pytest.mark.parametrize("program", [container(), build()], ids=["container", "build"])
def test_no_mount_is_cloned_or_made_on_one_that_is_attached_nowhere(program: Program) -> None:
    detached: set[str] = set()

    assert detached_use([*program.stage, *program.host, *program.init], detached) == []
