"""lxc.ephemeral: a container that is destroyed when it has ended, whoever ended it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runtime.errors import ContainerError


def leave(path: Path, name: str) -> None:
    """Leave that to a child that outlives us: whoever stops the container holds its lock until we have ended."""
    if os.fork():
        return
    from runtime.container import Container

    try:
        os.setsid()
        with suppress(ContainerError):  # started again, or destroyed meanwhile
            Container(path, name).destroy()
    finally:
        os._exit(0)
