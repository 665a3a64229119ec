"""A container's /dev/console: init's terminal, kept in the log, and typed on from outside."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

from runtime import attach
from runtime.container import Container
from runtime.errors import HostError, StateError
from tests.kernel.conftest import Make

pytestmark = pytest.mark.root
HAS = ("lxc.console.path =",)
SHELL = "/bin/sh -i"


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data)


class Terminal:
    """A terminal of a person's, with the command on it."""

    def __init__(self, body: Callable[[], None], rows: int, columns: int) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                until(lambda: os.get_terminal_size(0).lines == rows)
                body()
                os._exit(0)
            finally:
                os._exit(1)
        self.size(rows, columns)
        self.seen = b""

    def size(self, rows: int, columns: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))

    def types(self, text: bytes) -> None:
        os.write(self.master, text)

    def shows(self, text: bytes, seconds: float = 10) -> None:
        """Wait until `text` is on it, and forget what came before."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(text)[2]

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def at_console(container: Container, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    log = container.bundle.log
    terminal = Terminal(
        lambda: attach.at_console(container, log, b"\x01", lambda: write(1, b"here\n")),
        rows,
        columns,
    )
    try:
        terminal.shows(b"here")
        yield terminal
    finally:
        os.close(terminal.master)


@pytest.mark.parametrize("python", [False, True], ids=["start program", "Python"])
def test_a_shell_on_the_console_is_typed_on_and_left_and_found_again(
    make: Make, python: bool
) -> None:
    hook = ("lxc.hook.pre-start = /bin/true",) if python else ()
    container = make("one", SHELL, *HAS, *hook)
    container.start()

    with at_console(container, rows=33, columns=99) as terminal:
        terminal.types(b"tty; stty size; echo $((6 * 7))\n")
        terminal.shows(b"/dev/pts/0\r\n")
        terminal.shows(b"33 99\r\n")
        terminal.shows(b"42\r\n")
        terminal.size(40, 120)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.types(b"A=kept; stty size\n")
        terminal.shows(b"40 120\r\n")
        terminal.types(b"\x01q")
        assert terminal.status() == 0
    with at_console(container) as terminal:
        terminal.types(b"echo again $A\n")
        terminal.shows(b"again kept\r\n")
        terminal.types(b"exit 5\n")
        assert terminal.status() == 0

    until(lambda: container.state() == "STOPPED")
    assert container.exit_status == 5
    assert b"42\r\n" in container.bundle.log.read_bytes()


def test_ctrl_c_interrupts_what_runs_on_the_console(make: Make) -> None:
    container = make("one", SHELL, *HAS)
    container.start()

    assert container.run is not None
    shell = container.run.init.pid

    def sleeps() -> bool:
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in children)

    with at_console(container) as terminal:
        terminal.types(b"sleep 1000\n")
        until(sleeps)  # a shell that is still forking would wait for it, interrupted or not
        terminal.types(b"\x03")
        terminal.shows(b"^C")
        terminal.types(b"echo status $?\n")
        terminal.shows(b"status 130\r\n")


def test_a_console_that_was_hung_up_is_open_to_the_next(make: Make) -> None:
    login = "exec </dev/console >/dev/console; read a; echo bye \\$a"
    script = f'exec >/dev/null 2>&1 </dev/null; while :; do /bin/setsid /bin/sh -c "{login}"; done'
    container = make("one", f"/bin/sh -c '{script}'", *HAS)
    container.start()
    run = container.run
    assert run is not None

    with at_console(container) as terminal:
        for word in (b"one", b"two", b"three"):
            terminal.types(word + b"\n")
            terminal.shows(b"bye " + word)

    used = Path(f"/proc/{run.monitor.pid}/stat").read_text().split()
    assert int(used[13]) + int(used[14]) < 50  # clock ticks: the monitor does not spin


def test_in_the_foreground_the_console_is_passed_on(make: Make) -> None:
    container = make("one", "/bin/sh -c 'echo to stdout; echo to console >/dev/console'", *HAS)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        begun = container.start(foreground=True)
        os.waitpid(begun.monitor, 0)
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)

    with os.fdopen(read, "rb") as file:
        said = file.read().split()

    assert sorted(b" ".join(said[i : i + 2]) for i in (0, 2)) == [b"to console", b"to stdout"]


def test_a_container_without_one_says_how_it_would_get_one(make: Make) -> None:
    container = make("one", "/bin/sleep 1000")
    with pytest.raises(StateError):
        attach.at_console(container, container.bundle.log, b"\x01", lambda: None)
    container.start()

    with pytest.raises(HostError, match="has no console") as caught:
        attach.at_console(container, container.bundle.log, b"\x01", lambda: None)

    assert "unset lxc.console.path" in caught.value.hints[1]
    assert not Path(f"/proc/{container.pid}/root/dev/console").exists()


@pytest.mark.parametrize(
    ("typed", "passed", "leaves"),
    [
        (b"abc", b"abc", False),
        (b"a\x01qb", b"a", True),
        (b"\x01\x01q", b"\x01q", False),
        (b"\x01b", b"\x01b", False),
        (b"\x01", b"", False),
    ],
)
def test_the_prefix_and_q_leave(typed: bytes, passed: bytes, leaves: bool) -> None:
    assert attach.Keys(b"\x01").typed(typed) == (passed, leaves)
