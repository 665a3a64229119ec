"""How the pipeline tells what it is doing. The command decides what a person sees of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Receives phases: index, resolve, download, unpack, configure."""

    def phase(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Open the phase `name` of `total` units (bytes, or packages); the value advances it by n."""
        ...


class Silent:
    """A Progress that shows nothing."""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Open a phase that nobody sees."""
        yield lambda n: None


SILENT = Silent()
