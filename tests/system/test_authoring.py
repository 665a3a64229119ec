"""From `new` to a stranger's template that answers: what authors and those who share type."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.system.command import Mkt

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server of somebody's: its folder, and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_new_template_passes_its_tests_and_leaves_nothing(mkt: Mkt, tmp_path: Path) -> None:
    mkt.ok("new", "hello", str(tmp_path))

    told = mkt.json("test-template", str(tmp_path / "hello"), "--distro", "debian")

    assert [(row["name"], row["ok"]) for row in told["tests"]] == [
        ("it serves its first page", True),
        ("it is not root", True),
        ("its pages outlive a restart", True),
    ]
    assert mkt.names() == []


def test_a_failed_test_is_told_and_its_container_can_be_kept(mkt: Mkt, tmp_path: Path) -> None:
    mkt.ok("new", "hello", str(tmp_path))
    (tmp_path / "hello" / "tests.toml").write_text(
        '[[test]]\nname = "on the host"\non = "host"\ncommand = ["sh", "-c", "echo {{ address }} {{ name }}"]\n'
        '[[test]]\nname = "wrong"\ncommand = ["echo", "this"]\nexpected = "that"\n'
        '[[test]]\nname = "slow"\ncommand = ["sleep", "60"]\ntimeout = 1\n'
    )
    words = ("test-template", str(tmp_path / "hello"), "--distro", "debian", "--json", "--keep")

    done = mkt(*words)
    granted = mkt(*words, "--grant", "run:host")

    rows = json.loads(done.stdout)["tests"]
    assert done.returncode == granted.returncode == 1
    assert [(row["ok"], row["left_out"]) for row in rows] == [
        (True, True),
        (False, False),
        (False, False),
    ]
    assert '"that" is not in what it printed' in rows[1]["detail"]
    first = json.loads(granted.stdout)["tests"][0]
    assert (first["ok"], first["output"].split()[1]) == (True, "hello-test")
    assert mkt.names() == ["hello-test"]


def test_a_strangers_template_comes_over_http_answers_and_goes(
    mkt: Mkt, tmp_path: Path, site: tuple[Path, str]
) -> None:
    folder, address = site
    mkt.ok("new", "theirs", str(tmp_path))
    subprocess.run(["tar", "czf", folder / "theirs.tar.gz", "theirs"], cwd=tmp_path, check=True)
    pin = hashlib.sha256((folder / "theirs.tar.gz").read_bytes()).hexdigest()
    place = ("--template-path", str(tmp_path / "added"))
    source = f"{address}/theirs.tar.gz"

    wrong = mkt(*place, "templates", "add", source, "--pin", pin[::-1])
    mkt.ok(*place, "templates", "add", source, "--pin", pin)
    made = mkt.json(*place, "up", "theirs", "--distro", "debian")
    with urlopen(f"http://{made['ips'][0]}/", timeout=10) as page:
        body = page.read().decode()
    mkt.ok(*place, "templates", "remove", "theirs")
    upgrade = mkt(*place, "upgrade", "theirs")

    assert (wrong.returncode, "E_TRUST_HASH" in wrong.stderr) == (3, True)
    assert "It works" in body
    assert upgrade.returncode == 8, upgrade.stderr
    assert mkt.json("info", "theirs")["state"] == "RUNNING"
