"""Functions in a copy of this process: what they return and do, and how they end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from provisioner.apart import apart, beside
from tests.conftest import children


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
    before = children()
    with pytest.raises(KeyError), apart(lambda: bytes(1 << 22)):
        raise KeyError

    assert children() <= before


def test_what_goes_on_beside_is_done_while_the_block_lasts() -> None:
    read, write = os.pipe()

    with beside(lambda: os.write(write, b"here")), open(read, "rb", buffering=0) as told:
        assert told.read(4) == b"here"

    os.close(write)


def test_what_goes_on_beside_ends_with_the_block() -> None:
    before = children()
    with beside(signal.pause):
        pass

    assert children() <= before


def test_where_nobody_waits_for_its_answer_it_ends_with_the_block() -> None:
    before = children()
    with apart(_pause):
        pass

    assert children() <= before


def _pause() -> bytes:
    signal.pause()
    return b""


@pytest.mark.parametrize("how", [apart, beside], ids=["apart", "beside"])
def test_it_ends_with_the_caller(how: Callable[..., object]) -> None:
    name = how.__name__
    body = f"""
import os, signal
from provisioner.apart import {name}
def tell_and_stay():
    print(os.getpid(), flush=True)
    signal.pause()
with {name}(tell_and_stay):
    input()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with caller:
        assert caller.stdin is not None and caller.stdout is not None
        other = os.pidfd_open(int(caller.stdout.readline()))
        caller.stdin.write("go\n")
        caller.stdin.flush()

        assert select.select([other], [], [], 30)[0]

    os.close(other)
