"""A real registry on this machine's loopback, with no login, with one, or with tokens of a place beside it."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "mkt", "correct horse"
_PATIENCE = 20.0  # seconds


class Registry:
    """The registry that listens at `host`; what it stores is below `folder`."""

    def __init__(self, host: str, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.log = folder / "log"

    def get(self, path: str, accept: str = "*/*") -> Any:  # noqa: ANN401 - JSON is any
        """Return a document of the repository API."""
        asked = urllib.request.Request(f"http://{self.host}/v2/{path}", headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.loads(answer.read())

    def requests(self) -> list[str]:
        """Return the requests so far, as METHOD PATH."""
        found = []
        for line in self.log.read_text().split("\n"):
            words = line.split('"')
            if len(words) > 2 and words[1].endswith(("HTTP/1.1", "HTTP/1.0")):
                found.append(words[1].rpartition(" ")[0])
        return found


@contextmanager
def registry(folder: Path, auth: str = "") -> Iterator[Registry]:
    """Run docker-registry below `folder` for the length of the block; `auth` is YAML."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '{host}', secret: of-this-test}}\n{auth}"
    )
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
        try:
            _await(host, process)
            yield Registry(host, folder)
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE)


def _await(host: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the registry answers anything at all."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=30).close()
            return
        except urllib.error.HTTPError:
            return  # it asks for a login
        except OSError:
            assert process.poll() is None, "the registry ended"
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)  # between two tries


def basic(folder: Path) -> str:
    """Return the configuration that asks for USER and PASSWORD; its file is made beside `folder`."""
    file = folder.with_name("htpasswd")
    made = subprocess.run(
        ["htpasswd", "-nbB", USER, PASSWORD], capture_output=True, check=True, timeout=30
    )
    file.write_bytes(made.stdout.strip() + b"\n")
    return f"auth: {{htpasswd: {{realm: test, path: {file}}}}}\n"


@contextmanager
def tokens(folder: Path) -> Iterator[str]:
    """Run a place that gives tokens to USER; yield the configuration that sends clients there."""
    key, certificate = folder.with_name("token.key"), folder.with_name("token.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens", "-days", "2",
         "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {expected}":
                self.send_error(401)
                return
            asked = parse_qs(urlsplit(self.path).query)
            body = json.dumps({"token": _token(asked["scope"][0], key, certificate)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield (
            f"auth: {{token: {{realm: 'http://127.0.0.1:{server.server_port}/token', service: test, "
            f"issuer: tokens, rootcertbundle: {certificate}}}}}\n"
        )
    finally:
        server.shutdown()
        server.server_close()


def _token(scope: str, key: Path, certificate: Path) -> str:
    """Return a signed JWT for one scope, as the distribution's token specification has it."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    lines = certificate.read_text().split("\n")
    x5c = "".join(line for line in lines if line and not line.startswith("-----"))
    now = int(time.time())
    claims = {
        "iss": "tokens", "sub": USER, "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": hashlib.sha256(scope.encode()).hexdigest(),
        "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
    }  # fmt: skip
    head = {"typ": "JWT", "alg": "RS256", "x5c": [x5c]}
    text = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(claims).encode())}"
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(key)], input=text.encode(),
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    return f"{text}.{_encoded(signed.stdout)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def login(home: Path, host: str) -> None:
    """Leave in `home` what `docker login` would."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (home / ".docker").mkdir(parents=True, exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
