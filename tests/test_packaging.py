"""What a wheel does to the tree: nothing may be lost, followed or added."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = ("templates", "fstabs", "provisioner/keyrings")


def data_files() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for folder in DATA
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_a_wheel_holds_every_template_file_and_no_other(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.startswith(tuple(f"{d}/" for d in DATA))}

    assert packed == data_files()


def test_templates_hold_no_symlink_and_no_dot_file() -> None:
    odd = [
        path
        for folder in DATA
        for path in (ROOT / folder).rglob("*")
        if path.is_symlink() or path.name.startswith(".")
    ]

    assert odd == []


@pytest.mark.parametrize("script", ["mktemplate", "lxc-mktemplate"])
def test_the_command_is_a_shell_script_in_the_wheel(wheel: zipfile.ZipFile, script: str) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(f"scripts/{script}")]

    assert wheel.read(name).startswith(b"#!/bin/sh\n")
    assert os.access(ROOT / "scripts" / script, os.X_OK)


def test_an_installed_wheel_renders_without_the_checkout(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "mktemplate", "render", "sshd", "--distro", "debian", "--json"],
        cwd="/", env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
