"""Streams of ours that nobody inside could open by a name: a pipe of the container's own, whose content we pass on.

Many services open /dev/stdout or /dev/stderr, as nginx does for its log. Where that is somebody else's pipe or file,
the container's root may not; where it is a socket, as systemd's journal is, nobody can (open(2), ENXIO).
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from valuetypes import dataclass, field

_CHUNK = 64 << 10


def give(write: int, root_ids: tuple[int, int]) -> None:
    """Let the container's root open the pipe `write` for writing, and its services too."""
    os.fchown(write, *root_ids)
    os.fchmod(write, 0o622)


@dataclass(slots=True)
class Relay:
    """The three streams that init is to have, and those of ours that stand behind them."""

    stdio: tuple[int, int, int]
    behind: dict[int, int] = field(default_factory=dict)  # read end → our descriptor
    ends: set[int] = field(default_factory=set)

    def started(self) -> None:
        """Keep no end that is init's, or there would be none."""
        for end in self.ends:
            os.close(end)
        self.ends.clear()

    def until(self, pidfd: int, seconds: float | None = None) -> bool:
        """Pass on what comes until the process of `pidfd` ends; False where it has not after `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        ended = False
        while not ended:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            ready = select.select([pidfd, *self.behind], [], [], left)[0]
            ended = pidfd in ready
            for read in [*self.behind] if ended else [one for one in ready if one != pidfd]:
                self._pass_on(read)
        return True

    def _pass_on(self, read: int) -> None:
        """Write what there is; let go of it at its end."""
        try:
            while data := memoryview(os.read(read, _CHUNK)):
                while data:
                    data = data[os.write(self.behind[read], data) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # nobody hears us: then whoever writes inside shall notice
            pass
        os.close(read)
        del self.behind[read]


@contextmanager
def streams(root_ids: tuple[int, int]) -> Iterator[Relay]:
    """Lend the streams for a container in the foreground whose root has these ids on the host."""
    relay = Relay((0, 1, 2))
    try:
        own: dict[tuple[int, int], int] = {}
        chosen = [0]
        for number in (1, 2):
            status = os.fstat(number)
            if stat.S_ISCHR(status.st_mode):  # a terminal, /dev/null
                chosen.append(number)
                continue
            if (status.st_dev, status.st_ino) not in own:
                read, write = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(read, False)
                give(write, root_ids)
                relay.behind[read] = number
                relay.ends.add(write)
                own[status.st_dev, status.st_ino] = write
            chosen.append(own[status.st_dev, status.st_ino])
        relay.stdio = (chosen[0], chosen[1], chosen[2])
        yield relay
    finally:
        relay.started()
        for read in relay.behind:
            os.close(read)
