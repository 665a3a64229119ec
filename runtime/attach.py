"""`mktemplate console`: our terminal at a container's /dev/console, until its keys for leaving are typed.

What is typed goes to the console's master, which the monitor holds; what is written there is in the log, which we
follow. So any number of terminals may be at one console, and none of them ever keeps the container waiting.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.console import handling, raw
from runtime.container import Container
from runtime.errors import HostError, StateError
from runtime.kernel import process
from runtime.kernel.libc import syscall
from valuetypes import dataclass

_TIOCGPTN = 0x80045430  # ioctl_tty(2): a master's alone
_IN_MODIFY, _IN_MOVED_FROM, _IN_CREATE = 2, 0x40, 0x100
_CHUNK = 64 << 10
_LEAVE = b"q"


@dataclass(slots=True)
class Keys:
    """What is typed, and what of it is for us: the prefix and `q` leave, the prefix twice is one of it."""

    prefix: bytes
    armed: bool = False

    def typed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is for the container, and whether we are to leave."""
        passed = bytearray()
        for byte in data:
            key = bytes((byte,))
            if self.armed:
                self.armed = False
                if key == _LEAVE:
                    return bytes(passed), True
                passed += key if key == self.prefix else self.prefix + key
            elif key == self.prefix:
                self.armed = True
            else:
                passed += key
        return bytes(passed), False


class Log:
    """The end of a log, wherever it is rotated to."""

    def __init__(self, path: Path) -> None:
        """Stand at its end."""
        self.path = path
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_CREAT, 0o600)
        os.lseek(self.file, 0, os.SEEK_END)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.file)

    def fresh(self) -> Iterator[bytes]:
        """Yield what was added since."""
        while True:
            while chunk := os.read(self.file, _CHUNK):
                yield chunk
            try:
                again = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # between the two steps of a rotation
                return
            if os.path.samestat(os.fstat(again), os.fstat(self.file)):
                os.close(again)
                return
            os.close(self.file)
            self.file = again


def at_console(container: Container, log: Path, prefix: bytes, tell: Callable[[], None]) -> None:
    """Be at the console until the keys for leaving come, or the container ends; `tell` is called once we are.

    StateError: E_NOTRUNNING. HostError: E_KERNEL_FEATURE where it has no console, or may not be reached.
    """
    with ExitStack() as given, console_master(container) as (master, pidfd):
        follow = Log(log)
        given.callback(follow.close)
        watch = process.inotify_init1(process.IN_CLOEXEC)
        given.callback(os.close, watch)
        process.inotify_add_watch(watch, str(log.parent), _IN_MODIFY | _IN_MOVED_FROM | _IN_CREATE)
        given.enter_context(handling({int(signal.SIGWINCH): lambda: _resize(master)}))
        tell()
        given.enter_context(raw(master))
        _resize(master)
        _serve(_Ends(master, pidfd, watch), follow, Keys(prefix))


@dataclass(frozen=True, slots=True)
class _Ends:
    master: int
    init: int  # a pidfd
    watch: int


def _serve(ends: _Ends, log: Log, keys: Keys) -> None:
    pending: bytes | None = b""  # None: nothing more is typed
    leave = False
    while True:
        ready = _awaited(ends, pending)
        if 0 in ready:
            data = os.read(0, _CHUNK)
            pending, leave = keys.typed(data) if data else (None, False)
        if pending:
            with suppress(BlockingIOError):
                pending = pending[os.write(ends.master, pending) :]
        if ends.watch in ready:
            os.read(ends.watch, _CHUNK)
        for chunk in log.fresh():
            _write(chunk)
        if leave or ends.init in ready:
            return


def _awaited(ends: _Ends, pending: bytes | None) -> dict[int, int]:
    """Wait for what can be done: type where nothing typed is pending, show what is new, leave with init."""
    poll = select.poll()
    for descriptor in (ends.init, ends.watch, *((0,) if pending == b"" else ())):
        poll.register(descriptor, select.POLLIN)
    if pending:
        poll.register(ends.master, select.POLLOUT)
    return dict(poll.poll())


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _resize(master: int) -> None:
    """Give the console the size of our terminal."""
    with suppress(OSError):  # it is none
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


@contextmanager
def console_master(container: Container) -> Iterator[tuple[int, int]]:
    """Take the console's master from the monitor; with it comes a pidfd of init."""
    run = container.running()
    with run.monitor.alive() as monitor, run.init.alive() as init:
        if monitor is None or init is None:
            raise StateError("E_NOTRUNNING", container.name, "has just ended")
        master = _find(container.name, monitor, run.monitor.pid)
        try:
            yield master, init
        finally:
            os.close(master)


def _find(name: str, monitor: int, pid: int) -> int:
    try:
        numbers = sorted(int(number) for number in os.listdir(f"/proc/{pid}/fd"))
        for number in numbers:
            copy = syscall("pidfd_getfd", monitor, number, 0)
            if _is_master(copy):
                return copy
            os.close(copy)
    except PermissionError:
        raise HostError(
            "E_KERNEL_FEATURE",
            name,
            "this host lets nobody but root take the console from its monitor",
            hints=("sysctl kernel.yama.ptrace_scope=0, or `mktemplate shell`",),
        ) from None
    raise HostError(
        "E_KERNEL_FEATURE",
        name,
        "has no console",
        hints=(
            f"mktemplate shell {name} gives a terminal inside",
            f"mktemplate config {name} unset lxc.console.path gives it one at its next start",
        ),
    )


def _is_master(descriptor: int) -> bool:
    try:
        fcntl.ioctl(descriptor, _TIOCGPTN, struct.pack("=I", 0))
    except OSError:
        return False
    return True
