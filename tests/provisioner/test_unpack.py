"""Unpacking into a root: what lands where, whose it is, and that nothing leaves the root."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from provisioner import content
from provisioner.errors import BadArchive, StoreFailed
from provisioner.sandbox import Root
from provisioner.unpack import PLAIN, Contents, Layout, ahead, unpack
from runtime.idmap import single_range
from runtime.sandbox import KernelSandbox
from tests.hostile import HostileDeb, Item, cached, cached_bytes, directory, file, hardlink, symlink

pytestmark = pytest.mark.root


class Place:
    """A root, a cache, and a canary outside the root that must not change."""

    def __init__(self, top: Path) -> None:
        self.root, self.cache, self.canary = top / "root", top / "cache", top / "canary"
        for folder in (self.root, self.cache, self.canary):
            folder.mkdir(parents=True)
        (self.canary / "secret").write_text("secret")
        self._before = content.digest(self.canary)

    def unpack(self, debs: Sequence[HostileDeb], layout: Layout = PLAIN) -> Contents:
        packages = [cached(deb, self.cache) for deb in debs]
        try:
            return unpack(
                packages, Root(upper=self.root), cache=self.cache, layout=layout,
                sandbox=KernelSandbox(single_range(1_000_000)),
            )  # fmt: skip
        finally:
            assert content.digest(self.canary) == self._before, "the canary changed"

    def read(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    os.chmod(tmp_path, 0o755)
    return Place(tmp_path)


def refusal(place: Place, *debs: HostileDeb) -> str:
    with pytest.raises(BadArchive) as refused:
        place.unpack(debs)
    return refused.value.code


def test_files_links_modes_owners_and_times_are_the_archives(place: Place) -> None:
    items = [
        directory(b"./", 0o755),
        directory(b"./usr/", 0o755),
        directory(b"./usr/sticky/", 0o1777),
        directory(b"./var/lib/dpkg/info/", 0o755),
        Item(name=b"./usr/su", body=b"su", mode=0o4755, uid=0, gid=42),
        hardlink(b"./usr/su2", b"./usr/su"),
        symlink(b"./usr/link", b"../anything/at all"),
        Item(
            name=b"./usr/mine", body=b"x" * 100_000, mode=0o640, uid=33, gid=44, mtime=1_600_000_000
        ),
    ]

    told = place.unpack([HostileDeb(name="aa", items=items)])

    su, mine = os.lstat(place.root / "usr/su"), os.lstat(place.root / "usr/mine")
    assert (stat.S_IMODE(su.st_mode), su.st_gid, su.st_nlink) == (0o4755, 42, 2)
    assert (stat.S_IMODE(mine.st_mode), mine.st_uid, mine.st_gid) == (0o640, 33, 44)
    assert mine.st_mtime == 1_600_000_000
    assert stat.S_IMODE(os.lstat(place.root / "usr/sticky").st_mode) == 0o1777
    assert os.readlink(place.root / "usr/link") == "../anything/at all"
    for folder in ("usr", "var/lib/dpkg/info"):
        assert os.lstat(place.root / folder).st_mtime == 1_700_000_000
    assert told.newest == 1_700_000_000


def test_a_package_cannot_write_through_anothers_absolute_link(place: Place) -> None:
    trap = HostileDeb(name="aa", items=[symlink(b"./opt", os.fsencode(place.canary))])
    victim = HostileDeb(name="bb", items=[file(b"./opt/secret", b"overwritten")])

    assert refusal(place, trap, victim) == "E_ROOTFS_SYMLINK"


def test_a_package_cannot_climb_out_by_anothers_relative_link(place: Place) -> None:
    up = b"../" * 40 + os.fsencode(place.canary).lstrip(b"/")
    trap = HostileDeb(name="aa", items=[directory(b"./opt/"), symlink(b"./opt/x", up)])
    victim = HostileDeb(name="bb", items=[file(b"./opt/x/new")])

    assert refusal(place, trap, victim) == "E_ROOTFS_SYMLINK"


def test_a_link_to_a_directory_of_the_root_is_followed_inside_it(place: Place) -> None:
    link = HostileDeb(name="aa", items=[directory(b"./real/"), symlink(b"./opt", b"/real")])
    other = HostileDeb(name="bb", items=[directory(b"./opt/"), file(b"./opt/new")])

    place.unpack([link, other])

    assert place.read("real/new") == "new\n"
    assert (place.root / "opt").is_symlink()


def test_merged_usr_stays_merged(place: Place) -> None:
    old = HostileDeb(name="aa", items=[directory(b"./lib/"), file(b"./lib/new")])

    place.unpack([old], layout=Layout(merged_usr=("bin", "lib", "sbin")))

    assert place.read("usr/lib/new") == "new\n"
    assert os.readlink(place.root / "lib") == "usr/lib"


def test_a_file_link_is_replaced_and_not_followed(place: Place) -> None:
    target = os.fsencode(place.canary / "secret")
    trap = HostileDeb(name="aa", items=[symlink(b"./x", target)])
    victim = HostileDeb(name="bb", items=[file(b"./x")], fields={"Replaces": "aa"})

    place.unpack([trap, victim])

    assert not (place.root / "x").is_symlink()


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([directory(b"./usr/"), symlink(b"./usr", b"/")], "E_ARCHIVE_DUP"),
        ([symlink(b"./usr", b"/"), directory(b"./usr/")], "E_ARCHIVE_DUP"),
        ([file(b"./x"), file(b"./x")], "E_ARCHIVE_DUP"),
        ([file(b"./x"), file(b"./x/y")], "E_ARCHIVE_DUP"),
        ([symlink(b"./loop", b"loop"), file(b"./loop/x")], "E_ROOTFS_SYMLINK"),
        ([hardlink(b"./x", b"./etc/passwd")], "E_ARCHIVE_LINK"),
        ([hardlink(b"./x", b"../../etc/passwd")], "E_ARCHIVE_PATH"),
        ([hardlink(b"./x", b"/etc/passwd")], "E_ARCHIVE_PATH"),
        ([symlink(b"./s", b"t"), hardlink(b"./x", b"./s")], "E_ARCHIVE_LINK"),
        ([hardlink(b"./x", b"./later"), file(b"./later")], "E_ARCHIVE_LINK"),
        ([Item(name=b"./x", uid=4_000_000_000)], "E_IDMAP"),
        ([Item(name=b"./x", gid=65_536)], "E_IDMAP"),
        ([Item(name=b"./null", kind=b"3")], "E_ARCHIVE_TYPE"),
        ([], "E_ARCHIVE_TRUNC"),
    ],
)
def test_an_archive_that_contradicts_itself_is_refused(
    place: Place, items: Sequence[Item], code: str
) -> None:
    assert refusal(place, HostileDeb(name="aa", items=items)) == code


def test_two_packages_with_one_file_are_refused(place: Place) -> None:
    first = HostileDeb(name="aa", items=[file(b"./usr/bin/x")])
    second = HostileDeb(name="bb", items=[file(b"./usr/bin/x")])

    with pytest.raises(BadArchive, match='"usr/bin/x" is in aa and bb'):
        place.unpack([first, second])


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")], ids=" then ".join)
def test_a_file_belongs_to_the_package_that_replaces_the_other(
    place: Place, order: Sequence[str]
) -> None:
    debs = {
        "old": HostileDeb(name="old", items=[file(b"./x", b"old")]),
        "new": HostileDeb(
            name="new", items=[file(b"./x", b"new")], fields={"Replaces": "old (<< 2)"}
        ),
    }

    place.unpack([debs[name] for name in order])

    assert place.read("x") == "new"
    assert place.read("var/lib/dpkg/info/old.list") == ""
    assert place.read("var/lib/dpkg/info/new.list") == "/x\n"


@pytest.mark.parametrize("fields", [{}, {"Replaces": "aa"}], ids=["strangers", "replaces"])
def test_the_same_link_to_a_directory_is_of_both_packages(
    place: Place, fields: dict[str, str]
) -> None:
    first = HostileDeb(name="aa", items=[directory(b"./d/"), symlink(b"./l", b"d")])
    second = HostileDeb(name="bb", items=[symlink(b"./l", b"d")], fields=fields)

    place.unpack([first, second])

    for name in ("aa", "bb"):
        assert "/l\n" in place.read(f"var/lib/dpkg/info/{name}.list")


def test_the_same_link_to_a_file_is_not(place: Place) -> None:
    first = HostileDeb(name="aa", items=[file(b"./f"), symlink(b"./l", b"f")])
    second = HostileDeb(name="bb", items=[symlink(b"./l", b"f")])

    assert refusal(place, first, second) == "E_ARCHIVE_DUP"


def test_a_replaces_of_another_version_does_not_count(place: Place) -> None:
    first = HostileDeb(name="old", items=[file(b"./x")])
    second = HostileDeb(name="new", items=[file(b"./x")], fields={"Replaces": "old (<< 1)"})

    assert refusal(place, first, second) == "E_ARCHIVE_DUP"


def test_the_first_package_says_how_a_shared_directory_is(place: Place) -> None:
    first = HostileDeb(name="aa", items=[directory(b"./d/", 0o750), file(b"./d/a")])
    second = HostileDeb(name="bb", items=[directory(b"./d/", 0o755), file(b"./d/b")])

    place.unpack([first, second])

    assert stat.S_IMODE(os.lstat(place.root / "d").st_mode) == 0o750


def test_a_directory_made_for_its_content_takes_the_mode_of_who_names_it(place: Place) -> None:
    first = HostileDeb(name="aa", items=[file(b"./tmp/a")])
    second = HostileDeb(name="bb", items=[directory(b"./tmp/", 0o1777)])

    place.unpack([first, second])

    assert stat.S_IMODE(os.lstat(place.root / "tmp").st_mode) == 0o1777


def test_only_harmless_attributes_are_kept(place: Place) -> None:
    attributes = {
        "SCHILY.xattr.user.note": b"kept",
        "SCHILY.xattr.user.overlay.opaque": b"y",
        "SCHILY.xattr.trusted.overlay.opaque": b"y",
        "SCHILY.xattr.security.selinux": b"x",
    }

    told = place.unpack([HostileDeb(name="aa", items=[Item(name=b"./x", pax=attributes)])])

    assert os.listxattr(place.root / "x") == ["user.note"]
    assert len(told.notes) == 3


def test_dpkgs_database_says_unpacked(place: Place) -> None:
    control = [
        file(b"./conffiles", b"/etc/a.conf\nremove-on-upgrade /etc/old.conf\n"),
        file(b"./triggers", b"interest-noawait /usr/share/man\nactivate ldconfig\ninterest mine\n"),
        file(b"./preinst", b"#!/bin/sh\n", 0o755),
    ]
    items = [
        directory(b"./"),
        directory(b"./etc/"),
        file(b"./etc/a.conf", b"conf"),
        file(b"./x", b"x"),
    ]
    deb = HostileDeb(name="aa", items=items, control=control, fields={"Multi-Arch": "same"})

    place.unpack([deb])

    assert place.read("etc/a.conf.dpkg-new") == "conf"
    assert not (place.root / "etc/a.conf").exists()
    status = place.read("var/lib/dpkg/status")
    assert "Status: install ok unpacked\n" in status
    assert " /etc/a.conf newconffile\n /etc/old.conf newconffile remove-on-upgrade\n\n" in status
    assert place.read("var/lib/dpkg/info/aa:all.list") == "/.\n/etc\n/etc/a.conf\n/x\n"
    assert place.read("var/lib/dpkg/info/aa:all.md5sums") == "9dd4e461268c8034f5c8564e155c67a6  x\n"
    assert place.read("var/lib/dpkg/triggers/File") == "/usr/share/man aa:all/noawait\n"
    assert place.read("var/lib/dpkg/triggers/mine") == "aa:all\n"
    assert stat.S_IMODE(os.lstat(place.root / "var/lib/dpkg/info/aa:all.preinst").st_mode) == 0o755


def test_what_was_decompressed_ahead_is_used_and_what_was_refused_is_refused(place: Place) -> None:
    good = HostileDeb(name="good", items=[file(b"./usr/good", b"right")])
    package, broken = cached(good, place.cache), cached_bytes("bad", b"no archive", place.cache)
    (place.cache / "tar").mkdir()
    scratch = Root(upper=place.canary)
    sandbox = KernelSandbox(single_range(1_000_000))

    with ahead([package], scratch, cache=place.cache, sandbox=sandbox):
        pass
    made = os.stat(place.cache / "tar" / package.sha256).st_mtime_ns
    with (
        pytest.raises(BadArchive, match="bad"),
        ahead([package, broken], scratch, cache=place.cache, sandbox=sandbox),
    ):
        pass
    place.unpack([good])

    assert place.read("usr/good") == "right"
    assert os.stat(place.cache / "tar" / package.sha256).st_mtime_ns == made


def test_a_package_is_decompressed_once_and_a_damaged_raw_archive_again(place: Place) -> None:
    deb = HostileDeb(name="aa", items=[file(b"./x", b"right")])
    package = cached(deb, place.cache)
    place.unpack([deb])
    raw = place.cache / "tar" / package.sha256
    raw.write_bytes(raw.read_bytes().replace(b"right", b"wrong"))
    place.root = place.root.parent / "again"
    place.root.mkdir()

    place.unpack([deb])

    assert place.read("x") == "right"
    assert not raw.exists()


def test_an_archive_that_is_not_there_is_named(place: Place) -> None:
    deb = HostileDeb(name="aa", items=[file(b"./x")])
    package = cached(deb, place.cache)
    (place.cache / "sha256" / package.sha256[:2] / package.sha256).unlink()

    with pytest.raises(StoreFailed, match=r"aa_1_all\.deb"):
        unpack(
            [package], Root(upper=place.root), cache=place.cache,
            sandbox=KernelSandbox(single_range(1_000_000)),
        )  # fmt: skip
