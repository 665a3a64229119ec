"""An index merges verified Packages files, finds by name, and trusts no stanza blindly."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.deb.index import read_index
from provisioner.errors import UntrustedIndex
from provisioner.index import Package
from tests.provisioner.offering import index_of, offered, stanza

LINES = (
    "zeta 1.0 ; Depends: alpha (>= 1) ; Suggests: beta",
    "alpha 2.0 ; Provides: letter (= 2), first ; Essential: yes ; Priority: required",
    "beta 1.0 ; Provides: letter",
)


def test_a_package_is_found_with_what_its_stanza_says(tmp_path: Path) -> None:
    [package] = index_of(tmp_path, *LINES).versions("alpha")

    assert (package.version, package.arch, package.essential) == ("2.0", "amd64", True)
    assert package.url == "http://mirror.example/trixie/pool/alpha.deb"
    assert (package.size, package.priority, package.origin) == (1000, "required", "Debian")


def test_an_unknown_name_has_no_versions_and_its_neighbours_are_named(tmp_path: Path) -> None:
    index = index_of(tmp_path, *LINES)

    assert index.versions("alphaa") == ()
    assert index.providers("nothing") == ()
    assert list(index.nearest("alphaa")) == ["alpha"]
    assert index.label() == "trixie/main amd64"


def test_a_virtual_name_leads_to_its_providers(tmp_path: Path) -> None:
    index = index_of(tmp_path, *LINES)

    assert [each.name for each in index.providers("letter")] == ["alpha", "beta"]
    assert [each.name for each in index.providers("first")] == ["alpha"]


def test_names_are_numbered_in_the_order_in_which_they_are_mentioned(tmp_path: Path) -> None:
    index = index_of(tmp_path, *LINES)

    numbers = [index.mention(name) for name in ("zeta", "alpha", "beta", "letter", "first")]

    assert numbers == sorted(numbers)
    assert index.mention("nobody") > numbers[-1]


def test_a_stanza_mentions_its_fields_in_the_order_of_apt_and_nothing_in_prose(
    tmp_path: Path,
) -> None:
    index = index_of(
        tmp_path,
        "prose 1 ; Description: late, second | early, and lib first ; Homepage: http://second",
        "web 1 ; Suggests: late ; Depends: old:any (>= 2)| second,\n third ; Pre-Depends: early",
        "late 1",
        "third-party 1",
    )

    names = ("prose", "web", "early", "old", "second", "third", "late", "third-party", "nobody")
    numbers = [index.mention(name) for name in names]

    assert numbers == sorted(set(numbers))
    assert index.mention("2") == index.mention("any") == index.mention("nobody")


def test_an_index_without_a_package_is_an_index(tmp_path: Path) -> None:
    index = read_index([offered(tmp_path, "")], tmp_path, "amd64")

    assert index.versions("nginx") == ()
    assert list(index.nearest("nginx")) == []


def test_the_highest_version_of_all_suites_comes_first(tmp_path: Path) -> None:
    release = offered(tmp_path, stanza("nginx 1.10") + "\n" + stanza("nginx 1.2"))
    security = offered(tmp_path, stanza("nginx 1.10+deb13u1"), suite="trixie-security")

    versions = read_index([release, security], tmp_path, "amd64").versions("nginx")

    assert [each.version for each in versions] == ["1.10+deb13u1", "1.10", "1.2"]
    assert versions[0].url.startswith("http://mirror.example/trixie-security/")


def test_only_the_newest_version_of_a_package_provides(tmp_path: Path) -> None:
    old = offered(tmp_path, stanza("mta 1 ; Provides: mail"))
    new = offered(tmp_path, stanza("mta 2"), suite="trixie-security")

    assert read_index([old, new], tmp_path, "amd64").providers("mail") == ()


def test_one_version_with_two_hashes_is_refused(tmp_path: Path) -> None:
    first = offered(tmp_path, stanza("twin 1"))
    other = offered(
        tmp_path, stanza("twin 1").replace("SHA256: ", "SHA256: 0")[:-2] + "\n", suite="b"
    )

    with pytest.raises(UntrustedIndex, match="E_TRUST_FIELD: twin 1: stands twice"):
        read_index([first, other], tmp_path, "amd64").versions("twin")


def test_a_third_party_gives_only_the_names_it_may(tmp_path: Path) -> None:
    distribution = offered(tmp_path, stanza("libc6 2.41"))
    third = "\n".join(map(stanza, ("libc6 9", "tool 1", "extra 1")))
    named = offered(tmp_path, third, suite="named", only=("tool",))
    lacking = offered(tmp_path, third, suite="lacking", only=())

    by_name = read_index([distribution, named], tmp_path, "amd64")
    by_lack = read_index([distribution, lacking], tmp_path, "amd64")

    assert [len(by_name.versions(name)) for name in ("libc6", "tool", "extra")] == [1, 1, 0]
    assert [len(by_lack.versions(name)) for name in ("libc6", "tool", "extra")] == [1, 1, 1]
    assert by_lack.versions("libc6")[0].version == "2.41"


def test_the_order_of_the_sources_gives_a_third_party_nothing(tmp_path: Path) -> None:
    distribution = offered(tmp_path, stanza("libc6 2.41") + "\n" + stanza("mawk 1 ; Provides: awk"))
    third = "\n".join(map(stanza, ("libc6 9", "evil 1 ; Provides: awk, new ; Essential: yes")))
    lacking = offered(tmp_path, third, suite="lacking", only=())

    index = read_index([lacking, distribution], tmp_path, "amd64")

    assert [each.version for each in index.versions("libc6")] == ["2.41"]
    assert [each.name for each in index.providers("awk")] == ["mawk"]
    assert [each.name for each in index.providers("new")] == ["evil"]
    assert index.essential() == ()


def test_a_third_party_cannot_slip_in_as_a_provider(tmp_path: Path) -> None:
    distribution = offered(tmp_path, stanza("exim 1 ; Provides: mail"))
    third = offered(
        tmp_path, stanza("evil 1 ; Provides: mail ; Essential: yes"), suite="other", only=("tool",)
    )

    index = read_index([distribution, third], tmp_path, "amd64")

    assert [each.name for each in index.providers("mail")] == ["exim"]
    assert index.essential() == ()


def test_a_local_package_outranks_every_other(tmp_path: Path) -> None:
    mine = Package(name="alpha", version="0.1", arch="amd64", origin="local")
    files = [offered(tmp_path, "\n".join(map(stanza, LINES)))]

    versions = read_index(files, tmp_path, "amd64", local=[mine]).versions("alpha")

    assert [each.origin for each in versions] == ["local", "Debian"]


BAD = {
    "name": ("Package: foo", "Package: ../foo"),
    "no version": ("Version: 1\n", ""),
    "version": ("Version: 1", "Version: 1 2"),
    "architecture": ("Architecture: amd64", "Architecture: arm64"),
    "absolute file": ("Filename: pool/foo.deb", "Filename: /etc/foo.deb"),
    "file above": ("Filename: pool/foo.deb", "Filename: pool/../../foo.deb"),
    "no deb": ("Filename: pool/foo.deb", "Filename: pool/foo.tar"),
    "size": ("Size: 1000", "Size: 1e3"),
    "other digits": ("Size: 1000", "Size: １０"),
    "huge": ("Size: 1000", "Size: 4294967297"),
    "hash": ("SHA256: ", "SHA256: x"),
    "no hash": ("SHA256: ", "SHA1: "),
    "twice": ("Size: 1000", "Size: 1000\nsize: 1"),
    "garbage": ("Size: 1000", "Size: 1000\nrubbish"),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_a_stanza_with_a_field_that_may_not_be_is_refused(
    change: tuple[str, str], tmp_path: Path
) -> None:
    text = stanza("foo 1").replace(*change)
    name = "../foo" if "../foo" in text and "pool/../" not in text else "foo"

    with pytest.raises(UntrustedIndex, match=r"E_TRUST_(FIELD|SIZE)"):
        read_index([offered(tmp_path, text)], tmp_path, "amd64").versions(name)


def test_other_bytes_than_the_signed_ones_are_refused(tmp_path: Path) -> None:
    file = offered(tmp_path, stanza("foo 1"))

    with pytest.raises(UntrustedIndex, match="E_TRUST_HASH"):
        read_index([replace(file, plain_sha256="0" * 64)], tmp_path, "amd64")
    with pytest.raises(UntrustedIndex, match="E_TRUST_SIZE"):
        read_index([replace(file, plain_size=file.plain_size + 1)], tmp_path, "amd64")


def cached(tmp_path: Path) -> Path:
    [path] = tmp_path.glob("*.index")
    return path


def test_a_second_reading_does_not_decode_again(tmp_path: Path) -> None:
    file = offered(tmp_path, stanza("foo 1"))
    read_index([file], tmp_path, "amd64")
    file.path.unlink()

    assert read_index([file], tmp_path, "amd64").versions("foo")[0].version == "1"


@pytest.mark.parametrize("damage", ["empty", "cut", "zero", "header", "table", "text"])
def test_a_damaged_map_is_made_again(damage: str, tmp_path: Path) -> None:
    file = offered(tmp_path, "\n".join(map(stanza, LINES)))
    read_index([file], tmp_path, "amd64")
    path = cached(tmp_path)
    whole = path.read_bytes()
    table = len(whole) - 8 * 22  # where the tables are
    broken = {
        "empty": b"",
        "cut": whole[:-9],
        "zero": bytes(len(whole)),
        "header": whole[:30] + b"\xff" + whole[31:],
        "table": whole[:table] + b"\xff" * (len(whole) - table),
        "text": whole[:90] + bytes(500) + whole[590:],
    }[damage]
    path.unlink()
    path.write_bytes(broken)

    index = read_index([file], tmp_path, "amd64")

    assert [each.version for each in index.versions("alpha")] == ["2.0"]
    assert index.essential()[0].name == "alpha"


def test_a_map_that_has_gone_is_made_again_when_it_is_needed(tmp_path: Path) -> None:
    index = index_of(tmp_path, "curl 1")
    later = index_of(tmp_path, "curl 1")
    cached(tmp_path).unlink()

    assert later.nearest("curk") == ["curl"]
    assert cached(tmp_path).exists()
    assert later.versions("curl") == index.versions("curl")


def test_a_builder_that_was_killed_leaves_nothing_that_stays(tmp_path: Path) -> None:
    left = tmp_path / ".draft-left"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))

    index_of(tmp_path, *LINES)

    assert not left.exists()
    assert len(list(tmp_path.glob(".draft-*"))) == 0


def test_stanzas_are_read_in_whatever_order_their_fields_stand(tmp_path: Path) -> None:
    head, _, rest = stanza("foo 1 ; Provides: bar").partition("\n")
    text = f"\n\n{rest}{head}\n\n\n" + stanza("zork 2")

    index = read_index([offered(tmp_path, text)], tmp_path, "amd64")

    assert [index.versions(name)[0].version for name in ("foo", "zork")] == ["1", "2"]
    assert [each.name for each in index.providers("bar")] == ["foo"]


def test_an_empty_file_offers_nothing(tmp_path: Path) -> None:
    index = read_index([offered(tmp_path, "")], tmp_path, "amd64")

    assert index.versions("foo") == index.providers("foo") == index.essential() == ()
