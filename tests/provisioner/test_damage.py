"""Whatever a mirror, a keyring or a host's file holds, our parsers answer with an error of ours or a value."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from provisioner.deb.trust import Verified, parse, split
from provisioner.errors import ProvisionError
from provisioner.openpgp import Malformed, certificates, dearmor, signatures
from provisioner.sources import Source, host_mirrors, parse_repository
from tests.archive import Key

ROUNDS = 400
RELEASE = (
    "Origin: Test\nSuite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n"
    "Valid-Until: Sat, 28 Nov 2026 09:15:44 UTC\nArchitectures: all amd64\nComponents: main\n"
    f"SHA256:\n {'0' * 64} 17 main/binary-amd64/Packages.xz\n {'1' * 64} 99 main/binary-amd64/Packages\n"
).encode()
SOURCE = Source(
    distro="debian", suite="trixie", url="http://h/d", components=("main",), arch="amd64"
)
REPOSITORY = (
    "Types: deb\nURIs: http://h/d\nSuites: stable\nComponents: main\nSigned-By: /k\n"
    f"Fingerprint: {'A' * 40}\nInclude: tool\n"
).encode()


def _damaged(data: bytes, seed: int) -> bytes:
    """Return `data` with some bytes changed, dropped, doubled or cut off."""
    chance = random.Random(seed)
    text = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        if not text:
            break
        at = chance.randrange(len(text))
        to = min(len(text), at + chance.randrange(1, 40))
        change = chance.randrange(5)
        if change == 0:
            text[at] = chance.randrange(256)
        elif change == 1:
            del text[at:to]
        elif change == 2:
            text[at:at] = text[at:to] * chance.randrange(1, 4)
        elif change == 3:
            text[at:at] = chance.choice(
                [b"\0", b"\n\n", b"\r", b"-", b" ", b"\xff\xff\xff\xff", b":"]
            )
        else:
            del text[to:]
    return bytes(text)


@pytest.fixture(scope="module")
def message(archive_key: Key) -> bytes:
    return archive_key.clearsign(RELEASE)


def test_a_damaged_message_is_refused_or_whole(message: bytes) -> None:
    for seed in range(ROUNDS):
        with suppress(ProvisionError, Malformed):
            parts = split(_damaged(message, seed), "InRelease")
            signatures(dearmor(parts.signatures))


def test_damaged_signatures_are_malformed_or_signatures(message: bytes) -> None:
    packets = dearmor(message[message.index(b"-----BEGIN PGP SIGNATURE") :])
    for seed in range(ROUNDS):
        with suppress(Malformed):
            signatures(_damaged(packets, seed))


@pytest.mark.parametrize("armored", [False, True], ids=["binary", "armored"])
def test_a_damaged_keyring_is_malformed_or_keys(archive_key: Key, armored: bool) -> None:
    options = ["--armor"] if armored else []
    ring = archive_key.gpg(*options, "--export", archive_key.fingerprint)
    for seed in range(ROUNDS):
        with suppress(Malformed):
            [each.keys for each in certificates(_damaged(ring, seed))]


def test_a_damaged_release_is_refused_or_whole() -> None:
    for seed in range(ROUNDS):
        with suppress(ProvisionError):
            release = parse(Verified(_damaged(RELEASE, seed), ()), SOURCE)
            assert all(len(sha256) == 64 and size >= 0 for sha256, size in release.hashes.values())
            assert all(".." not in name.split("/") and name[0] != "/" for name in release.hashes)


@pytest.mark.parametrize(
    "read",
    [
        lambda text, folder: parse_repository(text.decode("utf-8", "replace"), "amd64", where="f"),
        lambda text, folder: (folder / "sources.list").write_bytes(text) and host_mirrors(folder),
        lambda text, folder: (
            (folder / "sources.list.d/a.sources").write_bytes(text) and host_mirrors(folder)
        ),
    ],
    ids=["--repo", "sources.list", "sources.list.d"],
)
def test_damaged_sources_are_refused_or_left_out(
    tmp_path: Path, read: Callable[[bytes, Path], object]
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    for seed in range(ROUNDS):
        with suppress(ProvisionError):
            read(_damaged(REPOSITORY + b"\ndeb [a=b] http://h/d trixie main\n", seed), tmp_path)
