"""`up` and `run`: from a template's name to a service that answers, or to a command's exit status."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path

from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console
from mktemplate.places import containers_path
from mktemplate.verbs.life import await_ready
from mktemplate.views import container_object, timings
from runtime.bundle import Bundle
from runtime.container import Container
from runtime.errors import StateError

_LOOPBACK = ("127.", "::1")


def up(request: Request, console: Console) -> int:
    """Create if absent, start if stopped, wait until ready, say how to reach it."""
    path = containers_path(request)
    name = container_name(request.words[-1])
    container = Container(path, name)
    started = time.monotonic()
    try:
        found = container.bundle
    except StateError as error:
        if error.code != "E_NOTFOUND":
            raise
        _create(request, path, console)
    else:
        _tell_differences(request, found, console)
    return started_(container, console, request.flags.timeout, started)


def _create(request: Request, path: Path, console: Console) -> None:
    from mktemplate import asked, making  # here: a second `up` needs neither Jinja nor requests

    template, facts = asked.understood(request)
    making.make(template, facts, request, path, console)


def started(path: Path, name: str, request: Request, console: Console) -> int:
    """Start a container that was just made, and wait until it is ready (`create --start`)."""
    return started_(Container(path, name), console, request.flags.timeout, time.monotonic())


def started_(container: Container, console: Console, timeout: int | None, begun: float) -> int:
    """Start what is stopped, wait until it is ready, report."""
    state = container.state()
    if state == "FROZEN":
        container.unfreeze()
    elif state not in ("RUNNING", "STARTING"):
        start = container.start()
        console.timings["launch"] = start.seconds
        for note in start.notes:
            console.note(f"{container.name}: {note}")
    limit = None if timeout is None else float(timeout)
    console.timings["ready"] = await_ready(container, limit)
    console.timings["total"] = time.monotonic() - begun
    value = {**container_object(container.path, container.name), "ready": True}
    console.result({**value, "timings": timings(console.timings)}, "")
    _say(container, console)
    return 0


def _say(container: Container, console: Console) -> None:
    record = container.bundle.record
    name, seconds = container.name, console.timings
    console.step(f"{name}: ready after {seconds['ready']:.3f} s ({seconds['total']:.2f} s in all)")
    if record.connect:
        console.step(f"connect: {record.connect}")
    run = container.run
    for ip in run.ips if run else ():
        console.step(f"address: {ip.partition('/')[0]}")
    for port in record.ports:
        where = f"{port.address}:{port.host}"
        local = port.address.startswith(_LOOPBACK)
        console.step(
            f"port {port.container}/{port.proto}: {where}"
            + (" (reachable from this machine only)" if local else "")
        )


def _tell_differences(request: Request, found: Bundle, console: Console) -> None:
    """Name what the caller asked for and the existing container does not have: it keeps its options."""
    record = found.record
    recorded = dict(record.options)
    asked = (request.words[0], record.template) if len(request.words) > 1 else None
    if asked and asked[0] != asked[1]:
        console.warning(f"{record.name} exists and is a {asked[1]}, not a {asked[0]}")
    from mktemplate.recorded import given_options, option_name

    for key, value in given_options(request):
        if recorded.get(key) != value:
            had = recorded.get(key, "the default")
            console.warning(
                f"{record.name} exists and keeps its {option_name(key)}: {had}, not {value}"
            )


def run(request: Request, console: Console) -> int:
    """Run one command in a container of its own; its exit status is ours, and nothing is left of it."""
    from mktemplate.inside import execute

    path = containers_path(request)
    container = Container(path, f"run-{secrets.token_hex(6)}")
    quiet = console if console.verbose else Console(json=console.json, quiet=True)
    try:
        _make_idle(request, path, container.name, quiet)
        container.start()
        return execute(container, request, console)
    finally:
        if container.directory.exists():
            container.destroy(force=True)


def _make_idle(request: Request, path: Path, name: str, console: Console) -> None:
    """Make a container whose PID 1 only waits: of a template, or of an existing container's layers."""
    word = request.words[0]
    if (path / word / "config").exists():
        from mktemplate.borrowed import borrow

        borrow(Container(path, container_name(word)), name)
        return
    from mktemplate import asked, making

    template, facts = asked.understood(replace(request, words=(word, name)))
    making.make(template, replace(facts, idle=True), request, path, console)
