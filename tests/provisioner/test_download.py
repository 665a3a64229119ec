"""An archive is in the cache whole and right, or not at all; two runs share the work; a broken one goes on."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from provisioner.download import cached, download, object_path
from provisioner.errors import DownloadFailed, ProvisionError, UntrustedIndex
from provisioner.fetch import HttpFetch, Limits
from provisioner.index import Package
from provisioner.progress import SILENT, Advance
from tests.provisioner.web import Web, answer, drip, in_turn, ranged, served_web

BODY = hashlib.shake_128(b"archive").digest(300_000)
QUICK = Limits(connect=2, headers=2, stall=2, pauses=())


class Counted:
    """A Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.total: int | None = 0
        self.done = 0

    @contextmanager
    def _phase(self, total: int | None) -> Iterator[Advance]:
        self.total = total

        def advance(count: int) -> None:
            self.done += count

        yield advance

    def phase(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        return self._phase(total)


@pytest.fixture
def web() -> Iterator[Web]:
    with served_web() as web:
        yield web


@pytest.fixture
def fetch() -> Iterator[HttpFetch]:
    with HttpFetch({}, QUICK) as fetch:
        yield fetch


def _package(web: Web, body: bytes = BODY, name: str = "hello") -> Package:
    return Package(
        name=name,
        version="1.0",
        arch="amd64",
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        url=web.url(f"/pool/{name}.deb"),
    )


def _partial(cache: Path, package: Package) -> Path:
    return cache / "partial" / package.sha256


def test_an_archive_lands_read_only_under_its_hash(
    web: Web, fetch: HttpFetch, tmp_path: Path
) -> None:
    package, progress = _package(web), Counted()
    web.answers["/pool/hello.deb"] = answer(BODY)

    download([package], tmp_path, fetch, progress)

    path = cached(package, tmp_path)
    assert path == tmp_path / "sha256" / package.sha256[:2] / package.sha256
    assert path.read_bytes() == BODY
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert (progress.total, progress.done) == (len(BODY), len(BODY))
    assert list((tmp_path / "partial").iterdir()) == []


def test_many_archives_come_over_few_connections(
    web: Web, fetch: HttpFetch, tmp_path: Path
) -> None:
    bodies = {
        f"p{number}": hashlib.shake_128(bytes([number])).digest(50_000) for number in range(20)
    }
    packages = [_package(web, body, name) for name, body in bodies.items()]
    web.answers |= {f"/pool/{name}.deb": answer(body) for name, body in bodies.items()}

    download(packages, tmp_path, fetch, SILENT, connections=4)

    assert all(cached(package, tmp_path) for package in packages)
    assert sum(map(len, fetch._idle.values())) <= 4


def test_what_is_cached_is_not_asked_for_again(web: Web, fetch: HttpFetch, tmp_path: Path) -> None:
    package = _package(web)
    web.answers["/pool/hello.deb"] = answer(BODY)
    download([package], tmp_path, fetch, SILENT)

    download([package, package], tmp_path, fetch, SILENT)

    assert len(web.requests) == 1


def test_offline_every_missing_archive_is_named(web: Web, fetch: HttpFetch, tmp_path: Path) -> None:
    packages = [_package(web), _package(web, b"x", "other")]

    with pytest.raises(DownloadFailed, match=r"hello 1\.0, other 1\.0") as refused:
        download(packages, tmp_path, fetch, SILENT, offline=True)

    assert refused.value.code.startswith("E_NET_")
    assert web.requests == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (BODY[:-1] + b"\0", "E_TRUST_HASH"),
        (BODY + b"\0", "E_NET_TOOBIG"),
        (BODY[:-1], "E_NET_TRUNCATED"),
        (b"<html>log in</html>", "E_NET_TRUNCATED"),
    ],
    ids=["changed", "longer", "shorter", "login page"],
)
def test_an_archive_that_is_not_the_signed_one_never_lands(
    web: Web, fetch: HttpFetch, tmp_path: Path, body: bytes, code: str
) -> None:
    package, progress = _package(web), Counted()
    web.answers["/pool/hello.deb"] = answer(body)

    with pytest.raises(ProvisionError) as refused:
        download([package], tmp_path, fetch, progress)

    assert refused.value.code == code
    assert cached(package, tmp_path) is None
    assert list((tmp_path / "sha256").rglob("*")) == []
    assert progress.done == 0


def test_an_endless_archive_is_cut_at_its_signed_size(
    web: Web, fetch: HttpFetch, tmp_path: Path
) -> None:
    web.answers["/pool/hello.deb"] = drip(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 65536, 0)

    with pytest.raises(DownloadFailed) as refused:
        download([_package(web)], tmp_path, fetch, SILENT)

    assert refused.value.code == "E_NET_TOOBIG"


