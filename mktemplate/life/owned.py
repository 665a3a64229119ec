"""Containers that belong to one process, and go when it goes, however it ends.

Their names say whose they are: KIND-PID-STARTTIME-RANDOM. Whoever owns them destroys them; a process that was killed
is outlived by its guard, which does it then; and where that was killed too, `sweep` of the next one does.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from runtime import aside
from runtime.container import Container, containers
from runtime.errors import ContainerError
from runtime.state import Identity, boot_id
from valuetypes import replace

_NAME = re.compile(r"[a-z]+-([1-9][0-9]*)-([0-9]+)-[0-9a-f]{12}", re.ASCII)
_starting = threading.Lock()
_guarded: set[tuple[int, Path]] = set()  # process, PATH


def name(kind: str) -> str:
    """Return a name that no container has, for one of this process."""
    me = Identity.of(os.getpid())
    return f"{kind}-{me.pid}-{me.starttime}-{secrets.token_hex(6)}"


def sweep(path: Path) -> None:
    """Destroy the containers below `path` whose process is no more."""
    for container in containers(path):
        if (owner := _owner(container.name)) is None:
            continue
        with owner.alive() as pidfd:
            if pidfd is None:
                with suppress(ContainerError):  # another may be at it
                    container.destroy(force=True)


def _owner(container: str) -> Identity | None:
    match = _NAME.fullmatch(container)
    if match is None:
        return None
    return Identity(boot_id=boot_id(), pid=int(match[1]), starttime=int(match[2]))


@contextmanager
def lent(container: Container) -> Iterator[Container]:
    """Lend a container of ours for the length of the block; it is destroyed at its end, whole or half-made."""
    try:
        yield container
    finally:
        if container.directory.exists():
            container.destroy(force=True)


@contextmanager
def idle(request: Request, console: Console) -> Iterator[Container]:
    """Lend a running container whose PID 1 only waits: of a template, or of an existing container's layers."""
    from mktemplate.places import containers_path

    path = containers_path(request)
    sweep(path)
    with lent(Container(path, name("run"))) as container:
        _make_idle(request, container, console)
        container.start()
        yield container


def _make_idle(request: Request, container: Container, console: Console) -> None:
    path, word = container.path, request.words[0]
    if (path / word / "config").exists():
        from mktemplate.life.borrowed import borrow

        borrow(Container(path, container_name(word)), container.name)
        return
    from mktemplate.making import asked, asking

    template, facts = asked.understood(replace(request, words=(word, container.name)))
    with asking.begun(template.spec, facts, request.build, path) as suites:
        from mktemplate.making import assembly  # as in `phases.create`

        assembly.make(template, replace(facts, idle=True), request, path, console, suites)


def guard(path: Path) -> None:
    """Have a process outlive this one, to destroy what it leaves below `path`; one does for all."""
    key = (os.getpid(), path)
    with _starting:
        if key in _guarded:
            return
        me = Identity.of(os.getpid())
        words = (str(path), str(me.pid), str(me.starttime))
        null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        os.posix_spawn(
            sys.executable,
            aside.command("mktemplate.life.owned", "watch", *words),
            os.environ,
            file_actions=null,
            setsid=True,  # it outlives what kills our process group
        )
        _guarded.add(key)


def watch(path: str, pid: str, starttime: str) -> None:
    """Be the guard: wait until the process has ended, however, and sweep."""
    os.chdir("/")
    owner = Identity(boot_id=boot_id(), pid=int(pid), starttime=int(starttime))
    with owner.alive() as pidfd:
        if pidfd is not None:
            select.select([pidfd], [], [])
    sweep(Path(path))
