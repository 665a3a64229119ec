"""Functions in a copy of this process: for what would keep the interpreter, or the caller, from everything else.

Who begins one must have no other thread.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def apart(function: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """Have `function` called beside the block, in a copy of this process; what is yielded waits for what it returns.

    It may import nothing, and what it does to files must bear to be done twice: where there can be no other process, or
    it ends early, it is called here. It ends with the block, and with this process.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    child = _copied()
    if child == 0:
        os.close(read)  # else nobody would tell it that the caller has gone
        _answer(function, write)
    os.close(write)
    try:
        with open(read, "rb") as answer:
            yield lambda: _whole(answer.read()) or function()
    finally:
        if child > 0:
            os.waitpid(child, 0)


@contextmanager
def beside(function: Callable[[], object]) -> Iterator[None]:
    """Have `function` called beside the block for what it does to files; it ends with the block, and with this process.

    Whether it did anything is not told: whoever needs it looks, and does the rest.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    child = _copied()
    if child == 0:
        os.close(write)
        _do(function, read)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
        if child > 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _copied() -> int:
    """Return what fork(2) does, -1 where there can be no other process."""
    try:
        return os.fork()
    except OSError:  # too many processes, too little memory
        return -1


def _do(function: Callable[[], object], lifeline: int) -> None:
    """Be the other process, for as long as the caller lives."""
    try:
        threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
        function()
    finally:
        os._exit(0)


def _end_with(end: int) -> None:
    """End when nobody has the other end of a pipe any more: poll(2) always tells POLLHUP and POLLERR."""
    poll = select.poll()
    poll.register(end, 0)
    poll.poll()
    os._exit(1)


def _answer(function: Callable[[], bytes], write: int) -> None:
    """Be the other process, for as long as somebody waits."""
    try:
        threading.Thread(target=_end_with, args=(write,), daemon=True).start()
        with open(write, "wb") as out:
            out.write(function() + b".")
    finally:
        os._exit(0)


def _whole(answer: bytes) -> bytes:
    """Return an answer that was given to its end, else nothing."""
    return answer[:-1] if answer.endswith(b".") else b""
