"""A function in a process of its own, for what would keep the interpreter from everything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def apart(function: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """Have `function` called beside the block, in a copy of this process; what is yielded waits for what it returns.

    It may import nothing and touch no file. Where there can be no other process, or it ends early, it is called here.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError:  # too many processes, too little memory
        child = -1
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


def _answer(function: Callable[[], bytes], write: int) -> None:
    """Be the other process."""
    try:
        with open(write, "wb") as out:
            out.write(function() + b".")
    finally:
        os._exit(0)


def _whole(answer: bytes) -> bytes:
    """Return an answer that was given to its end, else nothing."""
    return answer[:-1] if answer.endswith(b".") else b""
