"""TLS on both ways to fetch: a known certificate is accepted, any other refused, and the deadlines hold."""

from __future__ import annotations

import http.server
import io
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provisioner.errors import DownloadFailed
from provisioner.fetch import HttpFetch, Limits
from tests.provisioner.web import Web, served_web

BODY = b"hello\n" * 1000
LIMITS = Limits(connect=2, headers=1, stall=0.5, document=1, pauses=())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.path == "/slow":
            self.wfile.write(BODY[:10])
            self.rfile.read(1)  # until the other side goes
        else:
            self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


@dataclass(frozen=True)
class Tls:
    port: int
    certificate: Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Iterator[Tls]:
    needs("openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: object, address: object) -> None:
            try:
                with context.wrap_socket(request, server_side=True) as peer:  # type: ignore[arg-type]  # a socket
                    self.RequestHandlerClass(peer, address, self)  # type: ignore[arg-type]  # as above
            except OSError:
                return

    with Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield Tls(server.server_address[1], certificate)
        server.shutdown()
        thread.join()


@pytest.fixture
def trusted(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Tls:
    """Make the certificate one of the system's, as an administrator would (SSL_CERT_FILE, openssl(1))."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    return tls


@pytest.fixture(params=["document", "download"])
def get(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    def get(url: str, environ: dict[str, str] | None = None) -> bytes:
        out = io.BytesIO()
        with HttpFetch(environ or {}, LIMITS) as fetch:
            if request.param == "document":
                return fetch.document(url, len(BODY))
            fetch.download(url, out, offset=0, size=len(BODY), advance=lambda count: None)
        return out.getvalue()

    return get


def test_a_known_certificate_is_accepted(trusted: Tls, get: Callable[..., bytes]) -> None:
    assert get(f"https://localhost:{trusted.port}/f") == BODY


def test_an_unknown_certificate_is_refused(tls: Tls, get: Callable[..., bytes]) -> None:
    with pytest.raises(DownloadFailed) as failed:
        get(f"https://localhost:{tls.port}/f")

    assert failed.value.code == "E_NET_TLS"


def test_a_certificate_for_another_name_is_refused(trusted: Tls, get: Callable[..., bytes]) -> None:
    with pytest.raises(DownloadFailed, match="certificate") as failed:
        get(f"https://127.0.0.1:{trusted.port}/f")

    assert failed.value.code == "E_NET_TLS"


def test_what_stalls_over_tls_ends(trusted: Tls, get: Callable[..., bytes]) -> None:
    begin = time.monotonic()

    with pytest.raises(DownloadFailed) as failed:
        get(f"https://localhost:{trusted.port}/slow")

    assert failed.value.code == "E_NET_TIMEOUT"
    assert time.monotonic() - begin < 3


def test_a_proxy_is_tunnelled_through(trusted: Tls, get: Callable[..., bytes]) -> None:
    with served_web() as proxy:
        _tunnel(proxy, trusted.port)

        body = get(f"https://localhost:{trusted.port}/f", {"https_proxy": proxy.url("")})

    assert body == BODY
    assert proxy.requests[0].startswith(f"CONNECT localhost:{trusted.port} ")


def _tunnel(proxy: Web, port: int) -> None:
    """Let `proxy` answer CONNECT for the server at `port`."""

    def speak(peer: socket.socket, request: str) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(server, peer), daemon=True)
            back.start()
            _pump(peer, server)
            back.join(5)

    proxy.answers[f"localhost:{port}"] = speak


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
