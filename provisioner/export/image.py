"""What is to be shipped, as values: the layers of a container and how its service is started.

Only what any engine may be told stands here (T-63): nothing of the host, no rights, no secrets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioner.sandbox import Sandbox
from valuetypes import dataclass

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One directory that an overlay puts over those before it."""

    path: Path
    title: str  # "base", "service", "tree", or "written" for what the container itself wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container as every target is told of it."""

    name: str
    template: str
    distro: str
    release: str
    arch: str  # as the distribution names it
    epoch: int  # seconds; the latest time in its layers, and when it counts as made
    parts: tuple[Part, ...]  # bottom first
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    folder: str = "/"  # its working directory
    user: str = ""  # UID:GID of PID 1 where that is not root
    ports: tuple[str, ...] = ()  # that it listens on: "22/tcp"
    volumes: tuple[str, ...] = ()  # absolute paths inside whose data lies elsewhere
    stop_signal: str = "SIGTERM"
    health: tuple[str, ...] = ()  # an argv that succeeds when it is ready
    sandbox: Sandbox | None = None  # through which a normal user reads the parts, as `Store` has it

    @property
    def written(self) -> bool:
        """Whether the last part is what the container itself wrote over its layers."""
        return len(self.parts) > 1 and self.parts[-1].title == "written"


@contextmanager
def opened(parts: tuple[Part, ...]) -> Iterator[tuple[int, ...]]:
    """Open the directories of `parts`, topmost first, for the length of the block."""
    found: list[int] = []
    try:
        for part in reversed(parts):
            found.append(os.open(part.path, _DIRECTORY))
        yield tuple(found)
    finally:
        for each in found:
            os.close(each)
