"""What an export is made of: entries of layers, tar streams, compressed bytes, OCI blobs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner import tar
from provisioner.content import OPAQUE
from provisioner.errors import BadArchive, StoreFailed
from provisioner.export import compress, flat, oci, output
from provisioner.export.archive import Archive
from provisioner.export.image import Image, Part

pytestmark = pytest.mark.root  # owners, whiteouts and capabilities are root's to make
EPOCH = 1_700_000_000


def write(layer: Path, *paths: str, body: str = "x") -> None:
    for path in paths:
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        (layer / path).write_text(body)


def whiteout(layer: Path, path: str) -> None:
    (layer / path).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(layer / path, stat.S_IFCHR, os.makedev(0, 0))


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """An image of two empty layers and an empty upper."""
    parts = []
    for title in ("base", "tree", "written"):
        (tmp_path / title).mkdir()
        parts.append(Part(path=tmp_path / title, title=title))
    yield Image(
        name="Web.1", template="web", distro="debian", release="trixie", arch="amd64", epoch=EPOCH,
        parts=tuple(parts), argv=("/sbin/init",), environment=(("A", "b c"),), ports=("80/tcp",),
    )  # fmt: skip


class Sink(io.BytesIO):
    """Keeps what a stream was sent after it is closed."""

    def close(self) -> None:
        pass


def flattened(image: Image) -> dict[str, tarfile.TarInfo]:
    sink = Sink()
    flat.write(image, sink)
    found = {member.name.decode() for member in tar.members(memoryview(sink.getvalue()), "x")}
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        told = {each.name.removeprefix("."): each for each in archive}
    assert {name.removeprefix("./") for name in told} == found  # two readers agree
    return told


def layers(image: Image, folder: Path) -> list[list[str]]:
    """Return the names in each layer of the image."""
    folder.mkdir(exist_ok=True)
    layout = oci.assemble(image, folder)
    found = []
    for blob in layout.layers:
        with tarfile.open(layout.path(blob)) as archive:
            found.append(archive.getnames())
    return found


def test_the_flat_tree_is_what_the_kernel_shows_as_an_overlay(image: Image, tmp_path: Path) -> None:
    base, tree, upper = (part.path for part in image.parts)
    write(base, "etc/kept", "etc/gone", "usr/bin/tool", "srv/old/a", "was/a/folder")
    write(tree, "etc/new", "srv/old/b")
    write(upper, "usr/bin/tool", body="newer")
    write(upper, "srv/old/c", "was/a.file")
    whiteout(upper, "etc/gone")
    os.setxattr(upper / "srv/old", OPAQUE, b"y")
    (upper / "dangling").symlink_to("/nowhere")
    os.link(upper / "usr/bin/tool", upper / "usr/bin/again")

    for name in ("work", "seen"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tree}:{base},upperdir={upper},workdir={tmp_path}/work,userxattr"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", tmp_path / "seen"], check=True)
    try:
        seen = sorted(
            str(path.relative_to(tmp_path / "seen")) for path in (tmp_path / "seen").rglob("*")
        )
    finally:
        subprocess.run(["umount", tmp_path / "seen"], check=True)

    found = flattened(image)
    assert sorted(name for name in found if name) == seen
    assert found["usr/bin/tool"].linkname == "usr/bin/again"


def test_what_no_two_containers_may_share_stays(image: Image) -> None:
    base, _, upper = (part.path for part in image.parts)
    write(base, "etc/machine-id", body="")
    write(upper, "etc/machine-id", body="5" * 32)
    write(upper, "etc/ssh/ssh_host_rsa_key", "var/lib/mktemplate/secrets/password", "etc/ssh/kept")

    found = flattened(image)

    assert found["etc/machine-id"].size == 0
    assert "etc/ssh/kept" in found
    assert not [name for name in found if "host" in name or "secrets" in name]


def test_a_container_that_only_ran_has_no_layer_of_its_own(image: Image, tmp_path: Path) -> None:
    base, tree, upper = (part.path for part in image.parts)
    write(base, "etc/machine-id", body="")
    write(base, "etc/ssh/sshd_config")
    write(tree, "var/lib/mktemplate/none")
    write(upper, "etc/machine-id", "etc/ssh/ssh_host_rsa_key", "var/lib/mktemplate/started")

    assert len(layers(image, tmp_path / "out")) == 2

    (upper / "etc").chmod(0o700)

    assert layers(image, tmp_path / "again")[2:] == [["etc"]]


def test_deletions_become_names(image: Image, tmp_path: Path) -> None:
    base, _, upper = (part.path for part in image.parts)
    write(base, "etc/gone", "srv/old/a")
    whiteout(upper, "etc/gone")
    write(upper, "srv/old/b")
    os.setxattr(upper / "srv/old", OPAQUE, b"y")

    assert layers(image, tmp_path / "out")[-1] == [
        "etc", "etc/.wh.gone", "srv", "srv/old", "srv/old/.wh..wh..opq", "srv/old/b",
    ]  # fmt: skip


def test_a_name_that_would_delete_elsewhere_is_refused(image: Image, tmp_path: Path) -> None:
    write(image.parts[-1].path, "etc/.wh.passwd")

    with pytest.raises(BadArchive, match=r"E_ARCHIVE_PATH: etc/\.wh\.passwd"):
        layers(image, tmp_path / "out")

    assert "etc/.wh.passwd" in flattened(image)


def test_no_link_of_the_tree_leads_out_of_it(image: Image, tmp_path: Path) -> None:
    write(tmp_path / "canary", "secret")
    (image.parts[-1].path / "etc").symlink_to(tmp_path / "canary")
    write(image.parts[0].path, "etc/inner")

    found = flattened(image)

    assert found["etc"].issym()
    assert not [name for name in found if "secret" in name or "inner" in name]


def test_devices_and_sockets_are_left_out(image: Image) -> None:
    upper = image.parts[-1].path
    os.mknod(upper / "disk", stat.S_IFBLK, os.makedev(7, 0))
    os.mknod(upper / "socket", stat.S_IFSOCK)
    os.mkfifo(upper / "fifo")

    with_fifo = {name for name in _names(image) if name}

    assert with_fifo == {"fifo"}


def _names(image: Image) -> list[str]:
    sink = Sink()
    flat.write(image, sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        return [name.removeprefix(".") for name in archive.getnames()]


def test_a_file_of_nothing_but_holes_is_refused(image: Image) -> None:
    with open(image.parts[-1].path / "huge", "wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(StoreFailed, match="E_LIMIT: huge: 1024 GiB of holes"):
        flattened(image)


@pytest.mark.parametrize(
    "name",
    ["a" * 255, "/".join(["d" * 60] * 5), "x" * 100 + "/" + "y" * 100, "ümlaut", "new\nline"],
    ids=["long", "deep", "split", "utf-8", "newline"],
)
def test_any_name_comes_through(image: Image, tmp_path: Path, name: str) -> None:
    write(image.parts[-1].path, name)
    (image.parts[-1].path / "link").symlink_to(name * 3)
    sink = Sink()

    flat.write(image, sink)

    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        assert name in archive.getnames()
        assert archive.getmember("link").linkname == name * 3
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "out"], input=sink.getvalue(), check=True)
    assert (tmp_path / "out" / name).read_text() == "x"


def test_numbers_that_ustar_has_no_room_for_come_through(image: Image) -> None:
    write(image.parts[-1].path, "file")
    os.chown(image.parts[-1].path / "file", 4_000_000_000, 3_000_000)

    found = flattened(image)["file"]

    assert (found.uid, found.gid) == (4_000_000_000, 3_000_000)


def test_capabilities_lose_the_user_namespace_that_gave_them(image: Image) -> None:
    write(image.parts[-1].path, "ping")
    inside = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 398_869_056)
    os.setxattr(image.parts[-1].path / "ping", "security.capability", inside)
    os.setxattr(image.parts[-1].path / "ping", "user.overlay.origin", b"x")

    headers = flattened(image)["ping"].pax_headers

    told = headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")
    assert told == struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    assert not [key for key in headers if "overlay" in key]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, 5_000_000])
def test_gzip_is_one_stream_that_everybody_reads(size: int) -> None:
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    packed = [gzipped(data, step) for step in (7_777, 1 << 21)]

    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == data
    assert subprocess.run(["gzip", "-dc"], input=packed[0], capture_output=True).stdout == data


def gzipped(data: bytes, step: int) -> bytes:
    sink = io.BytesIO()
    stream = compress.Gzip(sink.write)
    for start in range(0, len(data), step):
        stream.write(data[start : start + step])
    stream.close()
    return sink.getvalue()


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.zst"])
def test_the_end_of_the_name_says_how_it_is_packed(
    image: Image, tmp_path: Path, suffix: str
) -> None:
    write(image.parts[0].path, "etc/hostname")
    target = tmp_path / f"x.{suffix}"

    with output.file(target) as file:
        flat.write(image, compress.by_name(target.name)(file.write))

    listed = subprocess.run(["tar", "-taf", target], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["./", "etc/", "etc/hostname"]
    assert target.stat().st_mode & 0o777 == 0o600


def test_another_end_of_the_name_is_refused() -> None:
    with pytest.raises(StoreFailed, match=r"E_PARAM: x\.rar"):
        compress.by_name("x.rar")


def test_a_failed_export_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    target.write_text("old")

    with pytest.raises(RuntimeError), output.file(target) as file:
        file.write(b"half")
        raise RuntimeError

    assert os.listdir(tmp_path) == ["x.tar"]
    assert target.read_text() == "old"


def test_blobs_are_called_by_what_is_in_them(image: Image, tmp_path: Path) -> None:
    write(image.parts[0].path, "etc/hostname")
    write(image.parts[2].path, "srv/index.html")
    (tmp_path / "out").mkdir()

    layout = oci.assemble(image, tmp_path / "out")

    bodies = [layout.path(blob).read_bytes() for blob in layout.blobs]
    assert [f"sha256:{hashlib.sha256(body).hexdigest()}" for body in bodies] == [
        blob.digest for blob in layout.blobs
    ]
    assert [len(body) for body in bodies] == [blob.size for blob in layout.blobs]
    config = json.loads(bodies[-2])
    inner = [hashlib.sha256(gzip.decompress(body)).hexdigest() for body in bodies[:-2]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{each}" for each in inner]
    assert config["config"]["Entrypoint"] == ["/sbin/init"]
    assert config["config"]["Env"] == ["A=b c"]
    assert config["config"]["ExposedPorts"] == {"80/tcp": {}}
    assert config["created"] == "2023-11-14T22:13:20Z"


def test_two_archives_of_one_image_are_the_same_bytes(image: Image, tmp_path: Path) -> None:
    write(image.parts[0].path, *(f"usr/share/{number}" for number in range(50)))
    packed = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sink = io.BytesIO()
        oci.finish(oci.assemble(image, tmp_path / name))
        oci.pack(tmp_path / name, sink.write, mtime=EPOCH)
        packed.append(sink.getvalue())

    assert packed[0] == packed[1]


@pytest.mark.parametrize(
    ("name", "reference"), [("Web", "web"), ("a.-_b", "a.b"), ("x-", "x"), ("db_1.2", "db_1.2")]
)
def test_a_repository_is_called_as_registries_allow(name: str, reference: str) -> None:
    assert oci.reference(name) == reference


def test_a_file_that_shrinks_while_it_is_read_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("short")
    fd = os.open(tmp_path / "file", os.O_RDONLY)

    with pytest.raises(StoreFailed, match="E_IO: name: changed while it was read"):
        Archive(io.BytesIO().write).take("name", fd, 100)

    os.close(fd)
