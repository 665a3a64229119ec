"""Images that want out: each is refused with its documented error, and nothing outside the store has changed.

The canary is named by its absolute path in the images themselves, as an attacker would who knows the host.
"""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mktemplate.__main__ import main
from mktemplate.errors import exit_status
from provisioner import content
from tests.hostile import Item, directory, file, hardlink, symlink, tar
from tests.image import OCI, SYSTEM, Layout, docker_archive, sha256
from tests.system.command import Mkt

pytestmark = pytest.mark.system
Make = Callable[[bytes], bytes]  # from the canary's path to the file that is imported


def layers(*made: object) -> Make:
    """Return an image of layers, of which each may be a function of the canary's path."""

    def build(canary: bytes) -> bytes:
        items = [each(canary) if callable(each) else each for each in made]
        return Layout(layers=(SYSTEM, *items)).archive()

    return build


def image(**said: object) -> Make:
    return lambda canary: Layout(**said).archive()  # type: ignore[arg-type]  # fields of Layout


def config(**said: object) -> Make:
    return image(config=said)


def index(*rows: dict[str, object], **more: object) -> Make:
    return image(index={"schemaVersion": 2, "manifests": list(rows), **more})


def damaged_layer(canary: bytes) -> bytes:
    made = Layout(layers=([file(b"damaged")],))  # one that the store does not have
    blobs, _ = made.documents()
    layer = next(digest for digest, body in blobs.items() if body[:2] == b"\x1f\x8b")
    body = bytearray(blobs[layer])
    body[-1] ^= 1
    made.damage = {f"blobs/sha256/{layer[7:]}": bytes(body)}
    return made.archive()


def wrong_size(canary: bytes) -> bytes:
    return Layout(layers=([file(b"shorter")],), descriptor={"size": 17}).archive()


def bomb(canary: bytes) -> bytes:
    head = tar([Item(name=b"zeros", body=b"", size=b"%011o\0" % (512 << 20))], end=b"")
    packed = gzip.compress(head + bytes(512 << 20), compresslevel=1)
    return Layout(layers=(b"",), compress=lambda body: packed, diff_ids=(sha256(b"x"),)).archive()


def wrapped_bomb(canary: bytes) -> bytes:
    return lzma.compress(bytes(256 << 20), preset=0)


def many(canary: bytes) -> bytes:
    one = tar([file(b"a", b"")], end=b"")
    return Layout(layers=(one * 500_001 + bytes(1024),)).archive()


HEX = sha256(b"nobody has this")
ENTRY = {"mediaType": f"{OCI}.manifest.v1+json", "digest": HEX, "size": 2}
ARM = {**ENTRY, "platform": {"os": "linux", "architecture": "s390x"}}

