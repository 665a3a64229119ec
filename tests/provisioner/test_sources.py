"""Which suites are read where: what was asked for first, then the host's own mirrors, then the built-in ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provisioner import distro
from provisioner.errors import ProvisionError
from provisioner.keys import has_keyring, load
from provisioner.sources import (
    HostMirror,
    Source,
    asked_mirror,
    choose,
    host_mirrors,
    parse_repository,
)

DEBIAN = distro.find("debian")
ROWS = [
    (row, series, suite)
    for row in distro.DISTROS.values()
    for series in row.releases
    for suite in series.suites
]
KEY = "04B54C3CDCA79751B16BC6B5225629DF75B188BD"


def _places(groups: tuple[tuple[Source, ...], ...]) -> dict[str, list[str]]:
    return {group[0].suite: [source.url for source in group] for group in groups}


def test_debian_has_three_suites_at_its_own_mirrors() -> None:
    assert _places(choose(DEBIAN, "stable", "x86_64")) == {
        "trixie": ["http://ftp.debian.org/debian"],
        "trixie-updates": ["http://ftp.debian.org/debian"],
        "trixie-security": ["http://security.debian.org/debian-security"],
    }


def test_sid_has_one_suite() -> None:
    assert list(_places(choose(DEBIAN, "unstable", "amd64"))) == ["sid"]


def test_the_hosts_mirrors_come_first_for_every_release() -> None:
    host = (
        HostMirror("http://company/debian", "stable"),
        HostMirror("http://company/debian-security", "trixie-security"),
        HostMirror("http://ppa.example/x", "noble"),
    )

    places = _places(choose(DEBIAN, "bookworm", "amd64", host=host))

    assert places["bookworm"] == ["http://company/debian", "http://ftp.debian.org/debian"]
    assert places["bookworm-security"][0] == "http://company/debian-security"


@pytest.mark.parametrize(
    ("mirror", "security"),
    [
        ("http://m/debian/", ["http://m/debian-security", "http://m/debian"]),
        ("http://m/a/b", ["http://m/a/b-security", "http://m/a/b"]),
        ("http://m:8080", ["http://m:8080"]),
    ],
)
def test_a_mirror_that_is_asked_for_replaces_every_other(mirror: str, security: list[str]) -> None:
    host = (HostMirror("http://company/debian", "trixie"),)

    groups = choose(DEBIAN, "trixie", "amd64", mirror=mirror, host=host)

    places = _places(groups)
    assert places["trixie"] == places["trixie-updates"] == [mirror.rstrip("/")]
    assert places["trixie-security"] == security
    assert [group[0].optional for group in groups] == [False, True, True]


@pytest.mark.parametrize(
    ("option", "environ", "config", "taken"),
    [
        ("http://a", {"MKTEMPLATE_MIRROR": "http://b"}, "http://c", "http://a"),
        ("", {"MKTEMPLATE_MIRROR": "http://b"}, "http://c", "http://b"),
        ("", {}, "http://c", "http://c"),
        ("", {}, "", ""),
    ],
)
def test_the_option_goes_before_the_environment_before_the_config_file(
    option: str, environ: dict[str, str], config: str, taken: str
) -> None:
    assert asked_mirror(option, environ, config) == taken


def test_a_keyring_that_is_given_replaces_the_pinned_keys() -> None:
    [[source], *_] = choose(DEBIAN, "trixie", "amd64", keyring=Path("/k.pgp"))

    assert (source.keyring, source.keys) == (Path("/k.pgp"), ())


def test_each_architecture_of_ubuntu_has_its_server() -> None:
    ubuntu = distro.find("ubuntu")

    assert _places(choose(ubuntu, "noble", "amd64"))["noble"] == [
        "http://archive.ubuntu.com/ubuntu"
    ]
    assert _places(choose(ubuntu, "noble", "aarch64"))["noble-security"] == [
        "http://ports.ubuntu.com/ubuntu-ports"
    ]


@pytest.mark.parametrize("row", distro.DISTROS.values(), ids=lambda row: row.name)
def test_every_release_of_a_distribution_can_be_chosen(row: distro.Distro) -> None:
    for series in row.releases:
        for arch in row.arches:
            assert all(group for group in choose(row, series.name, arch))


def test_the_hosts_apt_sources_are_read_in_both_formats(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text(
        "# a comment\n"
        "deb http://one/debian trixie main contrib # and more\n"
        "deb [ arch=amd64 signed-by=/x ] http://two/debian/ trixie-updates main\n"
        "deb [trusted=yes] file:/srv ./\n"
        "deb cdrom:[Debian]/ trixie main\n"
        "deb-src http://no/debian trixie main\n"
        "deb http://flat/x ./\n"
        "deb http://u:p@no/debian trixie main\n"
        "deb http://short trixie\n"
        "nonsense\n"
    )
    (parts / "b.sources").write_text(
        "Types: deb deb-src\nURIs: http://three/debian\n https://four/debian\n"
        "Suites: trixie trixie-security\nComponents: main\nTrusted: yes\n\n"
        "Types: deb\nURIs: http://off/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n"
        "Types: deb\nURIs: file:/usr/share/x\nSuites: ./\n\n"
        "Types: deb-src\nURIs: http://no/debian\nSuites: trixie\nComponents: main\n\n"
        "URIs\n\n: x\n"
    )
    (parts / "a.list").write_bytes(b"deb http://five/debian sid main\n\xff\xfe\0\n")
    (parts / "c.list.save").write_text("deb http://no/debian trixie main\n")
    (parts / "d.sources").mkdir()

    assert host_mirrors(tmp_path) == (
        HostMirror("http://one/debian", "trixie"),
        HostMirror("http://two/debian", "trixie-updates"),
        HostMirror("http://five/debian", "sid"),
        HostMirror("http://three/debian", "trixie"),
        HostMirror("http://three/debian", "trixie-security"),
        HostMirror("https://four/debian", "trixie"),
        HostMirror("https://four/debian", "trixie-security"),
    )


def test_a_host_without_apt_has_no_mirrors(tmp_path: Path) -> None:
    assert host_mirrors(tmp_path / "none") == ()


REPOSITORY = f"""\
# a third party
Types: deb
URIs: https://one.example/deb https://two.example/deb
Suites: stable
Components: main extra
Signed-By: /etc/keys/one.pgp
Fingerprint: {KEY.lower()}
Include: tool tool-data
"""


def test_a_repository_is_read_from_deb822() -> None:
    [group] = parse_repository(REPOSITORY, "amd64", where="one.sources")

    assert [source.url for source in group] == [
        "https://one.example/deb",
        "https://two.example/deb",
    ]
    assert (group[0].keys, group[0].keyring) == ((KEY,), Path("/etc/keys/one.pgp"))
    assert (group[0].only, group[0].role) == (("tool", "tool-data"), "extra")
    assert group[0].components == ("main", "extra")


def test_a_key_may_stand_in_the_repository_itself() -> None:
    text = REPOSITORY.replace(
        "/etc/keys/one.pgp",
        "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----",
    )

    [[source, _]] = parse_repository(text, "amd64", where="one.sources")

    assert source.key_text == (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("Types: deb", "Types: deb-src", "E_PARAM"),
        ("URIs: https://one.example/deb", "URIs: ftp://one.example/deb", "E_URL"),
        ("Suites: stable", "Suites: ./", "E_PARAM"),
        ("Suites: stable", "Suites: ../x", "E_PARAM"),
        ("Suites: stable\n", "", "E_PARAM"),
        ("Components: main extra\n", "", "E_PARAM"),
        ("Signed-By: /etc/keys/one.pgp\n", "", "E_TRUST_NOKEYRING"),
        ("Signed-By: /etc/", "Signed-By: etc/", "E_PARAM"),
        (f"Fingerprint: {KEY.lower()}\n", "", "E_PARAM"),
        (KEY.lower(), "75B188BD", "E_PARAM"),
        ("tool-data", "Tool", "E_PARAM"),
        ("Types: deb", "Architectures: arm64", "E_PARAM"),
        (REPOSITORY, "# nothing\n", "E_PARAM"),
    ],
)
def test_a_repository_that_cannot_be_meant_is_refused(old: str, new: str, code: str) -> None:
    assert old in REPOSITORY

    with pytest.raises(ProvisionError) as refused:
        parse_repository(REPOSITORY.replace(old, new), "amd64", where="one.sources")

    assert refused.value.code == code
    assert refused.value.hints


@pytest.mark.parametrize(
    ("find", "word", "near"),
    [
        (distro.find, "debain", "debian"),
        (lambda word: distro.series(DEBIAN, word), "trixy", "trixie"),
        (lambda word: distro.architecture(DEBIAN, word), "amd46", "amd64"),
    ],
    ids=["distribution", "release", "architecture"],
)
def test_an_unknown_word_is_answered_with_the_nearest(find: object, word: str, near: str) -> None:
    with pytest.raises(ProvisionError, match=word) as refused:
        find(word)  # type: ignore[operator]  # one of the functions above

    assert refused.value.code == "E_USAGE"
    assert refused.value.hints == (f"did you mean `{near}`?",)


@pytest.mark.parametrize(("row", "series", "suite"), ROWS, ids=lambda each: each.name)
def test_every_row_is_whole(row: distro.Distro, series: distro.Series, suite: distro.Suite) -> None:
    assert row.release in {each.name for each in row.releases}
    assert suite.name.startswith(series.name)
    assert suite.keys
    assert all(len(key) == 40 and key == key.upper() for key in suite.keys)


@pytest.mark.parametrize("name", ["debian", "ubuntu"])
def test_the_keys_that_are_shipped_are_those_that_are_pinned(name: str) -> None:
    row = distro.find(name)
    for series in row.releases:
        for [source, *_] in choose(row, series.name, "amd64"):
            assert load(source).fingerprints == tuple(sorted(source.keys))
    assert has_keyring(row)
    assert not has_keyring(replace(row, keyring="", keyring_files=("/nonexistent",)))


def test_a_key_that_is_nowhere_is_named_with_its_package() -> None:
    [[source], *_] = choose(distro.find("devuan"), "", "amd64")

    with pytest.raises(ProvisionError) as refused:
        load(source)

    assert refused.value.code == "E_TRUST_NOKEYRING"
    assert "devuan-keyring" in refused.value.hints[0]


def test_a_security_key_does_not_sign_the_main_suite() -> None:
    suites = {suite.name: set(suite.keys) for _, _, suite in ROWS}

    for name, keys in suites.items():
        if name.endswith("-security") and name.split("-")[0] in {"trixie", "bookworm", "bullseye"}:
            assert not keys & suites[name.removesuffix("-security")]
