"""Asking a service as its client does: a connection from inside its network namespace, a few bytes each way.

It costs no process of the container's, and works where the host has no way to its address. Whoever answers is not
trusted: the answer is compared, and neither it nor its absence holds us up.
"""

from __future__ import annotations

import _socket
import os
import time
from contextlib import suppress

from runtime.kernel import namespace

_PATIENCE = 2.0  # seconds for an answer
_CHUNK = 4096


def answers(pid: int, port: int, send: bytes, expect: bytes) -> bool:
    """Whether TCP `port`, where process `pid` is, answers `send` by what begins with `expect`."""
    try:
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it has ended
        return False
    try:
        with namespace.in_network(netns):
            client = _client()
    except (
        PermissionError
    ):  # a normal user's way leads through the user namespace, which no thread may enter alone
        return _from_there(pid, port, send, expect)
    finally:
        os.close(netns)
    return _talk(client, port, send, expect)


def _client() -> _socket.socket:
    return _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)


def _talk(client: _socket.socket, port: int, send: bytes, expect: bytes) -> bool:
    """Ask, hear the answer, and take leave: a service that is cut off may complain in its log."""
    heard = b""
    until = time.monotonic() + _PATIENCE
    with suppress(OSError):
        client.settimeout(_PATIENCE)
        client.connect(("127.0.0.1", port))
        client.sendall(send)
        while len(heard) < len(expect) and expect.startswith(heard):
            if time.monotonic() > until or not (more := client.recv(_CHUNK)):
                break
            heard += more
        client.shutdown(_socket.SHUT_WR)
        while time.monotonic() < until and client.recv(_CHUNK):
            pass
    client.close()
    return heard.startswith(expect)


def _from_there(pid: int, port: int, send: bytes, expect: bytes) -> bool:
    """Ask from a process of ours that has joined the namespaces of `pid`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    child = os.fork()
    if child == 0:
        try:
            namespace.setns(pidfd, namespace.CLONE_NEWUSER | namespace.CLONE_NEWNET)
            os._exit(0 if _talk(_client(), port, send, expect) else 1)
        finally:
            os._exit(1)
    os.close(pidfd)
    return os.waitpid(child, 0)[1] == 0
