"""`autostart`: containers that come and go with their host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import Several
from mktemplate.places import containers_path
from runtime.container import Container, containers

_GRACE = 10.0  # seconds between asking and killing


def autostart(request: Request, console: Console) -> int:
    """Start what is marked lxc.start.auto, lowest lxc.start.order first; or stop it, the other way round."""
    failures: list[Exception] = []
    marked: list[tuple[int, str, int, Container]] = []
    for container in containers(containers_path(request)):
        with _collected(failures):
            config = container.config
            if config.start_auto:
                order = (config.start_order, container.name)
                marked.append((*order, config.start_delay, container))
    marked.sort(key=lambda one: one[:2], reverse=request.flags.stop)
    act, word = (_stop, "stopped") if request.flags.stop else (_start, "started")
    done: list[dict[str, object]] = []
    for _, name, delay, container in marked:
        with _collected(failures):
            if act(container):
                console.step(f"{name}: {word}")
                done.append({"name": name, "state": container.state()})
                time.sleep(0 if request.flags.stop else delay)  # what lxc.start.delay asks for
    if console.json:
        console.document(done)
    if failures:
        raise Several(tuple(failures))
    return 0


@contextmanager
def _collected(failures: list[Exception]) -> Iterator[None]:
    """Keep a failure of the contract for later: the others must still be tried."""
    try:
        yield
    except Exception as failure:
        if not hasattr(failure, "code"):
            raise
        failures.append(failure)


def _start(container: Container) -> bool:
    if container.state() not in {"STOPPED", "ABORTING"}:
        return False
    container.start()
    return True


def _stop(container: Container) -> bool:
    if container.state() == "STOPPED":
        return False
    container.stop(_GRACE)
    return True