def test_what_a_broken_run_left_is_resumed(web: Web, fetch: HttpFetch, tmp_path: Path) -> None:
    package, progress = _package(web), Counted()
    _partial(tmp_path, package).parent.mkdir()
    _partial(tmp_path, package).write_bytes(BODY[:200_000])
    web.answers["/pool/hello.deb"] = ranged(BODY)

    download([package], tmp_path, fetch, progress)

    assert "range: bytes=200000-" in web.requests[0].lower()
    assert cached(package, tmp_path)
    assert progress.done == len(BODY)


def test_what_a_broken_run_finished_needs_no_request(
    web: Web, fetch: HttpFetch, tmp_path: Path
) -> None:
    package = _package(web)
    _partial(tmp_path, package).parent.mkdir()
    _partial(tmp_path, package).write_bytes(BODY)

    download([package], tmp_path, fetch, SILENT)

    assert web.requests == []
    assert cached(package, tmp_path)


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * 400_000], ids=["damaged", "too long"])
def test_a_leftover_that_is_not_the_beginning_is_fetched_anew(
    web: Web, fetch: HttpFetch, tmp_path: Path, left: bytes
) -> None:
    package, progress = _package(web), Counted()
    _partial(tmp_path, package).parent.mkdir()
    _partial(tmp_path, package).write_bytes(left)
    web.answers["/pool/hello.deb"] = ranged(BODY)

    download([package], tmp_path, fetch, progress)

    assert cached(package, tmp_path)
    assert progress.done == len(BODY)


def test_the_next_mirror_is_taken_where_one_has_a_damaged_archive(
    web: Web, fetch: HttpFetch, tmp_path: Path
) -> None:
    package = _package(web)
    web.answers["/pool/hello.deb"] = answer(BODY[:-1] + b"\0")
    with served_web() as other:
        other.answers["/pool/hello.deb"] = answer(BODY)
        fetch.learn((web.url(""), other.url("")))

        download([package], tmp_path, fetch, SILENT)

    assert cached(package, tmp_path)


def test_an_object_of_another_size_is_fetched_anew(
    web: Web, fetch: HttpFetch, tmp_path: Path
) -> None:
    package = _package(web)
    path = object_path(tmp_path, package.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    web.answers["/pool/hello.deb"] = answer(BODY)

    download([package], tmp_path, fetch, SILENT)

    assert path.read_bytes() == BODY


def test_two_runs_share_one_download(web: Web, tmp_path: Path) -> None:
    package = _package(web)
    arrived, go_on = threading.Event(), threading.Event()

    def slowly(peer: object, request: str) -> None:
        arrived.set()
        go_on.wait(5)
        answer(BODY)(peer, request)  # type: ignore[arg-type]  # a socket

    web.answers["/pool/hello.deb"] = in_turn(slowly)

    def run() -> None:
        with HttpFetch({}, QUICK) as fetch:
            download([package], tmp_path, fetch, SILENT)

    runs = [threading.Thread(target=run) for _ in range(2)]
    runs[0].start()
    assert arrived.wait(5)
    runs[1].start()
    go_on.set()
    for each in runs:
        each.join(10)

    assert len(web.requests) == 1
    assert cached(package, tmp_path)


def test_a_killed_run_leaves_what_the_next_one_goes_on_with(web: Web, tmp_path: Path) -> None:
    package = _package(web)
    sent = threading.Event()

    def half(peer: object, request: str) -> None:
        peer.sendall(  # type: ignore[attr-defined]  # a socket
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:150_000]
        )
        sent.set()
        peer.recv(1)  # type: ignore[attr-defined]  # as above; returns when the run is dead

    web.answers["/pool/hello.deb"] = in_turn(half, ranged(BODY))
    code = (
        "import sys\nfrom pathlib import Path\nfrom provisioner.download import download\n"
        "from provisioner.fetch import HttpFetch\nfrom provisioner.index import Package\n"
        "from provisioner.progress import SILENT\n"
        f"download([{package!r}], Path(sys.argv[1]), HttpFetch({{}}), SILENT)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=os.getcwd()) as run:
        assert sent.wait(20)
        run.kill()
    left = _partial(tmp_path, package)
    assert cached(package, tmp_path) is None

    with HttpFetch({}, QUICK) as fetch:
        download([package], tmp_path, fetch, SILENT)

    assert cached(package, tmp_path)
    assert not left.exists()


def test_the_first_failure_ends_the_others(web: Web, fetch: HttpFetch, tmp_path: Path) -> None:
    packages = [_package(web), _package(web, b"x" * 1000, "slow")]
    web.answers["/pool/slow.deb"] = drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.1)

    with pytest.raises(DownloadFailed, match="404"):
        download(packages, tmp_path, fetch, SILENT)

    assert cached(packages[1], tmp_path) is None


def test_a_hash_that_is_none_never_becomes_a_path(tmp_path: Path) -> None:
    for text in ("../../etc/passwd", "A" * 64, "0" * 63, ""):
        with pytest.raises(UntrustedIndex):
            object_path(tmp_path, text)
