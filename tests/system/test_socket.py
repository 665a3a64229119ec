"""Containers that start at their first connection, as `unit --socket` has systemd do it."""

from __future__ import annotations

import shlex
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.command import Mkt, free_port

pytestmark = pytest.mark.system
CLIENT = "127.0.0.77"  # an address of this machine's that nothing else has


@contextmanager
def listening(
    mkt: Mkt, folder: Path, name: str, *options: str, journal: socket.socket | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Have systemd's own activator do what the printed units say; yield its process, which becomes the service's."""
    mkt.ok("unit", name, "--socket", *options, "-o", str(folder))
    units = [(folder / f"mktemplate-{name}.{kind}").read_text() for kind in ("socket", "service")]
    streams, commands = (
        [line.partition("=")[2] for line in unit.split("\n") if line.startswith(key)]
        for unit, key in zip(units, ("ListenStream=", "ExecStart="), strict=True)
    )
    listen = [word for stream in streams for word in ("--listen", stream)]
    argv = ["systemd-socket-activate", *listen, *shlex.split(commands[0])]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, env={}, cwd="/", stdout=journal or pipe, stderr=pipe, text=True
    ) as process:
        assert process.stderr is not None
        while "Listening on" not in process.stderr.readline():
            assert process.poll() is None
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_sshd_starts_at_the_first_connection_sees_who_connects_and_ends_when_idle(
    mkt: Mkt, tmp_path: Path
) -> None:
    port = free_port("0.0.0.0")
    mkt.ok("create", "sshd", "door", "--publish", f"127.0.0.1:{port}:22")

    with listening(mkt, tmp_path, "door", "--idle", "2s") as service:
        before = mkt.json("info", "door")["state"]
        with socket.create_connection(("127.0.0.1", port), 30, (CLIENT, 0)) as client:
            banner = client.makefile("rb").readline()
            while_connected = mkt.json("info", "door")
            said = mkt.ok("ssh", "door", "echo $SSH_CONNECTION")
        ended = service.wait(30)
        heard = service.stderr.read() if service.stderr else ""

    assert before == "STOPPED"
    assert banner.startswith(b"SSH-2.0-OpenSSH")
    assert (while_connected["state"], while_connected["ready"]) == ("RUNNING", True)
    assert said.split()[2:] == ["127.0.0.1", str(port)]
    assert f"Connection closed by {CLIENT}" in heard
    assert ended == 0
    assert mkt.json("info", "door")["state"] == "STOPPED"


@pytest.mark.slow
def test_ssh_wakes_one_that_has_never_run(mkt: Mkt, tmp_path: Path) -> None:
    mkt.ok("create", "sshd", "door", "--publish", f"127.0.0.1:{free_port()}:22")
    refused = mkt("ssh", "door", "id")

    with listening(mkt, tmp_path, "door"):
        said = mkt.ok("ssh", "door", "id -un")

    assert "E_NOTRUNNING" in refused.stderr
    assert said == "root\n"


@pytest.mark.slow
def test_nginx_is_given_its_socket_and_opens_its_log_where_systemd_listens_and_logs(
    mkt: Mkt, tmp_path: Path
) -> None:
    port = str(free_port("0.0.0.0"))
    publish = ("--publish", f"0.0.0.0:{port}:{port}", "--set", f"port={port}")
    mkt.ok("create", "nginx", "web", *publish)

    journal, ours = socket.socketpair()  # as systemd's is: nothing can open it by a name

    with journal, ours, listening(mkt, tmp_path, "web", journal=journal) as service:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            page = answer.read()
        peer = ours.recv(200)
        service.terminate()
        ended = service.wait(30)

    assert b"nginx, from mktemplate" in page
    assert peer.startswith(b"127.0.0.1 ")
    assert ended == 0


@pytest.mark.parametrize(
    ("template", "options", "words"),
    [
        ("base", ("--publish", "2222:22"), "cannot be given sockets"),
        ("sshd", (), "publishes no port"),
        ("nginx", ("--publish", "8080:80"), "0.0.0.0:80"),
    ],
)
def test_what_cannot_be_activated_is_refused_with_the_way_out(
    template: str, options: tuple[str, ...], words: str, mkt: Mkt
) -> None:
    mkt.ok("create", template, "one", *options)

    refused = mkt("unit", "one", "--socket")

    assert refused.returncode == 2
    assert words in refused.stderr
    assert "hint:" in refused.stderr


def test_idle_without_sockets_is_refused_before_anything_runs(mkt: Mkt) -> None:
    mkt.ok("create", "base", "one")

    refused = mkt("start", "--foreground", "--idle", "10m", "one")

    assert (refused.returncode, mkt.json("info", "one")["state"]) == (2, "STOPPED")
    assert "LISTEN_FDS" in refused.stderr
