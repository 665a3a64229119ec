"""Index files are decompressed whole, within their signed size, or refused."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from provisioner.deb.decode import decode
from provisioner.errors import UntrustedIndex

TEXT = b"".join(b"Package: p%d\nVersion: %d\n\n" % (n, n * n) for n in range(60_000))


def blocks(tmp_path: Path, *options: str) -> bytes:
    plain = tmp_path / "plain"
    plain.write_bytes(TEXT)
    done = subprocess.run(["xz", "-c", *options, str(plain)], capture_output=True, check=True)
    return done.stdout


@pytest.mark.parametrize("check", ["crc32", "crc64", "sha256", "none"])
def test_an_xz_of_many_blocks_is_decoded(check: str, tmp_path: Path) -> None:
    packed = blocks(tmp_path, "--block-size=200KiB", "-T2", f"--check={check}")

    assert decode(packed, len(TEXT), "x") == TEXT


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bytes], ids=["xz", "gz", "plain"])
def test_the_other_formats_are_decoded(pack: object) -> None:
    assert decode(pack(TEXT), len(TEXT), "x") == TEXT  # type: ignore[operator]  # one of three functions


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bytes], ids=["xz", "gz", "plain"])
def test_more_than_the_signed_size_is_refused(pack: object) -> None:
    with pytest.raises(UntrustedIndex, match="E_TRUST_SIZE"):
        decode(pack(TEXT), len(TEXT) - 1, "x")  # type: ignore[operator]  # one of three functions


def test_a_bomb_of_many_blocks_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    packed = blocks(tmp_path, "--block-size=200KiB", "-T2")

    with pytest.raises(UntrustedIndex, match="E_TRUST_SIZE"):
        decode(packed, 1000, "x")


@pytest.mark.parametrize("at", [13, 40, 5_000, -30, -9, -3])
def test_a_damaged_xz_is_an_error_of_ours(at: int, tmp_path: Path) -> None:
    packed = bytearray(blocks(tmp_path, "--block-size=200KiB", "-T2"))
    packed[at] ^= 0x55

    try:
        plain = decode(bytes(packed), len(TEXT), "x")
    except UntrustedIndex as error:
        assert error.code in ("E_TRUST_HASH", "E_TRUST_SIZE")
    else:
        assert len(plain) <= len(TEXT)  # the caller compares the hash
