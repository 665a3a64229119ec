"""A container as Python programs see it. Every question is answered anew; every failure is a MktemplateError.

Each method calls what the verb of its name calls; nothing is printed, no signal handled, no directory changed, so
several threads may use it at once: about one container they wait for each other, as commands do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mktemplate.cli.arguments import container_name
from mktemplate.errors import CommandError
from mktemplate.failures import translated
from mktemplate.life import phases
from mktemplate.life.inside import Result, as_argv, capture
from mktemplate.places import resolve
from runtime import container as runtime
from runtime.enter import Command

if TYPE_CHECKING:
    from mktemplate.life.snapshots import Snapshot


class Container:
    """The container `name` below `path`, which need not exist: `state` and all else then raise E_NOTFOUND."""

    @translated()
    def __init__(self, name: str, path: str | os.PathLike[str] = "") -> None:
        """Name a container; `path` is where containers live, by default where the command looks for them."""
        self._found = runtime.Container(resolve(path), container_name(name))

    def __repr__(self) -> str:
        return f"Container({self.name!r}, {str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Container):
            return NotImplemented
        return (self.path, self.name) == (other.path, other.name)

    def __hash__(self) -> int:
        return hash((self.path, self.name))

    @property
    def name(self) -> str:
        """Its name."""
        return self._found.name

    @property
    def path(self) -> Path:
        """The directory that it lies in, with others."""
        return self._found.path

    @property
    def exists(self) -> bool:
        """Whether there is such a container."""
        return (self._found.directory / "config").is_file()

    @property
    @translated()
    def state(self) -> str:
        """STOPPED, STARTING, RUNNING, FREEZING, FROZEN, STOPPING or ABORTING."""
        self._found.bundle  # noqa: B018  # E_NOTFOUND for one that does not exist
        return self._found.state()

    @property
    @translated()
    def pid(self) -> int | None:
        """The host's number of its running first process."""
        return self._found.pid

    @property
    @translated()
    def ips(self) -> tuple[str, ...]:
        """Its addresses while it runs; a normal user's container has none that the host reaches: see `address`."""
        run = self._found.run
        return run.addresses if run and self._found.pid else ()

    @property
    @translated()
    def exit_status(self) -> int | None:
        """How its last run ended, 128+N for signal N; None where it runs or never ran."""
        return self._found.exit_status

    @translated()
    def address(self, port: int | None = None) -> tuple[str, int]:
        """Return where a client on this host reaches TCP `port`, by default the one that it serves.

        E_NOTRUNNING where it has no address and publishes no such port.
        """
        record = self._found.bundle.record
        serves = [int(text.partition("/")[0]) for text in record.exposes if text.endswith("/tcp")]
        serves += [int(record.ready.value)] if record.ready.kind == "port" else []
        wanted = port or (serves[0] if serves else 0)
        for one in record.ports:
            named = one.address != "::"  # which, unlike 0.0.0.0, leads nowhere on this host
            if one.proto == "tcp" and one.container == (wanted or one.container) and named:
                return one.address, one.host
        if self.ips and wanted:
            return self.ips[0], wanted
        raise CommandError(
            "E_NOTRUNNING",
            self.name,
            f"port {wanted} is not to be reached"
            if wanted
            else "says of no port that it serves it",
            hints=("publish it: up(…, publish=PORT)",),
        )

    @translated()
    def info(self, *, isolation: bool = False) -> dict[str, object]:
        """Return what `mktemplate info --json` prints; with `isolation` what is forbidden inside is tried, too."""
        from mktemplate.life import views

        return views.info(self._found, isolation=isolation)

    @translated()
    def start(self) -> Self:
        """Start it; return it once its first process runs. E_RUNNING."""
        phases.start(self._found)
        return self

    @translated()
    def stop(self, timeout: float = phases.GRACE) -> None:
        """Ask it to end, kill what is left after `timeout` seconds. E_NOTRUNNING."""
        phases.stop(self._found, timeout)

    @translated()
    def restart(self, timeout: float = phases.GRACE) -> Self:
        """Stop it if it runs, and start it."""
        phases.restart(self._found, timeout)
        return self

    @translated()
    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its first process; SIGKILL ends everything in it. E_NOTRUNNING."""
        self._found.kill(number)

    @translated()
    def freeze(self) -> None:
        """Suspend every process of it. E_NOTRUNNING."""
        self._found.freeze()

    @translated()
    def unfreeze(self) -> None:
        """Let it go on. E_NOTRUNNING."""
        self._found.unfreeze()

    @translated()
    def wait(self, state: str = "READY", timeout: float | None = None) -> Self:
        """Wait for READY or for a state; E_NOTRUNNING, E_LIMIT where it does not come within `timeout` seconds."""
        self._found.bundle  # noqa: B018  # E_NOTFOUND for one that does not exist
        phases.wait(self._found, state.upper(), timeout)
        return self

    @translated()
    def exec(
        self,
        argv: Sequence[str],
        *,
        user: str = "",
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        input: str | bytes = b"",
        timeout: float | None = None,
    ) -> Result:
        """Run a command inside, with `input` on its standard input; return how it ended and what it wrote.

        E_LIMIT after `timeout` seconds: then it is killed. E_NOTRUNNING; what cannot be executed is an error, too.
        """
        environment = tuple((env or {}).items())
        command = Command(argv=as_argv(argv), user=user, cwd=cwd, environment=environment)
        return capture(self._found, command, input, timeout=timeout)

    @translated()
    def logs(self, lines: int | None = None) -> str:
        """Return the last `lines` lines of what its service wrote, all with None."""
        from mktemplate.life import logged

        return logged.tail(self._found.bundle.log, lines).decode("utf-8", "backslashreplace")

    @translated()
    def snapshot(self, name: str = "") -> Snapshot:
        """Keep it as it is now, as `name` or snap0, snap1, …; one that runs stands still meanwhile. E_EXISTS."""
        from mktemplate.life import snapshots

        return snapshots.create(self._found, name)

    @property
    @translated()
    def snapshots(self) -> tuple[Snapshot, ...]:
        """Its snapshots, oldest first."""
        from mktemplate.life import snapshots

        return snapshots.found(self._found)

    @translated()
    def restore(self, snapshot: str) -> None:
        """Make it, stopped, what it was; what it wrote since is gone. E_RUNNING, E_NOTFOUND."""
        from mktemplate.life import snapshots

        snapshots.restore(self._found, snapshot)

    @translated()
    def drop(self, snapshot: str) -> None:
        """Remove a snapshot. E_NOTFOUND."""
        from mktemplate.life import snapshots

        snapshots.delete(self._found, snapshot)

    @translated()
    def copy(self, name: str) -> Container:
        """Return a new container like it, stopped, with ids, address and identities of its own. E_EXISTS."""
        from mktemplate.life import copies

        copies.make(self._found, container_name(name))
        return Container(name, self.path)

    @translated()
    def rename(self, name: str) -> Container:
        """Give it, stopped, another name; return it under that name. E_RUNNING, E_EXISTS."""
        from mktemplate.life import renaming

        renaming.rename(self._found, container_name(name))
        return Container(name, self.path)

    @translated()
    def destroy(self, *, force: bool = False) -> None:
        """Remove it for good; with `force` also one that runs. E_RUNNING, E_NOTFOUND."""
        self._found.destroy(force=force)
