"""A container: the directory PATH/NAME, and what the kernel and /run/mktemplate know of it now."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import bundle, cgroup, config, etcfiles, halt, startfile, state
from runtime.bundle import Bundle, Ready, read, read_to_remove
from runtime.config import ContainerConfig
from runtime.errors import ConfigError, HostError, LaunchError, StateError
from runtime.refuse import refuse
from runtime.startfile import StartFile
from runtime.state import RunState
from runtime.swap import START
from valuetypes import dataclass, replace

if TYPE_CHECKING:  # what starts and removes takes 40 ms to import: the methods that do so import it
    from runtime import prepare, standalone
    from runtime.program import Program

_GONE = 70.0  # seconds until a killed container must have ended: its stop hooks have a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A start that succeeded."""

    pid: int  # of init, as the host numbers it
    ips: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    monitor: int  # of our child, in the foreground


class Container:
    """The container NAME below PATH. Every question is answered anew: another command may have acted meanwhile."""

    def __init__(self, path: str | Path, name: str) -> None:
        """Name a container, which need not exist."""
        if not bundle.is_name(name):
            raise StateError("E_NOTFOUND", name, "is no name of a container")
        self.path = Path(os.path.abspath(path))
        self.name = name

    @property
    def directory(self) -> Path:
        """PATH/NAME."""
        return self.path / self.name

    @property
    def bundle(self) -> Bundle:
        """Its directory, read now. Raises StateError (E_NOTFOUND)."""
        return bundle.read(self.directory)

    @property
    def config(self) -> ContainerConfig:
        """Its configuration, read now. Raises ConfigError."""
        return config.load(self.directory / "config")

    @property
    def run(self) -> RunState | None:
        """What is known of its last start since boot."""
        return state.load(self.path, self.name)

    @property
    def readiness(self) -> Ready:
        """What tells that its service accepts; nothing has to where others have opened its sockets."""
        check, run = self.bundle.record.ready, self.run
        return Ready() if run is not None and run.sockets and check.kind == "port" else check

    @property
    def pid(self) -> int | None:
        """The pid of its running init."""
        run = self.run
        if run is None:
            return None
        with run.init.alive() as pidfd:
            return run.init.pid if pidfd is not None else None

    @property
    def exit_status(self) -> int | None:
        """How its last run ended: a status, 128+N for signal N; None where it runs, never ran, or nobody saw."""
        run = self.run
        return run.exit_status if run is not None and self.state() == "STOPPED" else None

    def state(self) -> str:
        """Return STOPPED, STARTING, RUNNING, FREEZING, FROZEN, STOPPING or ABORTING."""
        return self._state(ours=False)

    def _state(self, *, ours: bool) -> str:
        """Return the state, as whoever holds the lock (`ours`) or does not sees it."""
        run = self.run
        if run is None or run.phase == "STOPPED":
            return "STOPPED"
        with run.monitor.alive() as watching, run.init.alive() as running:
            if run.phase == "STARTING":  # until the monitor has signed, it has its starter's lock
                held = not ours and state.is_locked(self.path, self.name)
                return "STARTING" if watching is not None or held else "STOPPED"
            if running is None:
                return "STOPPING" if watching is not None else "STOPPED"
            if watching is None:
                return "ABORTING"
        return run.phase

    def program(self) -> Program:
        """Return what `start` would do, without doing any of it."""
        from runtime import prepare

        settings = self._settings()
        return prepare.program(self._place, settings)

    def start(
        self, *, foreground: bool = False, stdio: tuple[int, int, int] = (0, 1, 2), sockets: int = 0
    ) -> Started:
        """Start it; return when its init has been executed. In the foreground its init has `stdio`.

        Init also gets our descriptors from 3 on, as many as `sockets`, which listen (sd_listen_fds(3)).

        StateError: E_RUNNING. ConfigError, HostError, LaunchError: why not; then nothing of the start is left.
        """
        began = time.monotonic()
        streams = stdio if foreground else None
        program = None if sockets else self.start_program()
        if program:
            pid, run = self._start_by(program, streams)
        else:
            pid, run = self._start_here(streams, sockets)
        seconds, pid = time.monotonic() - began, pid if foreground else 0
        return Started(pid=run.init.pid, ips=run.ips, notes=run.notes, seconds=seconds, monitor=pid)

    def start_program(self) -> StartFile | None:
        """Return its start program, written anew where it is missing or stale; None where only Python can start it."""
        path = self.directory / START
        if not (program := startfile.current(path)):
            from runtime import standalone

            with self._locked():
                self._must_be_stopped()
                program = standalone.write(self._place, self._look(), path)
        return program

    def _start_by(self, program: StartFile, stdio: standalone.Stdio) -> tuple[int, RunState]:
        """Start it by its start program, which stays as its monitor."""
        from runtime import standalone

        with state.lock(self.path, self.name) as lock:
            self._must_be_stopped()
            if not os.path.exists(program.path):  # a swap took it: it mounts what is no longer
                raise StateError("E_RUNNING", self.name, "was just swapped", hints=("try again",))
            with self._reclaiming():
                return standalone.start(self._place, program, lock, self._look(), stdio)

    def _look(self) -> standalone.Look:
        return self._settings, lambda: self.bundle

    def _start_here(self, stdio: standalone.Stdio, sockets: int) -> tuple[int, RunState]:
        """Start it by a fork of this Python, which stays as its monitor."""
        from runtime import monitor, prepare, sharing

        with self._locked() as found:
            self._must_be_stopped()
            settings = self._settings()
            with ExitStack() as lent:
                shared = sharing.opened(settings, self.path, lent)
                with ExitStack() as undo:
                    order = prepare.order(self._place, settings, found, undo, sockets)
                    undo.pop_all()
                with self._reclaiming():
                    return monitor.start(replace(order, stdio=stdio, shared=shared))

    @contextmanager
    def _reclaiming(self) -> Iterator[None]:
        """Reclaim what is left of a start that fails in this block."""
        try:
            yield
        except BaseException:
            self._reclaim_if_left()
            raise

    def stop(self, timeout: float = 10.0) -> None:
        """Ask init to end, and kill what is left after `timeout` seconds. StateError: E_NOTRUNNING."""
        with self._locked():
            run = self.running()
            if run.phase == "FROZEN":
                self.cgroup(run).thaw()
            state.save(replace(run, phase="STOPPING"))
            settings = self._lenient_config()
            number = settings.signal_halt if settings else 0
            number = number or halt.default_halt(run.init.pid)
            with run.init.alive() as pidfd:
                if pidfd is not None and halt.listens(run.init.pid, number) and timeout > 0:
                    signal.pidfd_send_signal(pidfd, number)
                    select.select([pidfd], [], [], timeout)
            self._finish(run)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to init; SIGKILL ends the whole container. StateError: E_NOTRUNNING."""
        run = self.running()
        if number == signal.SIGKILL:
            with self._locked():
                self._finish(run)
        elif not run.init.send(number):
            raise self._not_running()

    def freeze(self) -> None:
        """Stop every process of it where it stands. StateError: E_NOTRUNNING."""
        with self._locked():
            run = self.running()
            state.save(replace(run, phase="FREEZING"))
            try:
                self.cgroup(run).freeze()
            except BaseException:
                state.save(run)
                raise
            state.save(replace(run, phase="FROZEN"))

    def unfreeze(self) -> None:
        """Let its processes go on. StateError: E_NOTRUNNING."""
        with self._locked():
            run = self.running()
            self.cgroup(run).thaw()
            state.save(replace(run, phase="RUNNING"))

    def wait(self, wanted: str = "STOPPED", timeout: float | None = None) -> bool:
        """Wait until it is in the state `wanted`, woken by the kernel; return whether it is."""
        from runtime import waiting

        return waiting.until(self.path, lambda: self.state() == wanted, lambda: self.run, timeout)

    def recover(self) -> None:
        """Reclaim what a killed monitor left: the processes, the network, the cgroup, the run state."""
        with self._locked():
            run = self.run
            if run is None or run.phase == "STOPPED":
                return
            with run.monitor.alive() as pidfd:
                if pidfd is not None:
                    return
            self._reclaim(run)

    def destroy(self, *, force: bool = False) -> None:
        """Remove it for good. StateError: E_NOTFOUND; E_RUNNING, also while a mount is below its directory."""
        with self._locked(read_to_remove) as found:
            if self._state(ours=True) != "STOPPED":
                if not force:
                    raise StateError(
                        "E_RUNNING",
                        self.name,
                        "is running",
                        hints=(f"mktemplate stop {self.name}",),
                    )
                run = self.run
                if run is not None:
                    self._finish(run)
            self._reclaim_if_left()
            from runtime import hooks, idmap, prepare, remove

            prepare.remove_group(self.path, self.name, self._lenient_config())

            hooks.before_destroy(self._lenient_config(), self.name, found.config)
            with remove.container(self.path, self.name):
                idmap.release_all(self.path, self.name)
                etcfiles.remove(self._place.etc)
                prepare.forget_network(self.path, self.name)
                state.forget(self.path, self.name)

    @property
    def _place(self) -> prepare.Place:
        from runtime import prepare

        etc = state.folder(self.path) / f"{self.name}.etc"
        return prepare.Place(path=self.path, name=self.name, etc=etc)

    @contextmanager
    def _locked(self, look: Callable[[Path], Bundle] = read) -> Iterator[Bundle]:
        """Hold the lock of a container that exists; for another no lock is left behind."""
        look(self.directory)
        with state.lock(self.path, self.name):
            try:
                found = look(self.directory)
            except StateError:
                state.forget(self.path, self.name)
                raise
            yield found

    def running(self) -> RunState:
        """Return the run state of a running container; StateError (E_NOTFOUND, E_NOTRUNNING) for another."""
        bundle.read(self.directory)
        run = self.run
        if run is None or self.state() not in {
            "RUNNING",
            "FROZEN",
            "FREEZING",
            "STOPPING",
            "ABORTING",
        }:
            raise self._not_running()
        return run

    def _not_running(self) -> StateError:
        return StateError(
            "E_NOTRUNNING", self.name, "is not running", hints=(f"mktemplate start {self.name}",)
        )

    def _must_be_stopped(self) -> None:
        if self._state(ours=True) not in {"STOPPED", "ABORTING"}:
            raise StateError("E_RUNNING", self.name, "is running already")
        self._reclaim_if_left()

    def _settings(self) -> ContainerConfig:
        settings = self.config
        refuse(settings)
        return settings

    def _lenient_config(self) -> ContainerConfig | None:
        try:
            return self.config
        except ConfigError:
            return None

    def cgroup(self, run: RunState) -> cgroup.Cgroup:
        """Return the cgroups of a running container; HostError (E_CGROUP) where it has none."""
        if not run.cgroup:
            raise HostError(
                "E_CGROUP", self.name, "has no control group: a normal user's container"
            )
        return cgroup.Cgroup.from_json(run.cgroup)

    def _finish(self, run: RunState) -> None:
        """Kill what is left and wait until the monitor has recorded the end; or do its work."""
        if (
            run.init == state.NOBODY
        ):  # its starter was killed in the middle: init dies with its monitor
            run.monitor.send(signal.SIGKILL)
        run.init.send(signal.SIGKILL)
        if run.cgroup:
            with suppress(FileNotFoundError):
                self.cgroup(run).kill()
        with run.monitor.alive() as pidfd:
            if pidfd is not None and not select.select([pidfd], [], [], _GONE)[0]:
                raise LaunchError("E_INIT_DIED", self.name, "its monitor does not end")
        self._reclaim_if_left()
        if (ended := self.run) is not None:
            state.save(replace(ended, asked=True))

    def _reclaim_if_left(self) -> None:
        """Do what a monitor that was killed during the start could not."""
        run = self.run
        if run is not None and run.phase != "STOPPED":
            self._reclaim(run)

    def _reclaim(self, run: RunState) -> None:
        from runtime import prepare

        for process_ in (run.monitor, run.init):
            if process_.pid != os.getpid():
                process_.send(signal.SIGKILL)
        if run.cgroup:
            group = self.cgroup(run)
            with suppress(FileNotFoundError):
                group.kill()
            group.remove()
        etcfiles.remove(self._place.etc)
        prepare.release_network(self.path, self.name)
        state.save(
            replace(run, phase="STOPPED", exit_status=None, init=state.NOBODY, ips=(), cgroup={})
        )


def containers(path: str | Path) -> tuple[Container, ...]:
    """Return the containers below `path`, by name."""
    try:
        names = sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(
        Container(path, name)
        for name in names
        if bundle.is_name(name) and os.path.isfile(os.path.join(path, name, "config"))
    )
