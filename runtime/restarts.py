"""Restart policies: what becomes of a container that has ended, unless somebody asked it to.

The monitor's last deed is to leave this to a process of its own, which waits as long as it must, starts the container
and ends; nothing more is resident while the container runs. `stop` and `kill` say in the run state that they asked.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import state
from runtime.errors import ConfigError, ContainerError
from runtime.state import RunState
from valuetypes import dataclass, replace

if TYPE_CHECKING:
    from runtime.container import Container

_POLICY = re.compile(r"no|always|on-failure(?::([1-9][0-9]{0,5}))?", re.ASCII)
_FIRST, _LONGEST = 0.1, 60.0  # seconds before the first new start; it doubles
_SETTLED = 10.0  # seconds after which a run counts as one that worked


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When to start again: never, always, or after a status that is not 0, at most `limit` times (0: for ever)."""

    kind: str
    limit: int = 0

    def wants(self, status: int | None, tries: int) -> bool:
        """Whether a container that ended with `status` after `tries` new starts is to be started again."""
        if self.kind == "no" or (self.kind == "on-failure" and status == 0):
            return False
        return not self.limit or tries < self.limit


def policy(text: str) -> Policy:
    """Read `no`, `always`, `on-failure[:N]`. ConfigError: E_PARAM."""
    found = _POLICY.fullmatch(text)
    if found is None:
        raise ConfigError("E_PARAM", "--restart", f"{text!r} is none of no, on-failure[:N], always")
    return Policy(kind=text.partition(":")[0], limit=int(found[1] or 0))


def leave(path: Path, name: str) -> None:
    """Leave it to a child that outlives us."""
    if os.fork():
        return
    try:
        os.setsid()
        _again(path, name)
    finally:
        os._exit(0)


def cancel(container: Container) -> bool:
    """Keep a container that has ended, and may be about to be started again, from it; say whether it had to be."""
    if container.bundle.record.restart == "no":
        return False
    with state.lock(container.path, container.name):
        run = container.run
        if run is None or run.phase != "STOPPED" or run.asked:
            return False
        state.save(replace(run, asked=True))
    return True


def _again(path: Path, name: str) -> None:
    """Start the container as often as its policy has it."""
    from runtime.container import Container

    container = Container(path, name)
    with suppress(ContainerError):  # destroyed meanwhile
        while (run := _ended(container)) is not None:
            tries = _tries(path, name)
            if not policy(container.bundle.record.restart).wants(run.exit_status, tries):
                return
            _tell(path, name, tries + 1, began=0.0)
            time.sleep(min(_FIRST * 2**tries, _LONGEST))
            if _ended(container) != run:
                return  # somebody was faster, or asked it to stay
            try:
                container.start()
            except ContainerError as error:
                _log(container, error)
                continue
            _tell(path, name, tries + 1, began=time.time())
            return


def _ended(container: Container) -> RunState | None:
    """Return how it ended, once whoever holds its lock is done; None where it runs, or was asked to end."""
    _ = container.bundle  # raises where it is gone
    with state.lock(container.path, container.name):
        run = container.run
    return run if run is not None and run.phase == "STOPPED" and not run.asked else None


def _tries(path: Path, name: str) -> int:
    """Return how often it was started anew in a row; a run that lasted ends the row."""
    try:
        told = json.loads(_file(path, name).read_bytes())
        began = float(told["began"])
        return 0 if began and time.time() - began >= _SETTLED else int(told["tries"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _tell(path: Path, name: str, tries: int, *, began: float) -> None:
    _file(path, name).write_text(json.dumps({"tries": tries, "began": began}), encoding="ascii")


def _file(path: Path, name: str) -> Path:
    return state.folder(path) / f"{name}.tries"


def _log(container: Container, error: ContainerError) -> None:
    """Say in the container's log why it could not be started again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError), open(os.open(container.bundle.log, flags, 0o600), "ab") as file:
        file.write(f"mktemplate: not started again: {error}\n".encode("utf-8", "replace"))
