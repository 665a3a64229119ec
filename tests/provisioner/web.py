"""A web server on 127.0.0.1 that misbehaves as it is told, one answer a path."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Speak = Callable[[socket.socket, str], None]  # what to say to a request, given its text


@dataclass
class Web:
    """Paths and what is said at each; requests as they came."""

    port: int = 0
    answers: dict[str, Speak] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def answer(
    body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None
) -> Speak:
    """Say a whole response; `length` is what Content-Length claims (-1: it is left out)."""
    claim = "" if length == -1 else f"Content-Length: {len(body) if length is None else length}\r\n"
    end = "" if claim and length is None else "Connection: close\r\n"

    def speak(peer: socket.socket, request: str) -> None:
        peer.sendall(f"HTTP/1.1 {status}\r\n{claim}{end}{headers}\r\n".encode() + body)
        if end:
            peer.shutdown(socket.SHUT_RDWR)

    return speak


def in_turn(*speakers: Speak) -> Speak:
    """Say one after the other, one a request."""
    waiting = list(speakers)

    def speak(peer: socket.socket, request: str) -> None:
        waiting.pop(0)(peer, request)

    return speak


def ranged(body: bytes, *, cut: int = 0) -> Speak:
    """Serve `body` with Range; the first answer breaks off after `cut` bytes where it is given."""
    broken: list[int] = []

    def speak(peer: socket.socket, request: str) -> None:
        start = 0
        for line in request.split("\r\n"):
            if line.lower().startswith("range: bytes="):
                start = int(line.partition("=")[2].rstrip("-"))
        part = body[start:]
        status = "206 Partial Content" if start else "200 OK"
        extra = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\n" if start else ""
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(part)}\r\n{extra}\r\n".encode()
        if cut and not broken:
            broken.append(1)
            peer.sendall(head + part[:cut])
            peer.shutdown(socket.SHUT_RDWR)
        else:
            peer.sendall(head + part)

    return speak


def drip(first: bytes, repeated: bytes, pause: float) -> Speak:
    """Say `first`, then `repeated` again and again with a pause between."""

    def speak(peer: socket.socket, request: str) -> None:
        peer.sendall(first)
        while True:
            peer.sendall(repeated)
            if threading.Event().wait(pause):
                return

    return speak


def silent(peer: socket.socket, request: str) -> None:
    """Say nothing until the other side goes."""
    peer.recv(1)


def _serve(web: Web, peer: socket.socket) -> None:
    with peer:
        try:
            while True:
                request = b""
                while b"\r\n\r\n" not in request:
                    more = peer.recv(65536)
                    if not more:
                        return
                    request += more
                text = request.decode("latin-1")
                web.requests.append(text)
                path = text.split(" ")[1]
                missing = answer(b"", status="404 Not Found")
                web.answers.get(path, missing)(peer, text)
        except OSError:
            return


@contextmanager
def served_web() -> Iterator[Web]:
    """Serve until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        web = Web(port=listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_serve, args=(web, peer), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield web
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
