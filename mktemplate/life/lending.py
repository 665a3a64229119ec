"""Copies of warm snapshots for programs that need one after the other, each as if new: for tests.

A copy that is given back is killed; what it wrote is gone with it, and the container, its ids and its address wait for
the next one who asks for the same. All of them belong to this process, and go when it goes (see `owned`).
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import Unpack

from mktemplate import container as library
from mktemplate.failures import translated
from mktemplate.keywords import UpOptions, request
from mktemplate.life import copies, owned, phases, warm
from mktemplate.places import resolve
from runtime import startfile
from runtime.bundle import Port
from runtime.container import Container
from runtime.errors import ContainerError
from valuetypes import dataclass, field

_KEPT = ("config", "fstab", "seccomp", "state.json")


@dataclass(frozen=True, slots=True)
class Copy:
    """A container upon a warm snapshot, and how it looked when it was made."""

    snapshot: Container
    container: Container
    looks: startfile.Looks = field(compare=False)

    @classmethod
    def make(cls, snapshot: Container, ports: tuple[Port, ...]) -> Copy:
        """Make one that is stopped."""
        found = Container(snapshot.path, owned.name("copy"))
        copies.lend(snapshot, found.name, ports)
        return cls(snapshot, found, _looks(found))

    def is_intact(self) -> bool:
        """Whether nobody has changed it but from inside."""
        return (
            _looks(self.container) == self.looks
            and not (self.container.directory / "snapshots").exists()
        )

    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.container.state() == "STOPPED"

    def end(self) -> None:
        """Kill what runs of it, without waiting for the end."""
        run = self.container.run
        if run is not None:
            run.init.send(signal.SIGKILL)

    def start(self, timeout: float | None) -> None:
        """Start it as if it had never run; return when it is ready."""
        with suppress(ContainerError):  # it has ended already, as it should
            self.container.kill()
        with suppress(FileNotFoundError):
            os.truncate(self.container.bundle.log, 0)
        phases.start(self.container)
        phases.await_ready(self.container, timeout)


def _looks(container: Container) -> startfile.Looks:
    return startfile.looks(str(container.directory / name) for name in _KEPT)


class Lender:
    """Lends copies to one process; nothing of it may be used by several threads at once."""

    def __init__(self, path: str | os.PathLike[str] = "") -> None:
        """Keep them below `path`, by default where the command looks for containers."""
        self.path = resolve(path)
        self._idle: dict[str, list[Copy]] = {}  # by their snapshot and ports
        self._lent: dict[Container, tuple[str, Copy]] = {}

    @translated()
    def lend(self, template: str, **options: Unpack[UpOptions]) -> library.Container:
        """Return a container of `template` with `options`, as `up` makes them, nobody else's and ready.

        The first one takes as long as `up` does, since a snapshot of it is made; those after it are copies of that.
        `publish` names ports inside: each is published on a free port of the host, and `address` says on which.
        """
        timeout = options.pop("timeout", None)
        publish = options.pop("publish", ())
        key = repr((template, publish, sorted(options.items(), key=lambda pair: pair[0])))
        copy = self._idle_one(key) or self._make(template, publish, options)
        self._lent[copy.container] = (key, copy)
        copy.start(timeout)
        return library.Container(copy.container.name, self.path)

    def _idle_one(self, key: str) -> Copy | None:
        """Return a copy that waits, if there is one: of two one has always ended, so nobody waits for an end."""
        idle = self._idle.setdefault(key, [])
        found = next(
            (copy for copy in idle if copy.has_ended()), idle[0] if len(idle) > 1 else None
        )
        if found is not None:
            idle.remove(found)
        return found

    def _make(self, template: str, publish: object, options: UpOptions) -> Copy:
        owned.sweep(self.path)
        owned.guard(self.path)
        with warm.snapshot(template, options | {"path": self.path}, self.path) as snapshot:
            return Copy.make(snapshot, self._ports(snapshot, template, publish))

    @staticmethod
    def _ports(snapshot: Container, template: str, publish: object) -> tuple[Port, ...]:
        """Return a free port of the host for each that is to be published."""
        with request("up", (template,), {"publish": publish}) as asked:  # type: ignore[typeddict-item]  # it is checked
            inside = {port.container: port.proto for port in asked.build.publish}
        if os.geteuid() != 0:  # there is no other way to it
            for text in snapshot.bundle.record.exposes:
                number, _, proto = text.partition("/")
                inside.setdefault(int(number), proto)
        return tuple(Port(host=_free(), container=port, proto=p) for port, p in inside.items())

    @translated()
    def give_back(self) -> None:
        """Take back all that is lent."""
        for key, copy in self._lent.values():
            copy.end()
            if copy.is_intact():
                self._idle[key].append(copy)
            else:
                self._destroy(copy)
        self._lent.clear()

    @translated()
    def close(self) -> None:
        """Destroy all copies; the snapshots stay."""
        self.give_back()
        for idle in self._idle.values():
            for copy in idle:
                self._destroy(copy)
        self._idle.clear()

    def _destroy(self, copy: Copy) -> None:
        if copy.container.directory.exists():  # a test may have destroyed it itself
            copy.container.destroy(force=True)


def _free() -> int:
    """Return a port that nothing on the host's loopback uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
