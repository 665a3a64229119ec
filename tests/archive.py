"""Signed archives made by the tests with the real tools: dpkg-deb, apt-ftparchive, gpg; and a server for them.

A `Suite` is a value; `publish` writes it below a folder and may be called again when something new is released.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import lzma
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

TOOLS = ("dpkg-deb", "apt-ftparchive", "gpg", "gpgconf")
DAY = 86400  # seconds
MADE = "1750000000"  # no file in a package is newer, so that equal packages are equal bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """One package as `dpkg-deb --build` makes it."""

    name: str
    version: str = "1.0"
    arch: str = "all"
    files: Mapping[str, str | bytes] = field(
        default_factory=dict
    )  # path without leading slash → body
    scripts: Mapping[str, str] = field(default_factory=dict)  # preinst, postinst …
    essential: bool = False
    compression: str = "xz"  # xz, zstd, gzip, none
    fields: Mapping[str, str] = field(default_factory=dict)  # Depends, Provides, Conflicts …

    def control(self) -> str:
        """Return its control file."""
        essential = {"Essential": "yes"} if self.essential else {}
        rows = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.arch,
            "Maintainer": "Nobody <nobody@example.org>",
            "Installed-Size": "4",
            "Priority": "required" if self.essential else "optional",
            **essential,
            **self.fields,
            "Description": f"the toy {self.name}",
        }
        return "".join(f"{name}: {value}\n" for name, value in rows.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One folder below dists/: what its Release says and which packages it lists."""

    name: str
    origin: str = "Debian"
    label: str = "Debian"
    codename: str = ""  # "" = the name
    suite: str = ""  # "" = the name
    arch: str = "amd64"
    debs: Mapping[str, tuple[Deb | Path, ...]] = field(default_factory=dict)  # component → packages
    age: float = 3600  # seconds since it was made
    valid: float | None = None  # seconds from then to Valid-Until
    by_hash: bool = True
    extra: str = ""  # more lines of Release


@dataclass(frozen=True, slots=True)
class Key:
    """A key that signs, with the keyring that holds its public half."""

    home: Path
    fingerprint: str
    keyring: Path

    def gpg(self, *argv: str | Path, stdin: bytes = b"") -> bytes:
        """Run gpg with this key's home; return its stdout."""
        return subprocess.run(
            ["gpg", "--batch", "--quiet", "--homedir", self.home, *argv],
            input=stdin, stdout=subprocess.PIPE, check=True, timeout=60,
        ).stdout  # fmt: skip

    def clearsign(self, text: bytes) -> bytes:
        """Return `text` as a signed message, as InRelease is one."""
        return self.gpg(
            "--digest-algo", "SHA512", "-u", self.fingerprint, "--clearsign", stdin=text
        )

    def detach(self, text: bytes) -> bytes:
        """Return an armored signature of `text`, as Release.gpg is one."""
        return self.gpg("--digest-algo", "SHA512", "-u", self.fingerprint, "-ab", stdin=text)


@contextmanager
def new_key() -> Iterator[Key]:
    """Make an ed25519 key in a home of its own; its agent ends with it."""
    with tempfile.TemporaryDirectory(
        prefix="mkt-gpg-"
    ) as name:  # short: the agent's socket is in it
        home = Path(name)
        made = Key(home, "", home / "test.pgp")
        try:
            made.gpg(
                "--passphrase", "", "--quick-gen-key", "Test Archive <test@example.org>", "ed25519", "sign", "never"
            )  # fmt: skip
            listed = made.gpg("--with-colons", "--list-keys").decode()
            [fingerprint] = [
                row.split(":")[9] for row in listed.split("\n") if row.startswith("fpr:")
            ]
            made.keyring.write_bytes(made.gpg("--export", fingerprint))
            made.keyring.chmod(0o644)
            yield replace(made, fingerprint=fingerprint)
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], timeout=20)


def build(deb: Deb, folder: Path) -> Path:
    """Make `deb` in `folder`; return its path."""
    target = folder / f"{deb.name}_{deb.version.rpartition(':')[2]}_{deb.arch}.deb"
    with tempfile.TemporaryDirectory(prefix="mkt-deb-") as name:
        tree = Path(name)
        tree.chmod(0o755)
        for path, body in deb.files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(body.encode() if isinstance(body, str) else body)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(deb.control())
        for script, text in deb.scripts.items():
            (tree / "DEBIAN" / script).write_text(text)
            (tree / "DEBIAN" / script).chmod(0o755)
        pack(tree, target, deb.compression)
    return target


