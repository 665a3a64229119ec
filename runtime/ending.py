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

_WAITED = frozenset((2, 3))  # words of a start program's command line that is no supervisor's child


def command(run: RunState, *, network: str, delegated: bool, restarts: bool) -> tuple[str, ...]:
    """Return the command for a container whose network has the key `network`; none where nothing is left to do.

    `delegated`: it may have made control groups below its own. `restarts`: it has a restart policy.
    """
    if not (network or delegated or restarts):
        return ()
    groups = json.dumps(run.cgroup) if delegated else ""
    policy = "restarts" if restarts else ""
    return aside.command("runtime.ending", "main", run.path, run.name, network, groups, policy)


def main(path: str, name: str, network: str, groups: str, policy: str) -> None:
    """Be that command, as a child of the start program; where it has a supervisor, that one decides."""
    if network:
        from runtime import network as networks

        networks.release(network, over=lambda: _is_over(Path(path), name))
    if groups:
        from runtime.cgroup import Cgroup
        from runtime.errors import HostError

        with suppress(HostError):  # what is left then is replaced by the next start
            Cgroup.from_json(json.loads(groups)).remove()
    if policy:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            words = file.read().count(b"\0")
        if words in _WAITED:
            from runtime import restarts

            restarts.leave(Path(path), name)


def _is_over(path: Path, name: str) -> bool:
    """Whether nobody has begun to start the container again: that may happen as soon as it says that it has stopped."""
    run = state.load(path, name)
    return run is None or run.phase == "STOPPED"
