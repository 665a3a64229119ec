"""The generations of a container: one takes another's place, is tried, and is put back where it does not get ready.

What a generation is, and how the places are exchanged whatever is killed on the way, is told in `runtime.swap`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.life.phases import GRACE, await_ready
from mktemplate.life.snapshots import stopped
from provisioner.store import Store
from runtime import bundle, restarts, swap
from runtime.bundle import Bundle
from runtime.container import Container
from runtime.errors import ContainerError, StateError

_ENDED = frozenset(("STOPPED", "ABORTING"))


def layers(directory: Path) -> set[str]:
    """Return the digests of the layers that the other generations of the container in `directory` are made of."""
    used: set[str] = set()
    for name in swap.GENERATIONS:
        with suppress(StateError):  # there is none
            used |= set(bundle.read(directory / name).record.layers)
    return used


def previous(container: Container) -> Bundle | None:
    """Return what `rollback` goes back to; a trial that was killed counts as one that worked."""
    for name in (swap.REPLACED, swap.PREVIOUS):
        with suppress(StateError):
            return bundle.read(container.directory / name)
    return None


def settle(container: Container, store: Store) -> None:
    """Keep what was replaced last, and only that, for `rollback`."""
    replaced, kept = (container.directory / name for name in (swap.REPLACED, swap.PREVIOUS))
    if os.path.lexists(replaced):
        store.trash(kept)
        os.rename(replaced, kept)


class Trial:
    """One exchange of generations: the container is stopped for it, and runs afterwards if it ran before."""

    def __init__(self, container: Container, store: Store, console: Console) -> None:
        """Exchange the generations of `container`, whose lock `create.NAME` the caller holds."""
        self._container = container
        self._store = store
        self._console = console
        self.ran = container.state() not in _ENDED
        self.downtime = 0.0  # seconds from being asked to stop until it was ready again

    def take(self, bring: Callable[[], None], timeout: float | None) -> None:
        """Stop the container, let `bring` put a generation at PATH/NAME/swap, take it in and wait until it is ready.

        CommandError E_UPGRADE where it does not get ready in time: then the one before runs again.
        """
        begun = time.monotonic()
        try:
            if self.ran:
                self._container.stop(GRACE)
            with stopped(self._container):
                settle(self._container, self._store)
                bring()
                swap.finish(self._container.directory)
        except BaseException:
            if self.ran:
                with suppress(ContainerError):  # what was raised first is what the user must know
                    self._container.start()
            raise
        if not self.ran:
            settle(self._container, self._store)
            return
        self._try(timeout)
        self.downtime = time.monotonic() - begun
        settle(self._container, self._store)

    def _try(self, timeout: float | None) -> None:
        name = self._container.name
        try:
            self._start(timeout)
        except ContainerError as failure:
            self._console.warning(f"{name}: {failure.detail}; puts the old one back")
            again = self._put_back()
            raise CommandError(
                "E_UPGRADE",
                name,
                f"the new one did not get ready: {failure.detail}; {again}",
                hints=(f"mktemplate logs {name} shows what it said",),
            ) from None
        except BaseException:
            self._put_back()
            raise

    def _start(self, timeout: float | None) -> None:
        started = self._container.start()
        for note in started.notes:
            self._console.note(f"{self._container.name}: {note}")
        await_ready(self._container, timeout)

    def _put_back(self) -> str:
        """Let the generation that was replaced run again; say whether it does."""
        container, directory = self._container, self._container.directory
        if container.state() not in _ENDED:
            with suppress(StateError):  # it ended by itself
                container.stop(GRACE)
        restarts.cancel(container)
        with stopped(container):
            swap.complete(directory / swap.REPLACED, directory)
            os.rename(directory / swap.REPLACED, directory / swap.INCOMING)
            swap.finish(directory)
        self._store.trash(directory / swap.REPLACED)
        try:
            self._start(None)
        except ContainerError as failure:
            return f"the old one is back, and does not get ready either: {failure.detail}"
        return "the old one runs again"
