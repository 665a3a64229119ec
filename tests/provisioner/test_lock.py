"""A lock says exactly what a set is, can be read by apt, and brings the same set back with the mirror gone."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner import keep, lock
from provisioner.changes import compare
from provisioner.deb.index import IndexFile, read_index
from provisioner.download import object_path
from provisioner.errors import ProvisionError, StoreFailed, UntrustedIndex
from provisioner.index import Package
from provisioner.resolver import PackageSet, resolve
from tests.archive import Deb, Key, Suite, flat_apt, publish

SHELL = Deb(
    name="toy-shell",
    version="5.2-1",
    arch="amd64",
    essential=True,
    fields={"Pre-Depends": "toy-libc (>= 2.3)"},
)
LIBC = Deb(
    name="toy-libc",
    version="2:2.41-12+deb13u1",
    arch="amd64",
    fields={"Provides": "toy-libc-abi (= 241)"},
)
SERVER = Deb(
    name="toy-server", fields={"Depends": "toy-libc (>= 2.4), toy-log | toy-journal", "Breaks": "toy-old (<< 1~)"}
)  # fmt: skip
LOG = Deb(name="toy-log", version="1.0~rc1-2")
BASE = (SHELL, LIBC, SERVER, LOG)
PLACE = "http://mirror.example/debian"


def published(root: Path, key: Key, debs: tuple[Deb, ...] = BASE) -> PackageSet:
    """Publish `debs` below `root` and return what `toy-server` comes to."""
    text = (
        publish(root, Suite(name="trixie", debs={"main": debs}), key) / "main/binary-amd64/Packages"
    )
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    lists = root / "lists"
    lists.mkdir(exist_ok=True)
    file = IndexFile(
        path=text, sha256=digest, plain_size=text.stat().st_size, plain_sha256=digest, base_url=PLACE,
        origin="Debian Ports", suite="trixie", component="main",
    )  # fmt: skip
    return resolve(["toy-server"], read_index([file], lists, "amd64"))


def locked(chosen: PackageSet) -> lock.Lock:
    return lock.Lock(
        tool="mktemplate 0.1.0", distro="debian", release="trixie", arch="amd64", epoch=1763712944,
        options=("recommends",), chosen=chosen,
        sources=(
            lock.Provenance(
                url=PLACE, suite="trixie", components=("main",), origin="Debian Ports", date=1763712000,
                sha256="1" * 64, signers=("A" * 40, "B" * 40),
            ),
            lock.Provenance(
                url=f"{PLACE}-security", suite="trixie-security", components=("main",), origin="", date=1763712001,
                valid_until=1764316801, sha256="2" * 64, signers=("C" * 40,),
            ),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, archive_key: Key) -> PackageSet:
    return published(tmp_path_factory.mktemp("archive"), archive_key)


def fill(cache: Path, root: Path, chosen: PackageSet) -> None:
    """Put the archives of `chosen` into the cache, as a download would."""
    for package in chosen.packages:
        target = object_path(cache, package.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / package.url.removeprefix(f"{PLACE}/")).read_bytes())


# The text


def test_what_is_read_is_what_was_written(chosen: PackageSet) -> None:
    made = locked(chosen)

    text = lock.write(made)
    again = lock.read(text, "x.lock")

    assert again.chosen == made.chosen
    assert again.sources == made.sources
    assert again.chosen.digest == chosen.digest
    assert lock.write(again) == text


def test_the_set_keeps_its_order_and_its_two_layers(chosen: PackageSet) -> None:
    again = lock.read(lock.write(locked(chosen)), "x.lock").chosen

    assert [package.name for package in again.essential] == ["toy-libc", "toy-shell"]
    assert {package.name for package in again.added} == {"toy-log", "toy-server"}
    assert again.wanted == ("toy-server",)


def test_a_package_given_as_a_file_has_no_place_at_a_mirror(chosen: PackageSet) -> None:
    own = Package(
        name="own",
        version="1:2",
        arch="all",
        sha256="3" * 64,
        size=7,
        url="/root/own.deb",
        origin="local",
    )
    made = locked(replace(chosen, added=(*chosen.added, own)))

    text = lock.write(made)

    assert "/root" not in text
    assert "Filename: own_2_all.deb\n" in text
    assert lock.read(text, "x.lock").chosen.packages[-1] == replace(own, url="")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("Package: mktemplate-lock", "Package: bash", "E_PARAM"),
        ("X-Lock: 1", "X-Lock: 2", "E_PARAM"),
        ("X-Epoch: 1763712944", "X-Epoch: 1_000", "E_TRUST_FIELD"),
        ("X-Epoch: 1763712944", "X-Epoch: １２", "E_TRUST_FIELD"),
        ("X-Distro: debian", "X-Distro: ../x", "E_TRUST_FIELD"),
        ("X-Distro: debian", "X-Distro: debian\nX-Distro: ubuntu", "E_TRUST_FIELD"),
        ("X-Wanted: toy-server", "X-Wanted: $(id)", "E_TRUST_FIELD"),
        (" trixie main ", " tri\txie main ", "E_TRUST_FIELD"),
        (f" {PLACE} ", " http://user@mirror.example/x ", "E_URL"),
        ("1" * 64, "1" * 63, "E_TRUST_FIELD"),
        ("A" * 40, "A" * 16, "E_TRUST_FIELD"),
        ("Package: toy-log", "Package: TOY", "E_TRUST_FIELD"),
        ("Package: toy-log", "Package: toy-server", "E_TRUST_FIELD"),
        ("Version: 1.0~rc1-2", "Version: 1.0 2", "E_TRUST_FIELD"),
        ("Architecture: all", "Architecture: arm64", "E_TRUST_FIELD"),
        ("Filename: pool/", "Filename: ../", "E_TRUST_FIELD"),
        ("Filename: pool/", "Filename: /etc/", "E_TRUST_FIELD"),
        (f"X-URL: {PLACE}", "X-URL: file:///etc", "E_URL"),
        ("X-Layer: base", "X-Layer: tree", "E_TRUST_FIELD"),
        ("X-Layer: base", "X-Layer: service", "E_TRUST_FIELD"),
        ("Depends: toy-libc (>= 2.4)", "Depends: toy-libc (~ 2.4)", "E_TRUST_FIELD"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)  # fmt: skip
def test_a_field_that_is_not_what_it_may_be_is_refused(
    chosen: PackageSet, old: str, new: str, code: str
) -> None:
    text = lock.write(locked(chosen))
    assert old in text

    with pytest.raises(ProvisionError) as refused:
        lock.read(text.replace(old, new, 1), "x.lock")

    assert refused.value.code == code


@pytest.mark.parametrize(
    "field", ["Version", "Size", "SHA256", "Filename", "Architecture", "X-Layer"]
)
def test_no_stanza_may_lack_what_decides(chosen: PackageSet, field: str) -> None:
    lines = lock.write(locked(chosen)).split("\n")
    number = next(n for n, line in enumerate(lines) if line.startswith(f"{field}: "))

    with pytest.raises(UntrustedIndex):
        lock.read("\n".join(lines[:number] + lines[number + 1 :]), "x.lock")


def test_no_damage_to_a_lock_is_worse_than_a_refusal(chosen: PackageSet) -> None:
    text = lock.write(locked(chosen))
    dice = random.Random(7)
    odd = [
        "",
        "\0",
        "\r\n",
        "\n",
        "\n\n",
        ":",
        " ",
        "\x1c",
        "é",
        "\udc80",
        "１",
        "-",
        "..",
        "9" * 30,
        text[:200],
    ]
    refused = 0

    for _ in range(3000):
        at, length = dice.randrange(len(text)), dice.choice([0, 1, 1, 7, 80])
        damaged = text[:at] + dice.choice(odd) + text[at + length :]
        try:
            lock.read(damaged, "x.lock")
        except ProvisionError:
            refused += 1

    assert refused > 1000


def test_what_a_lock_does_not_hold_is_named(chosen: PackageSet) -> None:
    wanted = ("toy-server", "toy-log=1.0~rc1-2", "toy-libc:amd64", "toy-log=2", "nginx", "nginx=1")

    assert lock.lacking(locked(chosen), wanted) == ("toy-log=2", "nginx", "nginx=1")


# apt


def test_the_real_apt_chooses_the_same_set_from_a_lock(tmp_path: Path, chosen: PackageSet) -> None:
    (tmp_path / "Packages").write_text(lock.write(locked(chosen)))
    flat_apt(tmp_path, "apt-get", "--error-on=any", "update")

    told = flat_apt(tmp_path, "apt-get", "-s", "install", "toy-server", "toy-shell")

    installed = {line.split()[1] for line in told.split("\n") if line.startswith("Inst ")}
    assert installed == {package.name for package in chosen.packages}


def test_the_real_apt_fetches_what_a_lock_keeps(tmp_path: Path, archive_key: Key) -> None:
    root, cache, home = tmp_path / "mirror", tmp_path / "cache", tmp_path / "home"
    root.mkdir()
    chosen = published(root, archive_key)
    fill(cache, root, chosen)
    kept = keep.keep(locked(chosen), home / "debs", beside=home, cache=cache)
    (home / "Packages").write_text(lock.write(kept))
    flat_apt(home, "apt-get", "--error-on=any", "update")

    flat_apt(home, "apt-get", "download", "toy-libc")

    [got] = home.glob("toy-libc_*.deb")
    assert hashlib.sha256(got.read_bytes()).hexdigest() == chosen.essential[0].sha256


# Keeping


def test_a_kept_lock_builds_with_the_mirror_gone(tmp_path: Path, archive_key: Key) -> None:
    root, cache, home = tmp_path / "mirror", tmp_path / "cache", tmp_path / "home"
    root.mkdir()
    chosen = published(root, archive_key)
    fill(cache, root, chosen)
    kept = keep.keep(locked(chosen), home / "debs", beside=home, cache=cache)
    again = lock.read(lock.write(kept), "x.lock")
    empty = tmp_path / "empty"

    taken = keep.restore(again, beside=home, cache=empty)

    assert taken == 4
    assert all(
        hashlib.sha256(object_path(empty, package.sha256).read_bytes()).hexdigest()
        == package.sha256
        for package in again.chosen.packages
    )
    assert keep.restore(again, beside=home, cache=empty) == 0


def test_a_kept_archive_that_was_changed_is_refused(tmp_path: Path, archive_key: Key) -> None:
    root, cache, home = tmp_path / "mirror", tmp_path / "cache", tmp_path / "home"
    root.mkdir()
    chosen = published(root, archive_key)
    fill(cache, root, chosen)
    kept = keep.keep(locked(chosen), home / "debs", beside=home, cache=cache)
    victim = home / kept.files[0]
    body = bytearray(victim.read_bytes())
    body[-1] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(body)

    with pytest.raises(UntrustedIndex) as refused:
        keep.restore(kept, beside=home, cache=tmp_path / "empty")

    assert refused.value.code == "E_TRUST_HASH"
    assert [path for path in (tmp_path / "empty").rglob("*") if path.is_file()] == []


def test_a_package_that_no_mirror_has_must_be_beside_the_lock(tmp_path: Path) -> None:
    own = Package(name="own", version="1", arch="all", sha256="3" * 64, size=7, origin="local")
    made = lock.read(lock.write(locked(PackageSet(essential=(own,), added=()))), "x.lock")

    with pytest.raises(StoreFailed) as refused:
        keep.restore(made, beside=tmp_path, cache=tmp_path / "cache")

    assert (refused.value.code, refused.value.subject) == ("E_NOTFOUND", "own")


def test_keeping_again_copies_only_what_is_missing(tmp_path: Path, archive_key: Key) -> None:
    root, cache, home = tmp_path / "mirror", tmp_path / "cache", tmp_path / "home"
    root.mkdir()
    chosen = published(root, archive_key)
    fill(cache, root, chosen)
    kept = keep.keep(locked(chosen), home / "debs", beside=home, cache=cache)
    (home / kept.files[0]).unlink()
    before = {path: path.stat().st_ino for path in (home / "debs").iterdir()}

    for package in chosen.packages[1:]:
        object_path(cache, package.sha256).unlink()
    again = keep.keep(locked(chosen), home / "debs", beside=home, cache=cache)

    after = {path: path.stat().st_ino for path in (home / "debs").iterdir()}
    assert again == kept
    assert before.items() < after.items()


def test_a_damaged_cache_is_not_kept(tmp_path: Path, archive_key: Key) -> None:
    root, cache, home = tmp_path / "mirror", tmp_path / "cache", tmp_path / "home"
    root.mkdir()
    chosen = published(root, archive_key)
    fill(cache, root, chosen)
    victim = object_path(cache, chosen.packages[0].sha256)
    victim.write_bytes(b"x" * victim.stat().st_size)

    with pytest.raises(StoreFailed) as refused:
        keep.keep(locked(chosen), home / "debs", beside=home, cache=cache)

    assert refused.value.code == "E_CORRUPT"
    assert list((home / "debs").iterdir()) == []


@pytest.mark.parametrize("folder", ["..", "../elsewhere", "debs/.hidden", "a b"])
def test_files_are_kept_below_the_lock_only(
    tmp_path: Path, chosen: PackageSet, folder: str
) -> None:
    home = tmp_path / "home"

    with pytest.raises(ProvisionError) as refused:
        keep.keep(locked(chosen), home / folder, beside=home, cache=tmp_path)

    assert refused.value.code == "E_PARAM"


# Comparing


def test_equal_locks_have_no_changes(chosen: PackageSet) -> None:
    assert compare(locked(chosen), locked(chosen)) == ()


def test_a_change_says_what_and_why(tmp_path: Path, archive_key: Key) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = published(tmp_path / "old", archive_key)
    server = Deb(name="toy-server", version="2.0", fields={"Depends": "toy-libc (>= 2.4), toy-tls"})
    rebuilt = replace(SHELL, files={"bin/toy": "other"})
    new = published(tmp_path / "new", archive_key, (rebuilt, LIBC, server, Deb(name="toy-tls")))

    changes = compare(locked(old), locked(new))

    told = {change.name: (change.kind, change.old, change.new, change.why) for change in changes}
    assert told == {
        "toy-log": ("removed", "1.0~rc1-2", "", "toy-server 2.0 does not need it"),
        "toy-server": ("upgraded", "1.0", "2.0", "newer in trixie"),
        "toy-shell": ("rebuilt", "5.2-1", "5.2-1", "the same version with other contents"),
        "toy-tls": ("added", "", "1.0", "toy-server 2.0 needs it"),
    }


def test_a_security_update_is_marked(chosen: PackageSet) -> None:
    libc, shell = chosen.essential
    url = f"{PLACE}-security/pool/toy-libc.deb"
    fixed = replace(libc, version="2:2.41-12+deb13u2", sha256="4" * 64, url=url)

    [change] = compare(locked(chosen), locked(replace(chosen, essential=(fixed, shell))))

    assert change.security
    assert change.why == "a security update (trixie-security)"
