"""The .deb reader: the ar container, the decompressors' limits, and whether control says what the index says."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
from pathlib import Path

import pytest

from provisioner.deb import archive
from provisioner.errors import BadArchive
from provisioner.index import Package
from tests import hostile
from tests.hostile import HostileDeb, file

PLAIN = HostileDeb(name="plain", items=[file(b"./usr/share/x", b"content")])


def opened(tmp_path: Path, body: bytes) -> int:
    path = tmp_path / "x.deb"
    path.write_bytes(body)
    return os.open(path, os.O_RDONLY)


def unfolded(tmp_path: Path, body: bytes, installed: int = 1 << 20) -> memoryview:
    fd, out = opened(tmp_path, body), os.memfd_create("raw")
    package = Package(name="plain", version="1", arch="all", installed_size=installed)
    try:
        archive.unfold(fd, out, package)
        return memoryview(os.pread(out, os.fstat(out).st_size, 0))
    finally:
        os.close(fd)
        os.close(out)


@pytest.mark.parametrize("compression", ["xz", "gzip", "zstd", "none"])
def test_what_dpkg_deb_builds_is_read(tmp_path: Path, compression: str) -> None:
    (tmp_path / "tree/DEBIAN").mkdir(parents=True)
    (tmp_path / "tree/DEBIAN/control").write_text(
        "Package: plain\nVersion: 1\nArchitecture: all\nMaintainer: N <n@example.org>\nDescription: x\n"
    )
    (tmp_path / "tree/file").write_text("content")
    subprocess.run(
        ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "-b", "tree", "made.deb"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip

    raw = archive.split_raw(unfolded(tmp_path, (tmp_path / "made.deb").read_bytes()))

    assert raw is not None
    control = archive.read_control(raw[0], Package(name="plain", version="1", arch="all"))
    assert control.fields["Maintainer"] == "N <n@example.org>"
    assert b"content" in bytes(raw[1])


def _ar(*members: tuple[bytes, bytes]) -> bytes:
    return hostile.ar(members)


_FORMAT = (b"debian-binary", b"2.0\n")
_CONTROL = (b"control.tar.gz", gzip.compress(hostile.tar([])))
_DATA = (b"data.tar.gz", gzip.compress(hostile.tar([])))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"PK\3\4 a zip",
        b"!<arch>\n",
        _ar(_CONTROL, _DATA),
        _ar((b"debian-binary", b"3.0\n"), _CONTROL, _DATA),
        _ar(_FORMAT, _DATA, _CONTROL),
        _ar(_FORMAT, _CONTROL),
        _ar(_FORMAT, _CONTROL, _DATA, _DATA),
        _ar(_FORMAT, _CONTROL, _CONTROL, _DATA),
        _ar(_FORMAT, _CONTROL, (b"data.tar.xz/../x", b"")),
        _ar(_FORMAT, _CONTROL, (b"data.tar.lzma", b"")),
        _ar(_FORMAT, (b"//", b"long names"), _CONTROL, _DATA),
        _ar(_FORMAT, _CONTROL, _DATA) + b"x",
        _ar(_FORMAT, _CONTROL, _DATA).replace(b"`\n", b"``", 1),
        _ar(_FORMAT, _CONTROL, _DATA).replace(b"4         `", b"-1        `", 1),
        _ar(_FORMAT, _CONTROL, _DATA).replace(b"4         `", b"9999999999`", 1),
        _ar(_FORMAT, _CONTROL, _DATA).replace(b"4         `", b" 4        `", 1),
    ],
)
def test_a_container_that_is_not_exactly_deb5_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(BadArchive) as refused:
        archive.layout(opened(tmp_path, body), "x.deb")

    assert refused.value.code in ("E_DEB_FORMAT", "E_ARCHIVE_TRUNC")


def test_members_with_an_underscore_are_skipped(tmp_path: Path) -> None:
    body = _ar(_FORMAT, (b"_gpgorigin", b"odd"), _CONTROL, _DATA)

    assert archive.layout(opened(tmp_path, body), "x.deb").data.suffix == "gz"


@pytest.mark.parametrize("compress", ["xz", "gz"])
def test_a_compressed_stream_that_is_cut_is_noticed(tmp_path: Path, compress: str) -> None:
    whole = hostile.tar([file(b"./a", os.urandom(5000))])
    packed = lzma.compress(whole) if compress == "xz" else gzip.compress(whole)

    for end in range(1, len(packed), 512):
        data = (b"data.tar." + compress.encode(), packed[:end])
        with pytest.raises(BadArchive) as refused:
            unfolded(tmp_path, _ar(_FORMAT, _CONTROL, data))
        assert refused.value.code == "E_ARCHIVE_TRUNC"


@pytest.mark.parametrize("more", [b"x", gzip.compress(b"again")], ids=["junk", "a second stream"])
def test_bytes_after_a_compressed_stream_are_refused(tmp_path: Path, more: bytes) -> None:
    data = (b"data.tar.gz", _DATA[1] + more)

    with pytest.raises(BadArchive, match="E_ARCHIVE_TRUNC"):
        unfolded(tmp_path, _ar(_FORMAT, _CONTROL, data))


def test_a_flipped_bit_in_compressed_data_is_noticed(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(hostile.tar([file(b"./a", b"x" * 5000)])))
    packed[len(packed) // 2] ^= 4

    with pytest.raises(BadArchive, match="E_DEB_FORMAT"):
        unfolded(tmp_path, _ar(_FORMAT, _CONTROL, (b"data.tar.xz", bytes(packed))))


@pytest.mark.parametrize("compress", ["xz", "gz"])
def test_a_bomb_is_stopped_at_the_limit(tmp_path: Path, compress: str) -> None:
    zeros = bytes(64 << 20)
    packed = lzma.compress(zeros, preset=0) if compress == "xz" else gzip.compress(zeros, 1)
    bomb = (b"control.tar." + compress.encode(), packed)

    with pytest.raises(BadArchive, match="more than 16777216 bytes"):
        unfolded(tmp_path, _ar(_FORMAT, bomb, _DATA))


def test_the_limit_of_data_follows_the_installed_size() -> None:
    small = Package(name="x", version="1", arch="all", installed_size=10 << 20)

    assert archive.data_limit(small) == (40 << 20) + (256 << 20)


@pytest.mark.parametrize("field", ["Package", "Version", "Architecture"])
def test_control_must_say_what_the_index_says(tmp_path: Path, field: str) -> None:
    deb = HostileDeb(name="plain", fields={field: "other"}, items=PLAIN.items)
    raw = archive.split_raw(unfolded(tmp_path, deb.bytes))
    assert raw is not None

    with pytest.raises(BadArchive, match="E_TRUST_MISMATCH"):
        archive.read_control(raw[0], Package(name="plain", version="1", arch="all"))


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (hostile.symlink(b"./postinst", b"/bin/sh"), "E_ARCHIVE_TYPE"),
        (file(b"./sub/postinst"), "E_ARCHIVE_TYPE"),
        (file(b"./../postinst"), "E_ARCHIVE_PATH"),
        (file(b"./control", b"Package: twice\n"), "E_ARCHIVE_DUP"),
    ],
)
def test_the_control_archive_holds_plain_files_only(
    tmp_path: Path, extra: hostile.Item, code: str
) -> None:
    raw = archive.split_raw(unfolded(tmp_path, HostileDeb(name="plain", control=[extra]).bytes))
    assert raw is not None

    with pytest.raises(BadArchive) as refused:
        archive.read_control(raw[0], Package(name="plain", version="1", arch="all"))

    assert refused.value.code == code


def test_a_duplicate_field_is_refused() -> None:
    with pytest.raises(BadArchive, match="E_DEB_FORMAT"):
        archive.parse_stanza(b"Package: a\nPackage: b\n", "x.deb")


def test_a_damaged_raw_archive_is_told_from_a_whole_one(tmp_path: Path) -> None:
    raw = bytearray(unfolded(tmp_path, PLAIN.bytes))
    assert archive.split_raw(memoryview(raw)) is not None
    raw[-1500] ^= 1

    assert archive.split_raw(memoryview(raw)) is None


def test_an_archive_is_not_opened_before_its_hash_is_right(tmp_path: Path) -> None:
    fd, out = opened(tmp_path, b"not even an archive"), os.memfd_create("raw")
    package = Package(name="plain", version="1", arch="all", sha256="0" * 64)

    with pytest.raises(BadArchive, match="E_CORRUPT"):
        archive.unfold(fd, out, package)