IMAGES: dict[str, tuple[Make, str]] = {
    "a path that climbs out": (layers([file(b"../../canary/new")]), "E_ARCHIVE_PATH"),
    "an absolute path": (layers(lambda canary: [file(canary + b"/new")]), "E_ARCHIVE_PATH"),
    "a link to the canary, then a file through it": (
        layers(lambda canary: [symlink(b"x", canary)], [file(b"x/new")]), "E_ROOTFS_SYMLINK",
    ),
    "a link and a file through it in one layer": (
        layers(lambda canary: [symlink(b"x", canary), file(b"x/new")]), "E_ROOTFS_SYMLINK",
    ),
    "a relative link that climbs out": (
        layers([symlink(b"x", b"../../../../canary")], [file(b"x/new")]), "E_ROOTFS_SYMLINK",
    ),
    "links in a circle": (
        layers([symlink(b"x", b"y"), symlink(b"y", b"x")], [file(b"x/new")]), "E_ROOTFS_SYMLINK",
    ),
    "a hard link to the canary": (
        layers(lambda canary: [hardlink(b"x", canary + b"/secret")]), "E_ARCHIVE_PATH",
    ),
    "a hard link to a file of the layer below": (
        layers([hardlink(b"x", b"etc/passwd")]), "E_ARCHIVE_LINK",
    ),
    "a hard link through a link": (
        layers(lambda canary: [symlink(b"x", canary), hardlink(b"y", b"x/secret")]), "E_ARCHIVE_LINK",
    ),
    "a whiteout of ..": (layers([file(b"etc/.wh...")]), "E_ARCHIVE_PATH"),
    "a whiteout of .": (layers([file(b"etc/.wh..")]), "E_ARCHIVE_PATH"),
    "a whiteout of nothing": (layers([file(b".wh.")]), "E_ARCHIVE_PATH"),
    "a whiteout through a link": (
        layers(lambda canary: [symlink(b"x", canary)], [file(b"x/.wh.secret")]), "E_ROOTFS_SYMLINK",
    ),
    "an opaque directory behind a link": (
        layers(lambda canary: [symlink(b"x", canary)], [file(b"x/.wh..wh..opq")]), "E_ROOTFS_SYMLINK",
    ),
    "a directory that is a whiteout": (layers([file(b".wh.x/new")]), "E_ARCHIVE_PATH"),
    "/proc as a link": (layers(lambda canary: [symlink(b"proc", canary)]), "E_ROOTFS_SYMLINK"),
    "/dev as a link": (layers(lambda canary: [symlink(b"dev", canary)]), "E_ROOTFS_SYMLINK"),
    "a directory that becomes a link": (
        layers(lambda canary: [directory(b"usr/"), symlink(b"usr", canary)]), "E_ARCHIVE_DUP",
    ),
    "a disk": (layers([Item(name=b"disk", kind=b"4")]), "E_ARCHIVE_TYPE"),
    "an owner that no container has": (
        layers([Item(name=b"x", uid=4_000_000_000)]), "E_IDMAP",
    ),
    "a layer of half a gigabyte in half a megabyte": (bomb, "E_ARCHIVE_BOMB"),
    "a file of zeros in a file": (wrapped_bomb, "E_ARCHIVE_BOMB"),
    "a layer that was changed": (damaged_layer, "E_TRUST_HASH"),
    "a layer of another size": (wrong_size, "E_TRUST_SIZE"),
    "a layer that is another one uncompressed": (image(diff_ids=(HEX,)), "E_TRUST_HASH"),
    "more layers than the config has": (image(diff_ids=(HEX, HEX)), "E_TRUST_MISMATCH"),
    "a digest that is a path": (index({**ENTRY, "digest": "sha256:../../canary/secret"}), "E_TRUST_FIELD"),
    "a blob that is not there": (index(ENTRY), "E_IMAGE_FORMAT"),
    "an index of thousands": (index(*[ARM] * 1001), "E_ARCHIVE_LIMIT"),
    "an index and a manifest at once": (index(ENTRY, layers=[]), "E_IMAGE_FORMAT"),
    "another machine's": (index(ARM, ARM), "E_TRUST_ARCH"),
    "a layer from elsewhere": (image(descriptor={"urls": ["http://192.0.2.1/x"]}), "E_TRUST_FIELD"),
    "no layers but a chart": (image(media="application/vnd.cncf.helm.chart"), "E_IMAGE_FORMAT"),
    "a layer that is no tar": (image(layers=(b"x" * 1024,)), "E_IMAGE_FORMAT"),
    "a layer that is cut": (image(layers=(tar(SYSTEM, end=b""),)), "E_ARCHIVE_TRUNC"),
    "a variable of this host": (config(Env=["HOME"]), "E_ENV"),
    "a line of configuration in a variable": (
        config(Env=["A=1\nlxc.hook.pre-start = /bin/sh"]), "E_ENV",
    ),
    "a line of configuration in the program": (
        config(Entrypoint=["/bin/sh", "x\nlxc.mount.entry = / host none bind"]), "E_CONFIG_VALUE",
    ),
    "a line of configuration in the folder": (config(WorkingDir="/\nlxc.x = y"), "E_CONFIG_VALUE"),
    "a volume over /proc": (config(Volumes={"/proc/self": {}}), "E_FSTAB_TARGET"),
    "a volume over /dev": (config(Volumes={"/./dev": {}}), "E_FSTAB_TARGET"),
    "a volume that climbs out": (config(Volumes={"/srv/../../x": {}}), "E_FSTAB_TARGET"),
    "a user that is nobody": (config(User="mallory"), "E_USER"),
    "a user of the host": (config(User="100000"), "E_IDMAP"),
    "a signal that is none": (config(StopSignal="SIGNOTHING"), "E_CONFIG_VALUE"),
    "docker's, with a layer from the host": (
        lambda canary: docker_archive(Layout(), names=["../../canary/secret"]), "E_ARCHIVE_PATH",
    ),
    "a file twice in the archive": (
        lambda canary: tar([file(b"oci-layout"), file(b"index.json", b"{}"), file(b"index.json", b"[]")]),
        "E_IMAGE_FORMAT",
    ),
    "no image at all": (lambda canary: b"hello", "E_ARCHIVE_TRUNC"),
    "nothing": (lambda canary: b"", "E_ARCHIVE_TRUNC"),
    "an archive of a letter": (lambda canary: tar([file(b"letter")]), "E_IMAGE_FORMAT"),
    "an LXC config that hands on this host's variables": (
        lambda canary: tar([file(b"config", b"lxc.environment = HOME\n"), directory(b"rootfs/")]), "E_ENV",
    ),
}  # fmt: skip


