"""The last deed of a start program: what only Python can give back, and what becomes of the container then.

Run by the start program when the container has ended and everything else is given back; it waits for it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from runtime import aside, state
from runtime.state import RunState

RESTART, DESTROY = "restart", "destroy"
_WAITED = frozenset((2, 3))  # words of a start program's command line that is no supervisor's child


def command(run: RunState, *, network: str, delegated: bool, deed: str) -> tuple[str, ...]:
    """Return the command for a container whose network has the key `network`; none where nothing is left to do.

    `delegated`: it may have made control groups below its own. `deed`: what becomes of it, RESTART or DESTROY.
    """
    if not (network or delegated or deed):
        return ()
    groups = json.dumps(run.cgroup) if delegated else ""
    return aside.command("runtime.ending", "main", run.path, run.name, network, groups, deed)


def leave(path: Path, name: str, deed: str, *, supervised: bool) -> None:
    """Leave `deed` to a process of its own; who supervises a container decides himself whether it starts again."""
    if deed == DESTROY:
        from runtime import ephemeral

        ephemeral.leave(path, name)
    elif deed == RESTART and not supervised:
        from runtime import restarts

        restarts.leave(path, name)


def main(path: str, name: str, network: str, groups: str, deed: str) -> None:
    """Be that command, as a child of the start program."""
    if network:
        from runtime import network as networks

        networks.release(network, over=lambda: _is_over(Path(path), name))
    if groups:
        from runtime.cgroup import Cgroup
        from runtime.errors import HostError

        with suppress(HostError):  # what is left then is replaced by the next start
            Cgroup.from_json(json.loads(groups)).remove()
    if deed:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            words = file.read().count(b"\0")
        leave(Path(path), name, deed, supervised=words not in _WAITED)


def _is_over(path: Path, name: str) -> bool:
    """Whether nobody has begun to start the container again: that may happen as soon as it says that it has stopped."""
    run = state.load(path, name)
    return run is None or run.phase == "STOPPED"
