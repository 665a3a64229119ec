"""The tar reader: what it reads, and that it refuses what is no path, no file, or no end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provisioner import tar
from provisioner.errors import BadArchive
from tests import hostile
from tests.hostile import Item, directory, file, hardlink, symlink


def read(archive: bytes) -> list[tar.Member]:
    return list(tar.members(memoryview(archive), "x.deb"))


@pytest.mark.parametrize("style", ["gnu", "pax", "ustar"])
def test_what_gnu_tar_writes_is_read_whole(tmp_path: Path, style: str) -> None:
    long, target = "d" * 90 + "/" + "f" * 90, "t" * (90 if style == "ustar" else 150)
    (tmp_path / long).parent.mkdir()
    (tmp_path / long).write_bytes(b"long")
    (tmp_path / "link").symlink_to(target)
    archive = subprocess.run(
        ["tar", f"--format={style}", "-c", "-C", tmp_path, "."], capture_output=True, check=True
    ).stdout

    found = {member.name: member for member in read(archive)}

    assert found[b""].kind == tar.DIRECTORY
    assert found[long.encode()].size == 4
    assert found[b"link"].link == target.encode()


def test_numbers_and_attributes_of_pax_win() -> None:
    item = Item(
        name=b"./cap",
        body=b"12345",
        uid=0,
        pax={"uid": b"7", "mtime": b"12.5", "SCHILY.xattr.user.note": b"a\nb=c"},
    )

    [member] = read(hostile.tar([item]))

    assert (member.uid, member.mtime, member.size) == (7, 12, 5)
    assert member.xattrs == (("user.note", b"a\nb=c"),)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (file(b"../../escape"), "E_ARCHIVE_PATH"),
        (file(b"a/../../escape"), "E_ARCHIVE_PATH"),
        (file(b"/abs"), "E_ARCHIVE_PATH"),
        (file(b""), "E_ARCHIVE_PATH"),
        (file(b"."), "E_ARCHIVE_PATH"),
        (file(b"./"), "E_ARCHIVE_PATH"),
        (file(b"a/"), "E_ARCHIVE_PATH"),
        (file(b"a\nb"), "E_ARCHIVE_PATH"),
        (Item(name=b"x", pax={"path": b"a\0b"}), "E_ARCHIVE_PATH"),
        (Item(name=b"x", pax={"path": b"../b"}), "E_ARCHIVE_PATH"),
        (directory(b"/"), "E_ARCHIVE_PATH"),
        (directory(b"../"), "E_ARCHIVE_PATH"),
        (file(b"n" * 256), "E_ARCHIVE_LIMIT"),
        (file(b"/".join([b"d" * 200] * 21)), "E_ARCHIVE_LIMIT"),
        (file(b"/".join([b"d"] * 257)), "E_ARCHIVE_LIMIT"),
        (symlink(b"l", b""), "E_ARCHIVE_LINK"),
        (symlink(b"l", b"t" * 4096), "E_ARCHIVE_LINK"),
        (Item(name=b"null", kind=b"3"), "E_ARCHIVE_TYPE"),
        (Item(name=b"sda", kind=b"4"), "E_ARCHIVE_TYPE"),
        (Item(name=b"pipe", kind=b"6"), "E_ARCHIVE_TYPE"),
        (Item(name=b"sparse", kind=b"S"), "E_ARCHIVE_TYPE"),
        (Item(name=b"global", kind=b"g"), "E_ARCHIVE_TYPE"),
        (Item(name=b"sparse", pax={"GNU.sparse.major": b"1"}), "E_ARCHIVE_TYPE"),
        (Item(name=b"huge", size=b"77777777777\0"), "E_ARCHIVE_TRUNC"),
        (Item(name=b"huge", size=b"\x80" + (1 << 60).to_bytes(11, "big")), "E_ARCHIVE_TRUNC"),
        (Item(name=b"negative", size=b"\xff" * 12), "E_DEB_FORMAT"),
        (Item(name=b"odd", size=b"0x000000010\0"), "E_DEB_FORMAT"),
        (Item(name=b"pax", pax={"size": b"-1"}), "E_DEB_FORMAT"),
        (Item(name=b"pax", pax={"size": b"99999999"}), "E_ARCHIVE_TRUNC"),
    ],
    ids=lambda value: repr(value.name[:20]) if isinstance(value, Item) else value,
)
def test_what_is_no_member_of_a_package_is_refused(item: Item, code: str) -> None:
    with pytest.raises(BadArchive) as refused:
        read(hostile.tar([item]))

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (b"./usr/bin/x", b"usr/bin/x"),
        (b"usr//bin/./x", b"usr/bin/x"),
        (b"a\xff", b"a\xff"),
        (b"system\\x2d.slice", b"system\\x2d.slice"),
        (b"n" * 255, b"n" * 255),
    ],
    ids=repr,
)
def test_names_are_relative_to_the_top(name: bytes, clean: bytes) -> None:
    [member] = read(hostile.tar([file(name)]))

    assert member.name == clean


def test_every_cut_is_noticed() -> None:
    whole = hostile.tar([directory(b"./"), file(b"./a", b"x" * 700), hardlink(b"./b", b"./a")])

    for end in range(0, len(whole), 512):
        with pytest.raises(BadArchive, match="E_ARCHIVE_TRUNC"):
            read(whole[:end])


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(BadArchive, match="E_ARCHIVE_TRUNC"):
        read(hostile.tar([file(b"a")]) + bytes(512) + b"more")


def test_a_flipped_header_bit_is_noticed() -> None:
    archive = bytearray(hostile.tar([file(b"abcdef")]))
    archive[3] ^= 1

    with pytest.raises(BadArchive, match="checksum"):
        read(bytes(archive))


def test_a_size_that_differs_between_pax_and_ustar_hides_no_members() -> None:
    inner = hostile.tar([file(b"smuggled")])
    outer = Item(name=b"outer", body=inner, size=b"00000000000\0", pax={"size": b"%d" % len(inner)})

    names = [member.name for member in read(hostile.tar([outer]))]

    assert names == [b"outer"]


def test_an_extension_header_is_limited() -> None:
    with pytest.raises(BadArchive, match="E_ARCHIVE_LIMIT"):
        read(hostile.tar([Item(name=b"x", pax={"comment": b"c" * (1 << 20)})]))


def test_members_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MEMBERS", 100)

    with pytest.raises(BadArchive, match="more than 100 members"):
        read(hostile.tar([file(b"f%d" % number) for number in range(101)]))
