"""Two cold builds far apart in all that should not matter: one digest, and one content to the last byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.command import CHECKOUT, Mkt

pytestmark = pytest.mark.system
MODULES = "import jinja2, debian, tqdm, sys; sys.exit(sys.version_info < (3, 11))"


def another_python() -> str:
    """Return a Python of another version that has what we import; this one where there is none."""
    for path in map(Path, ("/usr/bin/python3", "/usr/local/bin/python3")):
        if not path.exists() or path.samefile(sys.executable):
            continue
        if subprocess.run([path, "-P", "-c", MODULES], capture_output=True).returncode == 0:
            return str(path)
    return sys.executable


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Mkt]:
    """An empty PATH on a tmpfs of its own; the other one is on disk."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "none", place], check=True)
    try:
        (place / "home").mkdir(mode=0o700)
        yield Mkt(place / "path")
    finally:
        subprocess.run(["umount", place], check=True)


def built(mkt: Mkt) -> dict[str, tuple[str, str]]:
    """Return digest → (what it is, content) of the layers of packages."""
    found = {}
    for record in (mkt.path / ".store/layers").glob("*/meta.json"):
        meta = json.loads(record.read_bytes())
        if meta["origin"] != "tree":  # which holds the keys that may log in: the user's own
            found[record.parent.name] = (meta["origin"], meta["content"])
    return found


@pytest.mark.parametrize("template", ["sshd", pytest.param("nginx", marks=pytest.mark.slow)])
def test_two_builds_have_one_content(cold: Mkt, elsewhere: Mkt, template: str) -> None:
    cold.ok("create", template, "--distro", "debian", "--no-sync")

    later = ["faketime", "-f", "+40d"] if shutil.which("faketime") else []
    odd = 'hostname strange.example.org; umask 077; exec "$@"'
    subprocess.run(
        ["unshare", "--uts", "sh", "-c", odd, "sh", *later, another_python(), "-P", "-m", "mktemplate",
         "--path", elsewhere.path, "create", template, "--distro", "debian", "--allow-stale=60"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(elsewhere.path.parent / "home"), "PYTHONPATH": str(CHECKOUT),
             "TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "LC_TIME": "de_DE.UTF-8", "USER": "somebody"},
        cwd="/tmp", check=True, timeout=300,
    )  # fmt: skip

    assert built(elsewhere) == built(cold)
    assert {origin for origin, _ in built(cold).values()} == {"base", "service"}
