"""Whoever builds an index, and whoever dies while doing so, the map is whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from provisioner.deb.index import read_index
from tests.provisioner.offering import offered, stanza

ROOT = Path(__file__).resolve().parents[3]
BUILD = """
import json, sys
from pathlib import Path
from provisioner.deb.index import IndexFile, read_index
fields = json.loads(sys.argv[1])
file = IndexFile(**fields | {"path": Path(fields["path"])})
print(read_index([file], file.path.parent, "amd64").versions("p19999")[0].version)
"""


def builder(fields: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, fields], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_builders_at_once_and_killed_ones_leave_it_whole(tmp_path: Path) -> None:
    text = "\n".join(stanza(f"p{n} {n} ; Depends: p{n // 2}, q{n}") for n in range(20_000))
    file = offered(tmp_path, text)
    fields = json.dumps(asdict(file) | {"path": str(file.path)})

    doomed = builder(fields)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".draft-*")) and doomed.poll() is None:
        assert time.monotonic() < deadline
    doomed.kill()
    doomed.communicate()
    answers = [each.communicate()[0] for each in [builder(fields) for _ in range(4)]]

    assert answers == ["19999\n"] * 4
    assert read_index([file], tmp_path, "amd64").versions("p7")[0].version == "7"
