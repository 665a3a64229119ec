"""Services that are asked from outside their network namespace."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from runtime.answer import answers

pytestmark = pytest.mark.root
# Hears one line of each client and answers it as the line says, byte by byte, or never; then waits for its leave.
SERVER = """
import fcntl, socket, struct, threading
def serve(peer):
    with peer, peer.makefile("rb") as heard:
        line = heard.readline()
        if line == b"silence\\n":
            return peer.recv(1)
        for byte in line.strip():
            peer.send(bytes((byte,)))
        left.append(peer.recv(1) == b"")
left = []
server = socket.socket()
fcntl.ioctl(server, 0x8914, struct.pack("=16sh22x", b"lo", 1))
server.bind(("127.0.0.1", 7000))
server.listen()
print(flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The pid of a server in a network namespace of its own."""
    with subprocess.Popen(
        ["unshare", "-n", sys.executable, "-c", SERVER], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    ("send", "expect", "holds"),
    [
        (b"READY and more\n", b"READY", True),
        (b"\0\1\xff\n", b"\0\1\xff", True),
        (b"STARTING\n", b"READY", False),
        (b"REA\n", b"READY", False),
    ],
    ids=["more", "bytes", "another", "less"],
)
def test_an_answer_is_compared_from_its_beginning(
    server: int, send: bytes, expect: bytes, holds: bool
) -> None:
    assert answers(server, 7000, send, expect) is holds


def test_whoever_says_nothing_holds_nobody_up(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.answer._PATIENCE", 0.1)

    assert not answers(server, 7000, b"silence\n", b"READY")


def test_a_port_that_nobody_listens_on_does_not_answer(server: int) -> None:
    assert not answers(server, 7001, b"", b"R")
