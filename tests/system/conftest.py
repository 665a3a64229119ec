"""A PATH of its own for the command, with packages from the host's own mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import user as users
from tests.system.cell import Cell, cell
from tests.system.command import CHECKOUT, Mkt
from tests.system.user import UserMkt


@pytest.fixture(scope="session")
def warm() -> Iterator[Mkt]:
    """One PATH for the whole run: layers are built once, as a user's would be."""
    with tempfile.TemporaryDirectory(
        prefix="mkt-", dir="/var/tmp"
    ) as name:  # not below pytest's 0700 folder:
        base = Path(name)  # liblxc's mapped root must be able to pass
        base.chmod(0o755)
        (base / "home").mkdir(mode=0o700)
        mkt = Mkt(base / "path")
        yield mkt
        mkt.sweep()
        mkt("prune")


@pytest.fixture
def mkt(warm: Mkt) -> Iterator[Mkt]:
    """The warm PATH, with no container left behind."""
    yield warm
    warm.sweep()


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Mkt]:
    """An empty PATH: a cold start."""
    (tmp_path / "home").mkdir(mode=0o700)
    mkt = Mkt(tmp_path / "path")
    yield mkt
    mkt.sweep()


@pytest.fixture(scope="session")
def user() -> Iterator[UserMkt]:
    """A normal user, whose layers are built once for the whole run."""
    missing = [name for name in ("newuidmap", "pasta", "setpriv") if not shutil.which(name)]
    if missing:
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    with users.made() as found:
        yield found


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    """A static web server without libc, as a compiler of Go or Rust makes one: one file that needs nothing."""
    needs("as", "ld")
    if os.uname().machine != "x86_64":
        pytest.skip("the program is of x86-64")
    folder = tmp_path_factory.mktemp("static")
    source = CHECKOUT / "tests/programs/answer.x86_64.s"
    subprocess.run(["as", "-o", folder / "answer.o", source], check=True, timeout=60)
    subprocess.run(["ld", "-o", folder / "answer", folder / "answer.o"], check=True, timeout=60)
    return folder / "answer"


@pytest.fixture
def apart() -> Iterator[Cell]:
    """Namespaces in which an engine and its clients are alone."""
    with cell() as made:
        yield made


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets (unix(7): 108 bytes), and that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="mkt-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
