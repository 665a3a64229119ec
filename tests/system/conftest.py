"""A PATH of its own for the command, with packages from the host's own mirror."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import user as users
from tests.system.command import Mkt
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
