"""A PATH of its own for the command, with packages from the host's own mirror."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.command import Mkt


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mkt]:
    """One PATH for the whole run: layers are built once, as a user's would be."""
    base = tmp_path_factory.mktemp("mkt")
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
