"""Which program of a host may stand alone in a container."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest

from mktemplate.making import hostprogram
from tests.conftest import lacking

HELLO = ".globl _start\n_start: mov $60, %eax\n xor %edi, %edi\n syscall\n"


@pytest.fixture
def program(tmp_path: Path) -> bytes:
    """A static program, as the assembler and the linker make it."""
    for tool in ("as", "ld"):
        if shutil.which(tool) is None:
            lacking(tool)
    (tmp_path / "a.s").write_text(HELLO)
    subprocess.run(["as", "-o", tmp_path / "a.o", tmp_path / "a.s"], check=True)
    subprocess.run(["ld", "-o", tmp_path / "a", tmp_path / "a.o"], check=True)
    return (tmp_path / "a").read_bytes()


def test_a_program_without_a_loader_is_static(program: bytes) -> None:
    assert hostprogram.is_static(io.BytesIO(program))


def test_a_program_with_a_loader_is_not() -> None:
    with open("/bin/sh", "rb") as file:
        assert not hostprogram.is_static(file)


@pytest.mark.parametrize("length", [0, 3, 20, 63, 64, 100])
def test_half_a_program_is_none(program: bytes, length: int) -> None:
    assert not hostprogram.is_static(io.BytesIO(program[:length]))


def test_a_script_is_none() -> None:
    assert not hostprogram.is_static(io.BytesIO(b"#!/bin/sh\n" + bytes(100)))
