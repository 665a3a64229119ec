"""The life of a container as the verbs and the library lead it: up, started, ready, waited for, stopped, restarted."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import partial

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.places import containers_path
from runtime import state
from runtime.bundle import Bundle
from runtime.container import Container, Started
from runtime.errors import StateError

GRACE = 10.0  # seconds between asking and killing, as cli.md says
_OVER = ("STOPPED", "ABORTING")


def up(request: Request, console: Console) -> Container:
    """Create the request's container if it is absent, start it if it is stopped; return it when it is ready."""
    begun = time.monotonic()
    container = Container(containers_path(request), container_name(request.words[-1]))
    try:
        found = container.bundle
    except StateError as error:
        if error.code != "E_NOTFOUND":
            raise
        create(request, console)
    else:
        _tell_differences(request, found, console)
    bring_up(container, request, console, begun)
    return container


def create(request: Request, console: Console) -> Container:
    """Make the request's container, all or nothing."""
    from mktemplate.making import asked, asking

    path = containers_path(request)
    template, facts = asked.understood(request)
    with asking.begun(template.spec, facts, request.build, path) as suites:
        from mktemplate.making import (
            assembly,  # half of all that is loaded: mirrors answer meanwhile
        )

        made = assembly.make(template, facts, request, path, console, suites)
    return Container(path, made.bundle.record.name)


def bring_up(container: Container, request: Request, console: Console, begun: float) -> None:
    """Start what is stopped and wait until it is ready; `begun`: when that was asked for (time.monotonic)."""
    current = container.state()
    if current == "FROZEN":
        container.unfreeze()
    elif current not in ("RUNNING", "STARTING"):
        start = container.start()
        console.timings["launch"] = start.seconds
        for note in start.notes:
            console.note(f"{container.name}: {note}")
    limit = None if request.flags.timeout is None else float(request.flags.timeout)
    console.timings["ready"] = await_ready(container, limit)
    console.timings["total"] = time.monotonic() - begun


def start(container: Container) -> Started:
    """Start a stopped container as a person does: its restart policy begins from its beginning."""
    with suppress(FileNotFoundError):
        os.unlink(state.folder(container.path) / f"{container.name}.tries")
    return container.start()


def stop(container: Container, timeout: float = GRACE) -> None:
    """Ask it to end, kill what is left after `timeout` seconds; what only waits to be started again no longer does."""
    try:
        container.stop(timeout)
    except StateError:
        from runtime import restarts

        if not restarts.cancel(container):
            raise


def restart(container: Container, timeout: float = GRACE) -> Started:
    """Stop it if it runs, and start it; E_CONFIG_VALUE where its end would destroy it."""
    if container.state() not in _OVER:
        if container.config.ephemeral:
            raise CommandError(
                "E_CONFIG_VALUE",
                f"restart {container.name}",
                "lxc.ephemeral = 1: who stops it destroys it",
                hints=(f"mktemplate config {container.name} unset lxc.ephemeral",),
            )
        container.stop(timeout)
    return start(container)


def signal_number(text: str) -> int:
    """Return the number of a signal: TERM, SIGTERM or 15."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 65:
        return int(text)
    try:
        return int(signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"])
    except KeyError:
        raise CommandError("E_PARAM", "kill", f'"{escape(text)}" is no signal') from None


def wait(container: Container, wanted: str, timeout: float | None) -> None:
    """Wait for a state, or for READY; E_NOTRUNNING where it does not come within `timeout` seconds."""
    if wanted == "READY":
        await_ready(container, timeout)
    elif not container.wait(wanted, timeout):
        raise CommandError(
            "E_NOTRUNNING",
            container.name,
            f"is {container.state()}, not {wanted}, after {timeout:g} s",
        )


def await_ready(container: Container, timeout: float | None) -> float:
    """Wait until the service of a running container accepts; return the seconds that took."""
    check = container.readiness
    exposed = container.bundle.record.exposes
    ports = [int(text.partition("/")[0]) for text in exposed if text.endswith("/tcp")]
    started = time.monotonic()
    pid = container.pid
    if pid is None and container.wait("RUNNING", timeout):
        pid = container.pid
    if pid is None:
        raise CommandError("E_NOTRUNNING", container.name, "is not running")
    if check.kind:
        from mktemplate.life.inside import succeeds
        from runtime import ready

        try:
            ready.wait_ready(check, pid, timeout, partial(succeeds, container), ports)
        except StateError:
            _tell_of_memory(container)
            raise
    return time.monotonic() - started


def _tell_of_memory(container: Container) -> None:
    """Raise E_OOM where that is why it ended before it was ready."""
    from mktemplate.life.views import oom_kills

    container.wait("STOPPED", GRACE)
    if oom_kills(container):
        raise CommandError(
            "E_OOM",
            container.name,
            "the kernel killed it for want of memory before it was ready",
            hints=(
                f"mktemplate config {container.name} get lxc.cgroup2.memory.max shows its limit",
            ),
        )


def _tell_differences(request: Request, found: Bundle, console: Console) -> None:
    """Name what the caller asked for and the existing container does not have: it keeps its options."""
    record = found.record
    asked = (request.words[0], record.template) if len(request.words) > 1 else None
    if asked and asked[0] != asked[1]:
        console.warning(f"{record.name} exists and is a {asked[1]}, not a {asked[0]}")
    from mktemplate.making.recorded import given_options, is_same, option_name, values_of

    recorded = values_of(record.options)
    for key, values in values_of(given_options(request)).items():
        had = recorded.get(key, [])
        if len(had) != len(values) or not all(map(is_same, had, values)):
            console.warning(
                f"{record.name} exists and keeps its {option_name(key)}: "
                f"{', '.join(had) or 'the default'}, not {', '.join(values)}"
            )
