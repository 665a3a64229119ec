"""`start stop restart kill freeze unfreeze wait destroy`: the life of containers that exist. No Jinja, no network."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import Several
from mktemplate.life import phases
from mktemplate.life.views import container_object, is_ready
from mktemplate.places import containers_path
from runtime.container import Container


def each(request: Request, act: Callable[[Container], None]) -> None:
    """Do `act` for every NAME of the request; report every failure, exit with the first one's status."""
    failures: list[Exception] = []
    path = containers_path(request)
    for name in request.words:
        try:
            act(Container(path, container_name(name)))
        except Exception as failure:  # collected: the others must still be tried
            if len(request.words) == 1 or not hasattr(failure, "code"):
                raise
            failures.append(failure)
    if failures:
        raise Several(tuple(failures))


def start(request: Request, console: Console) -> int:
    """Start containers; --print shows the calls instead, --foreground stays."""
    if request.flags.print:
        return _print(request, console)
    if request.flags.foreground:
        from mktemplate.verbs.foreground import stay

        return stay(request)
    path = containers_path(request)
    shown: list[dict[str, object]] = []

    def act(container: Container) -> None:
        begun = phases.start(container)
        for note in begun.notes:
            console.note(f"{container.name}: {note}")
        console.step(f"{container.name}: started in {begun.seconds * 1000:.1f} ms, pid {begun.pid}")
        if console.json:
            shown.append(container_object(path, container.name))

    each(request, act)
    if console.json:
        console.document(shown[0] if len(shown) == 1 else shown)
    return 0


def _print(request: Request, console: Console) -> int:
    from runtime.show import show

    for name in request.words:
        container = Container(containers_path(request), container_name(name))
        console.text(show(container.program()))
    return 0


def stop(request: Request, console: Console) -> int:
    """Ask containers to end; kill what is left after --timeout."""
    timeout = _grace(request)

    def act(container: Container) -> None:
        phases.stop(container, timeout)
        console.step(
            f"{container.name}: stopped"
        )  # as the stop program says (runtime/stopprogram.py)

    each(request, act)
    return 0


def restart(request: Request, console: Console) -> int:
    """Stop what runs, start all."""
    timeout = _grace(request)

    def act(container: Container) -> None:
        begun = phases.restart(container, timeout)
        console.step(f"{container.name}: started in {begun.seconds * 1000:.1f} ms, pid {begun.pid}")

    each(request, act)
    return 0


def _grace(request: Request) -> float:
    return phases.GRACE if request.flags.timeout is None else float(request.flags.timeout)


def kill(request: Request, console: Console) -> int:
    """Send a signal to a container's init; KILL ends everything in it."""
    number = (
        phases.signal_number(request.words[1]) if len(request.words) > 1 else int(signal.SIGKILL)
    )
    container = Container(containers_path(request), container_name(request.words[0]))
    container.kill(number)
    console.step(f"{container.name}: sent {signal.Signals(number).name}")
    return 0


def freeze(request: Request, console: Console) -> int:
    """Suspend every process of containers."""
    each(request, Container.freeze)
    return 0


def unfreeze(request: Request, console: Console) -> int:
    """Let frozen containers go on."""
    each(request, Container.unfreeze)
    return 0


def wait(request: Request, console: Console) -> int:
    """Wait for a state; E_NOTRUNNING where it does not come within --timeout."""
    path, name = containers_path(request), container_name(request.words[0])
    container = Container(path, name)
    _ = container.bundle  # raises where there is none
    started = time.monotonic()
    timeout = None if request.flags.timeout is None else float(request.flags.timeout)
    phases.wait(container, request.flags.state, timeout)
    seconds = time.monotonic() - started
    value = {"name": name, "state": container.state(), "seconds": round(seconds, 3)}
    pid = container.pid
    ready = bool(pid) and container.state() == "RUNNING" and is_ready(container, pid or 0)
    console.result({**value, "ready": ready}, "")
    console.step(f"{name}: {request.flags.state} after {seconds:.3f} s")
    return 0


def destroy(request: Request, console: Console) -> int:
    """Remove containers for good."""

    def act(container: Container) -> None:
        container.destroy(force=request.flags.force)
        console.step(f"{container.name}: destroyed")

    each(request, act)
    return 0