CASES = [
    *(pytest.param(*case, id=title) for title, case in IMAGES.items()),
    pytest.param(many, "E_ARCHIVE_LIMIT", id="half a million members", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mkt]:
    base = tmp_path_factory.mktemp("hostile")
    (base / "home").mkdir(mode=0o700)
    canary = base / "canary"
    canary.mkdir()
    (canary / "secret").write_text("secret")
    os.mkfifo(canary / "fifo")
    yield Mkt(base / "path")


@pytest.mark.parametrize(("make", "code"), CASES)
def test_an_image_that_wants_out_is_refused(
    evil: Mkt, make: Make, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    base = evil.path.parent
    before = content.digest(base / "canary")
    (base / "evil.tar").write_bytes(make(os.fsencode(base / "canary")))
    argv = ["--path", str(evil.path), "import", str(base / "evil.tar"), "evil", "--no-sync"]

    status = main(argv)  # in this process: half a second less for each of fifty

    told = capfd.readouterr().err
    if (evil.path / "evil").exists():
        evil.sweep()
        pytest.fail("it was accepted")
    assert f"error[{code}]" in told
    assert status == exit_status(code)
    assert content.digest(base / "canary") == before
    assert os.listdir(evil.path / ".store/staging") == []


INERT = {
    "Labels": {"io.containerd.logger": "binary:///bin/sh", "lxc.hook.start": "/bin/sh"},
    "HostConfig": {"Privileged": True, "Binds": ["/:/host"], "NetworkMode": "host"},
}


def test_what_asks_for_the_host_is_named_and_changes_nothing(evil: Mkt) -> None:
    plain, asking = evil.path.parent / "plain.tar", evil.path.parent / "asking.tar"
    Layout().write(plain)
    Layout(config=INERT).write(asking)

    evil.ok("import", str(plain), "plain", "--network", "none", "--no-sync")
    told = evil("import", str(asking), "asking", "--network", "none", "--no-sync")

    texts = [
        [
            line
            for line in (evil.path / name / "config").read_text().split("\n")
            if not line.startswith(("lxc.uts.name", "lxc.idmap", "lxc.rootfs", "lxc.mount.fstab", "lxc.seccomp"))
        ]
        for name in ("plain", "asking")
    ]  # fmt: skip
    evil.sweep()
    assert "ignored what an image may not say: HostConfig" in told.stderr
    assert texts[0] == texts[1]


def test_an_lxc_config_gives_what_runs_and_nothing_of_its_old_host(
    evil: Mkt, tmp_path: Path
) -> None:
    said = (
        b"lxc.init.cmd = /bin/true x\nlxc.environment = A=b\nlxc.idmap = u 0 100000 65536\n"
        b"lxc.idmap = g 0 100000 65536\nlxc.hook.pre-start = /bin/sh\nlxc.mount.entry = / host none bind\n"
    )
    shifted = Item(name=b"rootfs/etc/x", uid=100_007, gid=100_008)
    (tmp_path / "box.tar").write_bytes(
        tar([file(b"config", said), directory(b"rootfs/"), directory(b"rootfs/etc/"), shifted])
    )

    told = evil("import", str(tmp_path / "box.tar"), "--network", "none", "--no-sync")

    config = (evil.path / "box/config").read_text()
    layer = evil.json("info", "box")["layers"][0]
    owner = os.lstat(Path(evil.path / ".store/layers" / layer / "root/etc/x"))
    evil.sweep()
    assert "lxc.hook.pre-start, lxc.mount.entry ignored" in told.stderr
    assert "hook" not in config
    assert "lxc.init.cmd = /bin/true x" in config
    assert (owner.st_uid, owner.st_gid) == (7, 8)
