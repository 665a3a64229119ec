"""A container's log: what its init writes, in a file that never grows beyond a bound."""

from __future__ import annotations

import errno
import os
import select
import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, socket
from pathlib import Path

from runtime import consolepty
from valuetypes import dataclass

LIMIT = 16 << 20  # bytes of one of the two files


@dataclass(slots=True)
class Log:
    """The file at `path`, and the one before it at `path`.1; without a path a stream that is only passed on to."""

    path: Path | None
    descriptor: int
    size: int

    @classmethod
    def open(cls, path: Path) -> Log:
        """Open the log for appending; a symlink there is refused (CVE-2024-9676)."""
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        descriptor = os.open(path, flags, 0o600)
        return cls(path, descriptor, os.fstat(descriptor).st_size)

    def take(self, pipe: int) -> bool:
        """Append what is in `pipe`; return False at its end."""
        while True:
            try:
                chunk = os.read(pipe, 64 << 10)
            except BlockingIOError:
                return True
            except OSError as error:  # nobody has the console's other end open
                if error.errno != errno.EIO:
                    raise
                return True
            if not chunk:
                return False
            self._append(chunk)

    def _append(self, chunk: bytes) -> None:
        try:
            if self.path and self.size + len(chunk) > LIMIT:
                self._rotate(self.path)
            self.size += os.write(self.descriptor, chunk)
        except OSError:  # a full disk must not end the container
            return

    def _rotate(self, path: Path) -> None:
        os.replace(path, path.with_name(f"{path.name}.1"))
        os.close(self.descriptor)
        fresh = Log.open(path)
        self.descriptor, self.size = fresh.descriptor, fresh.size


def keep(pidfd: int, log: Log | None, source: int | socket) -> None:
    """Keep the log of what comes from `source` until the process of `pidfd` has ended.

    `source` is the end of a pipe, or the socket over which init has handed over its console.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    output = source if isinstance(source, int) else _received(source)
    end = -1 if output is source else consolepty.again(output)
    if log:
        os.set_blocking(output, False)
        poll.register(output, select.POLLIN)
    while True:
        events = dict(poll.poll())
        if log and events.get(output) == select.POLLHUP and end >= 0:
            os.close(end)
            end = consolepty.again(output)
        elif log and output in events and not log.take(output):
            poll.unregister(output)
        if pidfd in events:
            if log:
                log.take(output)
            return


def _received(console: socket) -> int:
    """Return the master that init has handed over."""
    _, [(_, _, data)], _, _ = console.recvmsg(1, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
    return int.from_bytes(data[:4], sys.byteorder)
