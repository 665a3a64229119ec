"""Every config that LXC and lxc-templates ship starts a container, alone and with its user namespace's half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.container import Container
from tests.kernel.conftest import let_through

pytestmark = pytest.mark.root

Make = Callable[..., Container]
STOCK = sorted(Path("/usr/share/lxc/config").glob("*.common.conf"))


@pytest.mark.skipif(not STOCK, reason="this machine lacks lxc")
@pytest.mark.parametrize("userns", [True, False], ids=["userns", "no-userns"])
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.name.startswith("debian") else pytest.mark.slow)
        for path in STOCK
    ],
    ids=lambda path: path.name.partition(".")[0],
)
def test_a_stock_config_starts_as_it_is(
    path: Path, userns: bool, make: Make, tmp_path: Path
) -> None:
    let_through(tmp_path)  # for a mount hook of LXC's
    half = path.with_name(path.name.replace(".common.", ".userns."))
    lines = [f"lxc.include = {path}"]
    if userns and half.exists():
        lines.append(f"lxc.include = {half}")

    container = make("stock", "/bin/true", *lines, userns=userns, filtered=False)
    container.start()

    assert container.wait("STOPPED", 20)
    assert container.exit_status == 0
