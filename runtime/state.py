"""What runs now: one JSON file per container below /run/mktemplate, keyed by PATH and NAME.

A process is (boot id, pid, start time), and is signalled through a pidfd that was checked against it: a number
alone may be somebody else's by now (I-16).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime import swap
from runtime.bundle import replace_file
from runtime.errors import ResourceError
from valuetypes import asdict, dataclass, field

_ROOT = Path("/run/mktemplate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process, for ever."""

    boot_id: str
    pid: int
    starttime: int  # clock ticks since boot, proc_pid_stat(5)

    @staticmethod
    def of(pid: int) -> Identity:
        """Return the identity of the running process `pid`."""
        return Identity(boot_id=boot_id(), pid=pid, starttime=starttime(pid))

    def open(self) -> int | None:
        """Return a pidfd of it, or None where it is no more."""
        if self.pid <= 0 or self.boot_id != boot_id():
            return None
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        try:
            if starttime(self.pid) == self.starttime:
                return descriptor
        except (FileNotFoundError, ProcessLookupError):
            pass
        os.close(descriptor)
        return None

    @contextmanager
    def alive(self) -> Iterator[int | None]:
        """Open it for the length of the block; None where it has ended, reaped or not."""
        pidfd = self.open()
        try:
            dead = pidfd is not None and select.select([pidfd], [], [], 0)[0]
            yield None if dead else pidfd
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def send(self, number: int) -> bool:
        """Send the signal `number`; return whether there was a process to take it."""
        descriptor = self.open()
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


NOBODY = Identity(boot_id="", pid=0, starttime=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What is known about a container that was started since boot."""

    name: str
    path: str  # PATH, not PATH/NAME
    phase: str  # STARTING RUNNING FREEZING FROZEN STOPPING STOPPED
    monitor: Identity = NOBODY
    init: Identity = NOBODY
    started: str = ""  # RFC 3339, UTC
    exit_status: int | None = None
    ips: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    cgroup: dict[str, Any] = field(default_factory=dict)
    netkey: str = ""  # the network's name for this container
    asked: bool = False  # somebody asked it to end: no restart policy counts
    sockets: int = 0  # listening sockets that its starter gave it

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses without the lengths of their networks."""
        return tuple(ip.partition("/")[0] for ip in self.ips)


def boot_id() -> str:
    """Return what tells this boot from others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def starttime(pid: int) -> int:
    """Return when `pid` was started, in clock ticks since boot."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def root() -> Path:
    """Return where run state lies: root's, or the user's own."""
    if os.geteuid() == 0:
        return _ROOT
    return user_directory() / "mktemplate"


def user_directory() -> Path:
    """Return the directory that a login gives a normal user, also where the environment does not name it."""
    usual = f"/run/user/{os.geteuid()}"
    directory = os.environ.get("XDG_RUNTIME_DIR", "") or (usual if os.path.isdir(usual) else "")
    if not directory:
        raise ResourceError(
            "E_LOCKED",
            "XDG_RUNTIME_DIR",
            "is not set, and there is no directory below /run/user for you",
            hints=("loginctl enable-linger, as that user, makes one; or log in, or set it",),
        )
    return Path(directory)


def key(path: Path, name: str) -> str:
    """Return the name under which the host's things (cgroup, network) know this container."""
    return f"{_digest(path)}.{name}"


def folder(path: Path) -> Path:
    """Return where the run states of `path` lie, whether it is there or not."""
    return root() / _digest(path)


def directory(path: Path) -> Path:
    """Return the folder of the run states of `path`, made where it is missing."""
    place = folder(path)
    for made in (place.parent, place):
        with suppress(FileExistsError):
            os.mkdir(made, 0o700)
        status = os.lstat(made)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ResourceError(
                "E_LOCKED", str(made), "is not ours alone", hints=(f"rm -r {made}",)
            )
    return place


def load(path: Path, name: str) -> RunState | None:
    """Return the run state of the container, or None where it was not started since boot."""
    try:
        with open(folder(path) / f"{name}.json", "rb") as file:
            value = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ResourceError("E_CORRUPT", name, f"run state: {error}") from None
    return from_json(value)


def from_json(value: dict[str, Any]) -> RunState:
    """Return the run state that asdict and JSON have made `value` of."""
    processes = {who: Identity(**value[who]) for who in ("monitor", "init")}
    lists = {name: tuple(value[name]) for name in ("ips", "notes", "degraded")}
    return RunState(**value | processes | lists)


def save(state: RunState) -> None:
    """Write the run state, by one rename."""
    replace_file(
        directory(Path(state.path)) / f"{state.name}.json",
        json.dumps(asdict(state)).encode(),
        durable=False,
    )


def forget(path: Path, name: str) -> None:
    """Remove all run state of the container, and the folders that are empty then."""
    place = folder(path)
    for suffix in ("json", "lock", "tries"):
        with suppress(FileNotFoundError):
            os.unlink(place / f"{name}.{suffix}")
    for empty in (place, place.parent):
        with suppress(OSError):
            os.rmdir(empty)


@contextmanager
def lock(path: Path, name: str, *, wait: bool = True) -> Iterator[int]:
    """Hold the container's lock, by the descriptor that this yields; a swap that was cut short is finished.

    ResourceError (E_LOCKED): another has it and we do not wait.
    """
    file = directory(path) / f"{name}.lock"
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise ResourceError(
                "E_LOCKED", name, "another command works on it", hints=("try again",)
            ) from None
        if _is_current(descriptor, file):
            break
        os.close(descriptor)  # its holder removed it: the next is a new file
    try:
        swap.finish(path / name)
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path, name: str) -> bool:
    """Whether somebody holds the container's lock now."""
    try:
        descriptor = os.open(folder(path) / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_current(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:16]
