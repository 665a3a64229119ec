"""The interpreter's bytes are what its source assembles to."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import elf, performer
from runtime.performer.x86_64 import CODE

_SOURCE = Path(performer.__file__).with_name("x86_64.S")


def test_the_interpreters_bytes_are_what_its_source_assembles_to(
    tmp_path: Path, needs: Callable[..., None], pytestconfig: pytest.Config
) -> None:
    needs("as", "ld", "objcopy")
    object_file, linked, binary = (str(tmp_path / name) for name in ("x.o", "x", "x.bin"))
    subprocess.run(["as", "--64", "-o", object_file, str(_SOURCE)], check=True)
    subprocess.run(["ld", f"-Ttext={elf.ENTRY:#x}", "-o", linked, object_file], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, binary], check=True)
    built = Path(binary).read_bytes()
    if pytestconfig.getoption("--update-golden"):
        _write(built)

    assert built.hex() == CODE.hex()


def test_the_interpreter_is_smaller_than_a_kilobyte() -> None:
    assert len(CODE) < 1024


def _write(built: bytes) -> None:
    target = _SOURCE.with_suffix(".py")
    head, _, _ = target.read_text().partition("CODE =")
    lines = "\n    ".join(textwrap.wrap(built.hex(), 64))
    target.write_text(f'{head}CODE = bytes.fromhex(\n    """\n    {lines}\n    """\n)\n')
