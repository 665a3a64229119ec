"""`start stop restart kill freeze unfreeze wait destroy`: the life of containers that exist. No Jinja, no network."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, Several, escape
from mktemplate.places import containers_path
from mktemplate.views import container_object, is_ready
from runtime import state
from runtime.container import Container
from runtime.errors import StateError

_GRACE = 10.0  # seconds between asking and killing, as cli.md says


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
        return _foreground(request)
    path = containers_path(request)
    shown: list[dict[str, object]] = []

    def act(container: Container) -> None:
        _count_anew(container)
        begun = container.start()
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


def _foreground(request: Request) -> int:
    """Start one container and be there until it ends; its status is ours."""
    if len(request.words) != 1:
        raise CommandError("E_USAGE", "start --foreground", "takes one container")
    container = Container(containers_path(request), container_name(request.words[0]))
    begun = container.start(foreground=True)
    forward = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)

    def pass_on(number: int, frame: object) -> None:
        with suppress(OSError, Exception):
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                container.kill(container.config.signal_halt or signal.SIGTERM)
            else:
                container.kill(number)

    for number in forward:
        signal.signal(number, pass_on)
    while True:
        try:
            os.waitpid(begun.monitor, 0)
            break
        except ChildProcessError:
            container.wait("STOPPED")
            break
    status = container.exit_status
    return 1 if status is None else status


def stop(request: Request, console: Console) -> int:
    """Ask containers to end; kill what is left after --timeout."""
    timeout = float(request.flags.timeout) if request.flags.timeout is not None else _GRACE

    def act(container: Container) -> None:
        started = time.monotonic()
        try:
            container.stop(timeout)
        except StateError:
            from runtime import restarts

            if not restarts.cancel(container):  # it may only wait to be started again
                raise
        console.step(f"{container.name}: stopped in {(time.monotonic() - started) * 1000:.0f} ms")

    each(request, act)
    return 0


def restart(request: Request, console: Console) -> int:
    """Stop what runs, start all."""
    timeout = float(request.flags.timeout) if request.flags.timeout is not None else _GRACE

    def act(container: Container) -> None:
        if container.state() not in ("STOPPED", "ABORTING"):
            container.stop(timeout)
        _count_anew(container)
        begun = container.start()
        console.step(f"{container.name}: started in {begun.seconds * 1000:.1f} ms, pid {begun.pid}")

    each(request, act)
    return 0


def _count_anew(container: Container) -> None:
    """Let the restart policy begin from its beginning: a person starts it."""
    with suppress(FileNotFoundError):
        os.unlink(state.folder(container.path) / f"{container.name}.tries")


def kill(request: Request, console: Console) -> int:
    """Send a signal to a container's init; KILL ends everything in it."""
    number = _signal(request.words[1]) if len(request.words) > 1 else int(signal.SIGKILL)
    container = Container(containers_path(request), container_name(request.words[0]))
    container.kill(number)
    console.step(f"{container.name}: sent {signal.Signals(number).name}")
    return 0


def _signal(text: str) -> int:
    """Return the number of a signal: TERM, SIGTERM or 15."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 65:
        return int(text)
    try:
        return int(signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"])
    except KeyError:
        raise CommandError("E_PARAM", "kill", f'"{escape(text)}" is no signal') from None


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
    found = container.bundle
    started = time.monotonic()
    timeout = None if request.flags.timeout is None else float(request.flags.timeout)
    if request.flags.state == "READY":
        await_ready(container, timeout)
    elif not container.wait(request.flags.state, timeout):
        raise CommandError(
            "E_NOTRUNNING",
            name,
            f"is {container.state()}, not {request.flags.state}, after {timeout:g} s",
        )
    seconds = time.monotonic() - started
    value = {"name": name, "state": container.state(), "seconds": round(seconds, 3)}
    pid = container.pid
    ready = bool(pid) and container.state() == "RUNNING" and is_ready(found, pid or 0)
    console.result({**value, "ready": ready}, "")
    console.step(f"{name}: {request.flags.state} after {seconds:.3f} s")
    return 0


def await_ready(container: Container, timeout: float | None) -> float:
    """Wait until the service of a running container accepts; return the seconds that took."""
    check = container.bundle.record.ready
    started = time.monotonic()
    pid = container.pid
    if pid is None and container.wait("RUNNING", timeout):
        pid = container.pid
    if pid is None:
        raise CommandError("E_NOTRUNNING", container.name, "is not running")
    if check.kind:
        from mktemplate.inside import succeeds
        from runtime import ready

        try:
            ready.wait_ready(check, pid, timeout, partial(succeeds, container))
        except StateError:
            _tell_of_memory(container)
            raise
    return time.monotonic() - started


def _tell_of_memory(container: Container) -> None:
    """Raise E_OOM where that is why it ended before it was ready."""
    from mktemplate.views import oom_kills

    container.wait("STOPPED", _GRACE)
    if oom_kills(container):
        raise CommandError(
            "E_OOM",
            container.name,
            "the kernel killed it for want of memory before it was ready",
            hints=(
                f"mktemplate config {container.name} get lxc.cgroup2.memory.max shows its limit",
            ),
        )


def destroy(request: Request, console: Console) -> int:
    """Remove containers for good."""

    def act(container: Container) -> None:
        container.destroy(force=request.flags.force)
        console.step(f"{container.name}: destroyed")

    each(request, act)
    return 0
