"""A function in a process of its own: what it returns, and what happens where there is no such process."""

from __future__ import annotations

import os
import signal

import pytest

from provisioner.apart import apart


def test_it_runs_beside_the_block() -> None:
    here = os.getpid()

    with apart(lambda: str(os.getpid()).encode()) as answer:
        there = answer()

    assert int(there) != here


def test_a_large_answer_comes_whole() -> None:
    with apart(lambda: bytes(1 << 22)) as answer:
        assert answer() == bytes(1 << 22)


def test_where_it_dies_the_function_is_called_here() -> None:
    here = os.getpid()

    def die_elsewhere() -> bytes:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"done"

    with apart(die_elsewhere) as answer:
        assert answer() == b"done"


def test_nothing_is_left_where_the_block_fails() -> None:
    with pytest.raises(KeyError), apart(lambda: bytes(1 << 22)):
        raise KeyError

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
