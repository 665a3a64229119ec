"""The standard streams of a process inside: ours where they may be passed on, else a pty or a pipe that we serve.

No terminal of the host's goes in: what can open it can type on it (CVE-2017-5226).
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import signal
import stat
import struct
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from runtime.errors import HostError
from runtime.kernel import libc
from runtime.kernel import mount as m
from valuetypes import dataclass, field

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_DEVPTS_MAGIC = 0x1CD1
_ABOVE = 10  # descriptors that are to become 0, 1, 2 must not be those already
_CHUNK = 64 << 10
_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_NAMES = ("stdin", "stdout", "stderr")
_TTY_GROUP = 5


@dataclass(slots=True)
class _Route:
    """Bytes on their way from one descriptor to another."""

    source: int
    sink: int
    is_input: bool = False
    pending: bytes = b""
    open: bool = True

    def waits_for(self) -> tuple[int, int]:
        """Return the descriptor and the event of poll(2) that let it go on."""
        if self.pending:
            return self.sink, select.POLLOUT
        return self.source, select.POLLIN

    def move(self) -> None:
        """Take what is there and pass on what goes."""
        if not self.pending:
            try:
                self.pending = os.read(self.source, _CHUNK)
            except BlockingIOError:
                return
            except OSError as error:  # EIO: the other side of a pty is closed
                if error.errno != errno.EIO:
                    raise
            if not self.pending:
                self.open = False
                return
        try:
            self.pending = self.pending[os.write(self.sink, self.pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.open, self.pending = False, b""


@dataclass(slots=True)
class Streams:
    """Three descriptors for a process inside, and what we must serve for them."""

    slots: dict[str, int] = field(default_factory=dict)
    routes: list[_Route] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)  # ends that only the process may hold
    sinks: list[int] = field(default_factory=list)  # to be closed at the end of our input
    master: int = -1
    kept: bool = False  # the streams are the caller's, not those of our process; so are our signals

    def born(self) -> None:
        """Let go of the process's ends, once it has them."""
        for descriptor in self.inner:
            os.close(descriptor)
        self.inner.clear()

    def close(self) -> None:
        """Let go of what is left."""
        for descriptor in (*self.inner, *self.sinks):
            os.close(descriptor)

    def pump(self, pidfd: int, timeout: float | None = None) -> bool:
        """Serve until the process has ended, or for `timeout` seconds; return whether it has. Our signals it gets."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        ended = False
        with handling({} if self.kept else self._handlers(pidfd)), raw(self.master):
            self.resize()
            while not ended and (left := deadline - time.monotonic()) > 0:
                ended = self._turn(pidfd, left)
        for route in self.routes:
            if not route.is_input:
                _drain(route)
        return ended

    def resize(self) -> None:
        """Give the pty the size of our terminal."""
        if self.master < 0:
            return
        with suppress(OSError):
            fcntl.ioctl(
                self.master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
            )

    def _turn(self, pidfd: int, left: float) -> bool:
        """Wait at most `left` seconds for one event and serve it; return whether the process has ended."""
        wanted = {pidfd: select.POLLIN}
        for route in self.routes:
            if route.open:
                descriptor, event = route.waits_for()
                wanted[descriptor] = wanted.get(descriptor, 0) | event
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        ready = dict(poll.poll(None if left == math.inf else math.ceil(left * 1000)))
        for route in self.routes:
            descriptor, event = route.waits_for()
            if route.open and ready.get(descriptor, 0) & (event | select.POLLHUP | select.POLLERR):
                route.move()
                if not route.open and route.sink in self.sinks:
                    self.sinks.remove(route.sink)
                    os.close(route.sink)
        return pidfd in ready

    def _handlers(self, pidfd: int) -> dict[int, Callable[[], None]]:
        def forward(number: int) -> Callable[[], None]:
            def send() -> None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)

            return send

        handlers = {int(number): forward(number) for number in _FORWARDED}
        if self.master >= 0:
            handlers[int(signal.SIGWINCH)] = self.resize
        return handlers


@contextmanager
def attached(
    root: int, owner: int, *, terminal: bool, kept: tuple[int, int, int] | None = None
) -> Iterator[Streams]:
    """Make the streams: a pty of the devpts below `root` that belongs to the host's id `owner`, or ours.

    With `kept` pipes that lead from the first of these descriptors and to the others, which none inside gets hold of.
    """
    streams = Streams(kept=kept is not None)
    with ExitStack() as stack:
        stack.callback(streams.close)
        if kept:
            for number, outer in enumerate(kept):
                _piped(streams, number, outer, stack)
        elif terminal:
            _pty(streams, root, owner, stack)
        else:
            for number in range(3):
                _plain(streams, number, stack)
        yield streams


def _pty(streams: Streams, root: int, owner: int, stack: ExitStack) -> None:
    try:
        master = m.openat2(
            root,
            "dev/pts/ptmx",
            os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK,
            resolve=m.RESOLVE_IN_ROOT | m.RESOLVE_NO_MAGICLINKS | m.RESOLVE_NO_SYMLINKS,
        )
    except OSError as error:
        raise HostError(
            "E_KERNEL_FEATURE",
            "/dev/pts/ptmx",
            f"no terminal for the container: {error.strerror}",
            hints=("set lxc.pty.max in its config",),
        ) from None
    stack.callback(os.close, master)
    if not _is_devpts(master):
        raise HostError("E_PROC_TAMPERED", "/dev/pts/ptmx", "is not the container's devpts")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    streams.inner.append(high(slave))
    os.close(slave)
    os.fchown(streams.inner[0], owner, -1)
    streams.master = master
    streams.slots = dict.fromkeys(_NAMES, streams.inner[0])
    streams.routes = [_Route(0, master, is_input=True), _Route(master, 1)]


def _is_devpts(descriptor: int) -> bool:
    answer = libc.Buffer(120)
    libc.syscall("fstatfs", descriptor, answer)
    return int.from_bytes(bytes(answer)[:8], "little") == _DEVPTS_MAGIC


def _plain(streams: Streams, number: int, stack: ExitStack) -> None:
    """Pass our descriptor `number` on; serve a pipe in its place where it is a terminal, nothing else."""
    name = _NAMES[number]
    try:
        status = os.fstat(number)
    except OSError:
        status = None
    if status is None or stat.S_ISDIR(status.st_mode):
        streams.inner.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    elif os.isatty(number):
        _piped(streams, number, number, stack)
        return
    else:
        streams.inner.append(high(number))
    streams.slots[name] = streams.inner[-1]


def _piped(streams: Streams, number: int, outer: int, stack: ExitStack) -> None:
    """Give the process a pipe as its descriptor `number`, and serve what is between it and `outer`."""
    read, write = os.pipe2(os.O_CLOEXEC)
    ours, theirs = (write, read) if number == 0 else (read, write)
    os.set_blocking(ours, False)
    os.fchown(theirs, os.geteuid(), -1)
    os.fchmod(theirs, 0o666)
    streams.inner.append(high(theirs))
    os.close(theirs)
    if number == 0:
        streams.sinks.append(ours)
        streams.routes.append(_Route(outer, ours, is_input=True))
    else:
        stack.callback(os.close, ours)
        streams.routes.append(_Route(ours, outer))
    streams.slots[_NAMES[number]] = streams.inner[-1]


def high(descriptor: int) -> int:
    """Return a copy of `descriptor` beyond those that a program has as 0, 1 and 2."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE)


def _drain(route: _Route) -> None:
    """Pass on what the process had written before it ended."""
    os.set_blocking(route.source, False)
    while route.open:
        before = route.pending
        poll = select.poll()
        poll.register(
            route.sink if before else route.source, select.POLLOUT if before else select.POLLIN
        )
        if not before and not poll.poll(0):
            return
        route.move()


@contextmanager
def raw(master: int) -> Iterator[None]:
    """Have our terminal pass every key on, for the length of the block."""
    if master < 0 or not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is not lost
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def handling(handlers: dict[int, Callable[[], None]]) -> Iterator[None]:
    """Handle signals for the length of the block; outside the main thread Python cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: object) -> None:
        handlers[number]()

    before = {number: signal.signal(number, handle) for number in handlers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
