"""`start --foreground`: be there until the container ends, as a supervisor has it; also from sockets that listen."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.errors import CommandError
from mktemplate.life import phases
from mktemplate.places import containers_path
from runtime import idmap, relay, sockets
from runtime.container import Container
from runtime.errors import ContainerError, StateError
from runtime.relay import Relay

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
_LOOK = 1.0  # seconds between two looks for connections


def stay(request: Request) -> int:
    """Start one container and be there until it ends; its status is ours, 0 where it was idle."""
    if len(request.words) != 1:
        raise CommandError("E_USAGE", "start --foreground", "takes one container")
    container = Container(containers_path(request), container_name(request.words[0]))
    count = sockets.given(os.environ)
    watch = _watch(request, count)
    ids = idmap.from_config(container.config.idmap)
    with relay.streams((0, 0) if ids is None else ids.root()) as streams:
        begun = container.start(foreground=True, stdio=streams.stdio, sockets=count)
        streams.started()
        _pass_on_signals(container)
        monitor = os.pidfd_open(begun.monitor)
        try:
            if watch and _is_idle(watch, streams, monitor, request.flags.idle):
                with suppress(StateError):  # it has just ended by itself
                    container.stop(phases.GRACE)
                streams.until(monitor)
                return 0
            streams.until(monitor)
        finally:
            os.close(monitor)
    ended = os.waitstatus_to_exitcode(os.waitpid(begun.monitor, 0)[1])
    status = container.exit_status
    if status is not None:
        return status
    return ended if ended >= 0 else 128 - ended  # killed, or destroyed by now (lxc.ephemeral)


def _pass_on_signals(container: Container) -> None:
    """Let the container hear what is said to us."""

    def pass_on(number: int, frame: object) -> None:
        halts = number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        try:
            container.kill(container.config.signal_halt or signal.SIGTERM if halts else number)
        except (ContainerError, OSError) as error:  # who waits for an end must know why none comes
            os.write(
                2,
                f"mktemplate: {container.name}: signal {number} not passed on: {error}\n".encode(),
            )

    for number in _PASSED_ON:
        signal.signal(number, pass_on)


def _watch(request: Request, count: int) -> sockets.Watch | None:
    """Return what looks for connections, where it is asked for."""
    if not request.flags.idle:
        return None
    if not count:
        raise CommandError(
            "E_USAGE",
            "start --idle",
            "needs sockets that listen, as systemd hands them over (LISTEN_FDS)",
            hints=(f"mktemplate unit {request.words[0]} --socket --idle TIME prints the units",),
        )
    return sockets.Watch(count)


def _is_idle(watch: sockets.Watch, streams: Relay, monitor: int, limit: int) -> bool:
    """Wait until nobody has been connected for `limit` seconds; False where the container ends before."""
    last = time.monotonic()
    while not streams.until(monitor, _LOOK):
        now = time.monotonic()
        if watch.is_busy():
            last = now
        elif now - last >= limit:
            return True
    return False
