"""What goes wrong says its code, one clear line, and leaves nothing."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.distro import find
from provisioner.sources import choose, host_mirrors
from tests.system.command import Mkt

pytestmark = pytest.mark.system


def refused(done: subprocess.CompletedProcess[str], code: str, exit_status: int) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("mktemplate: error")]
    assert done.returncode == exit_status, done.stderr
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith(f"mktemplate: error[{code}]: "), errors
    assert "Traceback" not in done.stderr
    assert done.stderr.count("hint:") <= 2


def leftovers(mkt: Mkt) -> list[str]:
    """Return what lies in PATH but for the store's own folders, and what lies half-made in the store."""
    visible = (
        [name for name in os.listdir(mkt.path) if name != ".store"] if mkt.path.exists() else []
    )
    staging = mkt.path / ".store/staging"
    return visible + (os.listdir(staging) if staging.exists() else [])


@pytest.mark.parametrize(
    ("argv", "code", "exit_status"),
    [
        (("create", "nosuch"), "E_USAGE", 2),
        (("frobnicate",), "E_USAGE", 2),
        (("create", "sshd", "../evil"), "E_NAME", 2),
        (("create", "sshd", "web\nlxc.hook.start=/x"), "E_NAME", 2),
        (("create", "sshd", "--set", "nosuch=1"), "E_PARAM", 2),
        (("create", "sshd", "--distro", "nosuch"), "E_USAGE", 2),
        (("create", "sshd", "--release", "nosuch"), "E_USAGE", 2),
        (("create", "sshd", "--frob"), "E_USAGE", 2),
        (("create", "sshd", "--mirror", "ftp://h/"), "E_URL", 2),
        (("create", "sshd", "--mirror", "http://127.0.0.1:9/debian"), "E_NET_CONNECT", 4),
        (("create", "sshd", "--mirror", "http://nosuch.invalid/debian"), "E_NET_RESOLVE", 4),
        (("start", "nosuch"), "E_NOTFOUND", 8),
        (("exec", "nosuch", "--", "true"), "E_NOTFOUND", 125),
        (("create", "base", "--packages", "nginxx"), "E_NOTFOUND", 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)  # fmt: skip
def test_a_wrong_word_is_refused_with_its_code(
    mkt: Mkt, argv: tuple[str, ...], code: str, exit_status: int
) -> None:
    refused(mkt(*argv), code, exit_status)

    assert leftovers(mkt) == []


def test_with_json_the_error_object_is_on_stdout(mkt: Mkt) -> None:
    done = mkt("create", "nosuch", "--json")

    error = json.loads(done.stdout)["error"]
    assert set(error) == {"code", "exit", "object", "detail", "path", "line", "hint"}
    assert (error["code"], error["exit"]) == ("E_USAGE", 2)


def test_a_taken_name_is_refused(mkt: Mkt) -> None:
    mkt.ok("create", "base", "web", "--distro", "debian")

    refused(mkt("create", "base", "web", "--distro", "debian"), "E_EXISTS", 8)


def test_a_running_container_is_not_destroyed_without_force(mkt: Mkt) -> None:
    mkt.ok("up", "base", "--distro", "debian")

    refused(mkt("destroy", "base"), "E_RUNNING", 8)
    assert mkt.names() == ["base"]


@pytest.fixture
def tampered() -> Iterator[str]:
    """A mirror whose InRelease is the real one with one byte changed."""

    source = choose(find("debian"), "trixie", "amd64", host=host_mirrors())[0][0]
    with urllib.request.urlopen(f"{source.url}/dists/trixie/InRelease", timeout=60) as answer:
        body = answer.read().replace(b"Origin: Debian", b"Origin: Debiam", 1)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith("dists/trixie/InRelease")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/debian"
    server.shutdown()
    server.server_close()


def test_a_tampered_release_is_not_trusted(cold: Mkt, tampered: str) -> None:
    refused(
        cold("create", "base", "--distro", "debian", "--release", "trixie", "--mirror", tampered),
        "E_TRUST_BADSIG", 3,
    )  # fmt: skip

    assert leftovers(cold) == []


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", small], check=True)
    try:
        (small / "home").mkdir(mode=0o700)
        mkt = Mkt(small / "path")

        refused(mkt("create", "sshd", "--distro", "debian"), "E_NOSPACE", 7)
        assert leftovers(mkt) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_interrupted_create_leaves_nothing(cold: Mkt) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "mktemplate", "--path", cold.path, "create", "sshd", "--distro", "debian"],
        env=cold.environment, cwd="/", stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:  # the phase that unpacks says so when it begins
            if "unpack" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()

    assert process.wait(timeout=10) == 130, rest
    assert "Traceback" not in rest
    assert leftovers(cold) == []
