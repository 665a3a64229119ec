"""What pid 1 of a sandbox does: call a function, or start a program, with what comes before and after it, and reap.

Nothing of the host is in reach here, Python's own modules neither: whatever it takes was imported before.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from runtime.birth import ANSWER, TRACE
from runtime.kernel import process

# How a program ended: exit status, how many bytes of names and of what `before` returned follow.
ENDED = struct.Struct("=iII")


def answer(function: Callable[[], bytes], report: int) -> NoReturn:
    """Be init for `call`: answer with what `function` returns."""
    os.umask(0o022)
    _tell(report, function)


def _tell(report: int, function: Callable[[], bytes], before: bytes = b"") -> NoReturn:
    """Report `before` and what `function` returns, or what it raised; and end."""
    try:
        answer = ANSWER + before + function()
    except BaseException:  # noqa: BLE001  # whatever it is, the caller must hear of it
        answer = TRACE + traceback.format_exc().encode()
    _send(report, answer)


def _stop(report: int, answer: bytes) -> NoReturn:
    """Report `answer`, and end with whoever waits: before our end of its input closes, which would let it go on."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # everybody in our pid namespace but us, kill(2)
    _send(report, answer)


def _send(report: int, answer: bytes) -> NoReturn:
    """Report `answer`, and end."""
    view = memoryview(answer)
    while view:
        view = view[os.write(report, view) :]
    os._exit(0)


class Started:
    """The program of `run`, once it is called: in a session of its own, with nothing open but its output.

    Its standard input ends when it may go on.
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], output: int, *, waits: bool
    ) -> None:
        """Say what is to be started; what it writes goes to `output`."""
        self._argv = argv
        self._environment = environment
        self._output = output
        # Of the pipe, `reap` closes the other end.
        self._input = os.pipe2(os.O_CLOEXEC)[0] if waits else os.open("/dev/null", os.O_RDONLY)
        self.pid = 0
        self.status: int | None = None  # where it could not be started

    def __call__(self) -> None:
        """Start it, by vfork(2), as subprocess does: a copy of this process would take longer than most programs."""
        from subprocess import Popen  # `run` has imported it

        try:
            started = Popen(
                self._argv,
                env=self._environment,
                stdin=self._input,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
            )
        except OSError as error:
            words = f"{self._argv[0]}: {error.strerror}\n"
            os.write(self._output, words.encode(errors="replace"))
            self.status = 127 if error.errno == errno.ENOENT else 126
            return
        started.returncode = 0  # `reap` waits for whatever ends
        self.pid = started.pid

    def alone(self) -> tuple[bool, bytes]:
        """Start it, where there is nothing to do before it goes on."""
        self()
        return True, b""


def reap(
    started: Started,
    begin: Callable[[], tuple[bool, bytes]],
    report: int,
    after: Callable[[], bytes] | None,
) -> NoReturn:
    """Be init for `run`: call `begin`, reap whatever ends, and name what the program leaves behind.

    Where it succeeded and left nothing, `after` is called: nobody else is in the root then.
    """
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    process.close_range(3, 0xFFFFFFFF, process.CLOSE_RANGE_CLOEXEC)
    try:
        goes, begun = begin()
    except BaseException:  # noqa: BLE001  # whatever it is, the caller must hear of it
        _stop(report, TRACE + traceback.format_exc().encode())
    if not goes:
        _stop(report, ANSWER + ENDED.pack(0, 0, len(begun)) + begun)
    process.close_range(0, report - 1)
    process.close_range(report + 1, 0xFFFFFFFF)
    status = started.status
    while status is None:
        pid, ended = os.wait()
        if pid == started.pid:
            status = os.waitstatus_to_exitcode(ended)
    status = status if status >= 0 else 128 - status
    names = b"\0".join(_others())
    done = after if after and not status and not names else bytes
    _tell(report, done, ENDED.pack(status, len(names), len(begun)) + names + begun)


def _others() -> list[bytes]:
    """Return the names of the other processes of our pid namespace that are not dead already."""
    names = []
    for entry in os.listdir(b"/proc"):
        if entry.isdigit() and entry != b"1":
            try:
                with open(b"/proc/%b/stat" % entry, "rb") as file:
                    name, _, rest = file.read().partition(b"(")[2].rpartition(b") ")
            except OSError:  # it ended meanwhile
                continue
            if rest[:1] not in b"ZX":
                names.append(name)
    return names
