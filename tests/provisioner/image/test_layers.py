"""An image's layers in the store: what they add, hide and replace, and that nothing leaves the root."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from provisioner import content
from provisioner.errors import BadArchive, ProvisionError
from provisioner.flatten import flatten
from provisioner.image import files, unpack
from provisioner.image.blob import Image
from provisioner.image.files import Rootfs, Wanted
from provisioner.image.manifest import Platform
from provisioner.provision import Tools
from provisioner.store import Layer, Store
from runtime.idmap import single_range
from runtime.sandbox import KernelSandbox
from tests.hostile import Item, directory, file, hardlink, symlink
from tests.image import Layout, docker_archive

pytestmark = pytest.mark.root
LINUX = Platform(os="linux", architecture="amd64")


class Bench:
    """A store, and a canary beside it that must not change."""

    def __init__(self, top: Path) -> None:
        self.top, self.canary = top, top / "canary"
        self.canary.mkdir()
        (self.canary / "secret").write_text("secret")
        self.store = Store(top / "store")
        self.notes: list[str] = []
        self._before = content.digest(self.canary)

    def unpack(self, image: Layout | Path | bytes, name: str = "") -> tuple[Layer, ...]:
        path = image if isinstance(image, Path) else self.top / "image.tar"
        if isinstance(image, Layout):
            image.write(path)
        elif isinstance(image, bytes):
            path.write_bytes(image)
        tools = Tools(store=self.store, sandbox=KernelSandbox(single_range(1_000_000)))
        try:
            with files.opened(
                str(path), path.name, Wanted(platform=LINUX, name=name), tools
            ) as found:
                if isinstance(found, Rootfs):
                    return unpack.unpack_rootfs(
                        found.archive, found.digest, tools, self.notes.append
                    )
                assert isinstance(found, Image)
                return unpack.unpack(found.layers, found.subject, tools, self.notes.append)
        finally:
            assert content.digest(self.canary) == self._before, "the canary changed"

    def tree(self, layers: Sequence[Layer]) -> Path:
        """Return what the layers come to."""
        target = self.top / f"tree-{len(list(self.top.iterdir()))}"
        target.mkdir()
        flatten(layers, target)
        return target

    def names(self, layers: Sequence[Layer]) -> set[str]:
        return {entry.path for entry in content.walk(self.tree(layers)) if entry.path}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    os.chmod(tmp_path, 0o755)
    made = Bench(tmp_path)
    yield made
    made.store.close()


def refusal(bench: Bench, image: Layout | bytes) -> str:
    with pytest.raises(ProvisionError) as refused:
        bench.unpack(image)
    return refused.value.code


LOWER = (
    directory(b"d/"),
    file(b"d/one"),
    file(b"d/two"),
    directory(b"d/sub/"),
    file(b"d/sub/three"),
    file(b"kept"),
    symlink(b"link", b"d"),
)


@pytest.mark.parametrize(
    ("upper", "names"),
    [
        ([file(b"d/.wh.one")], {"d", "d/two", "d/sub", "d/sub/three", "kept", "link"}),
        ([file(b"d/.wh.sub")], {"d", "d/one", "d/two", "kept", "link"}),
        ([file(b".wh.d")], {"kept", "link"}),
        ([file(b"d/.wh..wh..opq")], {"d", "kept", "link"}),
        ([file(b"d/new"), file(b"d/.wh..wh..opq")], {"d", "d/new", "kept", "link"}),
        ([file(b".wh.d"), directory(b"d/"), file(b"d/new")], {"d", "d/new", "kept", "link"}),
        ([file(b".wh..wh..opq"), file(b"only")], {"only"}),
        ([file(b".wh.absent")], {"d", "d/one", "d/two", "d/sub", "d/sub/three", "kept", "link"}),
        ([file(b"absent/.wh.x")], {"d", "d/one", "d/two", "d/sub", "d/sub/three", "kept", "link"}),
        ([file(b"d")], {"d", "kept", "link"}),
        (
            [directory(b"link/"), file(b"link/x"), file(b"link/.wh..wh..opq")],
            {"d", "d/one", "d/two", "d/sub", "d/sub/three", "kept", "link", "link/x"},
        ),
        (
            [file(b"link/x")],
            {"d", "d/one", "d/two", "d/x", "d/sub", "d/sub/three", "kept", "link"},
        ),
        ([file(b"d/.wh..wh.aufs")], {"d", "d/one", "d/two", "d/sub", "d/sub/three", "kept", "link"}),
    ],
    ids=[
        "a file is hidden", "a directory is hidden", "a whole tree is hidden", "an opaque directory is empty",
        "what the layer itself has stays, in any order", "hidden and made anew", "an opaque root",
        "what is not there is hidden", "in a directory that is not there", "a file replaces a directory",
        "a directory replaces a link", "a link is followed inside the root", "AUFS's notes are none",
    ],
)  # fmt: skip
def test_a_layer_hides_and_replaces_what_is_below_it(
    bench: Bench, upper: Sequence[Item], names: set[str]
) -> None:
    layers = bench.unpack(Layout(layers=(LOWER, upper)))

    assert bench.names(layers) == names


def test_what_is_hidden_is_a_whiteout_and_an_opaque_directory_as_overlayfs_has_them(
    bench: Bench,
) -> None:
    upper = [file(b".wh.kept"), file(b".wh.d"), directory(b"d/"), file(b"d/new")]

    layers = bench.unpack(Layout(layers=(LOWER, upper)))

    top = layers[-1].path
    whiteout = os.lstat(top / "kept")
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0
    assert os.getxattr(top / "d", content.OPAQUE) == b"y"


def test_owners_modes_links_times_and_contents_are_the_images(bench: Bench) -> None:
    items = [
        directory(b"./", 0o750),
        directory(b"tmp/", 0o1777),
        Item(name=b"su", body=b"su", mode=0o4755, gid=42, mtime=1_600_000_000),
        hardlink(b"su2", b"su"),
        Item(name=b"mine", body=b"x" * 100_000, mode=0o640, uid=33, gid=44),
    ]

    tree = bench.tree(bench.unpack(Layout(layers=(items,))))

    su, mine = os.lstat(tree / "su"), os.lstat(tree / "mine")
    assert (stat.S_IMODE(su.st_mode), su.st_gid, su.st_nlink) == (0o4755, 42, 2)
    assert su.st_mtime == 1_600_000_000
    assert (stat.S_IMODE(mine.st_mode), mine.st_uid, mine.st_gid) == (0o640, 33, 44)
    assert stat.S_IMODE(os.lstat(tree / "tmp").st_mode) == 0o1777
    assert stat.S_IMODE(os.lstat(tree).st_mode) == 0o750


def test_a_directory_that_a_layer_does_not_name_stays_as_the_layer_below_has_it(
    bench: Bench,
) -> None:
    lower = [Item(name=b"home/", kind=b"5", mode=0o2711, uid=5, gid=6)]

    tree = bench.tree(bench.unpack(Layout(layers=(lower, [file(b"home/x")]))))

    home = os.lstat(tree / "home")
    assert (stat.S_IMODE(home.st_mode), home.st_uid, home.st_gid) == (0o2711, 5, 6)


def test_images_share_the_layers_that_they_have_in_common(bench: Bench) -> None:
    first = bench.unpack(Layout(layers=(LOWER, [file(b"a")])))
    second = bench.unpack(Layout(layers=(LOWER, [file(b"b")])))

    assert first[0] == second[0]
    assert first[1] != second[1]


def zstd(body: bytes) -> bytes:
    made = subprocess.run(["zstd", "-q", "-c"], input=body, capture_output=True, check=True)
    return made.stdout


@pytest.mark.parametrize(
    ("compress", "media"),
    [
        (bytes, ""),
        (gzip.compress, "+gzip"),
        (lambda body: gzip.compress(body[:700]) + gzip.compress(body[700:]), "+gzip"),
        (zstd, "+zstd"),
        (lambda body: b"\x50\x2a\x4d\x18\x04\0\0\0note" + zstd(body), "+zstd"),
    ],
    ids=["plain", "gzip", "two gzip streams", "zstd", "a zstd frame to be skipped"],
)
def test_layers_come_plain_and_compressed(bench: Bench, compress: object, media: str) -> None:
    image = Layout(
        layers=(LOWER,), compress=compress, media=f"application/vnd.oci.image.layer.v1.tar{media}"
    )

    assert "d/sub/three" in bench.names(bench.unpack(image))


def test_a_layout_is_also_a_folder(bench: Bench) -> None:
    path = Layout(layers=(LOWER,)).write(bench.top / "layout")

    assert "kept" in bench.names(bench.unpack(path))


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_what_docker_saved_is_an_image(bench: Bench, compress: object) -> None:
    saved = docker_archive(Layout(layers=(LOWER, [file(b".wh.kept")])))

    names = bench.names(bench.unpack(compress(saved)))  # type: ignore[operator]

    assert names == {"d", "d/one", "d/two", "d/sub", "d/sub/three", "link"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_plain_rootfs_is_one_layer_and_its_device_nodes_are_left_out(
    bench: Bench, mode: str
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as made:
        for name, kind in (("./usr", tarfile.DIRTYPE), ("./dev", tarfile.DIRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755
            made.addfile(entry)
        node = tarfile.TarInfo("./dev/null")
        node.type, node.devmajor, node.devminor = tarfile.CHRTYPE, 1, 3
        made.addfile(node)
        made.addfile(tarfile.TarInfo("./usr/.wh.name"))

    layers = bench.unpack(packed.getvalue())

    assert bench.names(layers) == {"usr", "usr/.wh.name", "dev"}
    assert bench.notes == ["image.tar: 1 devices in dev/ left out: a start makes /dev"]


def test_what_an_unpacking_refuses_leaves_nothing_in_the_store(bench: Bench) -> None:
    with pytest.raises(BadArchive):
        bench.unpack(Layout(layers=(LOWER, [file(b"x"), hardlink(b"y", b"absent")])))

    assert os.listdir(bench.store.path / "staging") == []
    assert len(bench.store.layers()) == 1