def pack(tree: Path, target: Path, compression: str) -> None:
    """Make `target` of the unpacked package in `tree`, owners as they are there for root, else root's."""
    owners = [] if os.geteuid() == 0 else ["--root-owner-group"]
    level = [] if compression == "none" else ["-z1"]
    subprocess.run(
        ["dpkg-deb", f"-Z{compression}", *level, "--uniform-compression", *owners, "--build", tree, target],
        env={**os.environ, "SOURCE_DATE_EPOCH": MADE}, check=True, stdout=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


def publish(root: Path, suite: Suite, key: Key) -> Path:
    """Write dists/SUITE and its part of pool/ below `root`; return the folder of the suite."""
    folder = root / "dists" / suite.name
    indices: dict[str, bytes] = {}
    for component, debs in suite.debs.items():
        text = _packages(root, f"pool/{suite.name}/{component}", debs)
        name = f"{component}/binary-{suite.arch}/Packages"
        indices |= {
            name: text,
            f"{name}.xz": lzma.compress(text, preset=1),
            f"{name}.gz": gzip.compress(text, mtime=0),
        }
    for name, body in indices.items():
        _write(folder / name, body)
        if suite.by_hash:
            _write(
                (folder / name).parent / f"by-hash/SHA256/{hashlib.sha256(body).hexdigest()}", body
            )
    release = _release(suite, indices).encode()
    _write(folder / "InRelease", key.clearsign(release))
    _write(folder / "Release", release)
    _write(folder / "Release.gpg", key.detach(release))
    return folder


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _packages(root: Path, pool: str, debs: tuple[Deb | Path, ...]) -> bytes:
    """Put `debs` into `pool` and return the Packages file that apt-ftparchive makes of it."""
    folder = root / pool
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for deb in debs:
        if isinstance(deb, Deb):
            wanted.add(build(deb, folder))
        else:
            pooled = folder / re.sub("_[0-9]+%3a", "_", deb.name)  # pools name no epochs
            wanted.add(pooled)
            if not pooled.exists():
                os.link(deb, pooled)
    for old in set(folder.glob("*.deb")) - wanted:
        old.unlink()
    return subprocess.run(
        ["apt-ftparchive", "packages", pool],
        cwd=root,
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    ).stdout


def _release(suite: Suite, indices: Mapping[str, bytes]) -> str:
    made = time.time() - suite.age
    rows = {
        "Origin": suite.origin,
        "Label": suite.label,
        "Suite": suite.suite or suite.name,
        "Codename": suite.codename or suite.name,
        "Date": _date(made),
        **({} if suite.valid is None else {"Valid-Until": _date(made + suite.valid)}),
        **({"Acquire-By-Hash": "yes"} if suite.by_hash else {}),
        "No-Support-for-Architecture-all": "Packages",
        "Architectures": f"all {suite.arch}",
        "Components": " ".join(suite.debs),
    }
    head = "".join(f"{name}: {value}\n" for name, value in rows.items())
    hashes = "".join(
        f" {hashlib.sha256(body).hexdigest()} {len(body):>9} {name}\n"
        for name, body in indices.items()
    )
    return f"{head}{suite.extra}SHA256:\n{hashes}"


def _date(moment: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(moment))


def flat_apt(folder: Path, *words: str) -> str:
    """Run an apt tool that knows nothing but `folder`, a flat repository; return its stdout."""
    state = folder / "apt"
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    (state / "archives/partial").mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    options = [
        f"Dir::State={state}", f"Dir::State::status={state}/status", f"Dir::Cache={state}",
        f"Dir::Etc::sourcelist={state}/sources.list", "Dir::Etc::sourceparts=-", "APT::Sandbox::User=root",
        "pkgCacheGen::ForceEssential=,", "APT::Install-Recommends=false", "Dir::Etc::preferencesparts=-",
    ]  # fmt: skip
    argv = [words[0], *(word for option in options for word in ("-o", option)), *words[1:]]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Served:
    """A folder that is being served, with what was asked of it."""

    root: Path
    url: str
    requests: list[str]  # paths, in the order in which they came


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: object, seen: list[str], directory: str) -> None:
        self.seen = seen
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]  # what the server hands on

    def do_GET(self) -> None:
        self.seen.append(self.path)
        super().do_GET()

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that ends early is none of the server's trouble
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(root: Path) -> Iterator[Served]:
    """Serve `root` on a free port of 127.0.0.1."""
    seen: list[str] = []
    handler = functools.partial(_Handler, seen=seen, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield Served(root, f"http://127.0.0.1:{server.server_address[1]}", seen)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def archive_key(needs: Callable[..., None]) -> Iterator[Key]:
    """Return a key that signs this session's archives."""
    needs(*TOOLS)
    with new_key() as key:
        yield key


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Return an empty folder that is served: `publish` into its root."""
    root = tmp_path / "mirror"
    root.mkdir()
    with serve(root) as server:
        yield server
