"""A sample of what bench/parity.py proves at length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench/parity.py"


@pytest.mark.system
def test_a_sample_of_requests_comes_to_what_apt_would_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(BENCH),
            "--singles",
            "12",
            "--pairs",
            "5",
            "--rivals",
            "3",
            "--lists",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "21 requests: 21 same" in done.stdout
