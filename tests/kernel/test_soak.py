"""Nothing is left of a hundred lives, of which every fifth was cut short."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]
SOAK = Path(__file__).parents[2] / "bench/soak.py"


@pytest.mark.parametrize("more", [(), ("--rootless",)], ids=["root", "user"])
def test_kill_9_of_any_process_of_ours_leaves_the_host_as_it_was(
    more: tuple[str, ...], needs: Callable[..., None]
) -> None:
    needs("unshare", "ip", "nft", *(("newuidmap", "pasta", "setpriv") if more else ()))

    argv = [sys.executable, "-P", str(SOAK), "-n", "100", "--kill-every", "5", *more]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
