"""What every test shares: who may run what, and how goldens are renewed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ("tests.archive", "tests.family", "tests.tiny")
# A shell's background job ignores Ctrl-C, and all that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Goldens change only when somebody says so."""
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew instead of comparing"
    )
    parser.addoption(
        "--all", action="store_true", help="also run what takes minutes (marker `slow`)"
    )
    parser.addoption(
        "--rootless", action="store_true", help="run what is root's as a user, where a user may"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this user may not do, saying so; in CI such a skip is a failure."""
    rootless = pytest.mark.skip(reason="needs root: run `sudo sh scripts/test`")
    slow = pytest.mark.skip(reason="takes minutes: run `sh scripts/test --all`")
    for item in items:
        privileged = item.get_closest_marker("root") or item.get_closest_marker("system")
        if privileged and os.geteuid() != 0 and not config.getoption("--rootless"):
            item.add_marker(rootless)
        if item.get_closest_marker("slow") and not config.getoption("--all"):
            item.add_marker(slow)


def children() -> set[str]:
    """Return our children: a server of other tests may be among them."""
    return set(Path("/proc/thread-self/children").read_text().split())


def lacking(what: str) -> None:
    """Skip because this machine lacks `what`; fail where CI promises to have it."""
    message = f"this machine lacks {what}"
    if os.environ.get("CI"):
        pytest.fail(f"{message}, and CI must not skip", pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def needs() -> Callable[..., None]:
    """Return a function that stops a test whose program is not installed."""

    def need(*programs: str) -> None:
        for program in programs:
            if shutil.which(program) is None:
                lacking(program)

    return need
