"""`[[repository]]` and `[[download]]`: what a template may take from elsewhere, and what is refused at once."""

from __future__ import annotations

import pytest

from mktemplate.cli.parsing import Build
from mktemplate.errors import CommandError, Several
from mktemplate.making import origins
from mktemplate.template import spec
from mktemplate.template.facts import Target
from provisioner import sources

FACTS = 'summary = "a test"\ndistros = ["deb"]\n'
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n-----END PGP PUBLIC KEY BLOCK-----"
REPOSITORY = f"""[[repository]]
uris = "https://packages.example.org/{{distro}}"
suites = ["{{release}}"]
components = ["main"]
fingerprint = "{"A1" * 20}"
only = ["tool"]
signed_by = '''
{KEY}
'''
"""
DOWNLOAD = f"""[[download]]
url = "https://example.org/tool"
sha256 = "{"0" * 64}"
to = "/opt/tool"
"""
TRIXIE = Target(distro="debian", release="trixie", arch="amd64")


def parse(text: str, *, trusted: bool = False) -> spec.TemplateSpec:
    return spec.parse("mine", FACTS + text, "mine/template.toml", origin="user", trusted=trusted)


def problems(text: str, *, trusted: bool = False) -> list[str]:
    try:
        parse(text, trusted=trusted)
    except Several as several:
        return [str(failure) for failure in several.failures]
    except CommandError as failure:
        return [str(failure)]
    return []


def test_a_repository_becomes_the_sources_that_deb822_would() -> None:
    groups = origins.groups(TRIXIE, Build(), parse(REPOSITORY).repositories)

    [source] = groups[-1]
    assert (source.url, source.suite) == ("https://packages.example.org/debian", "trixie")
    assert (source.role, source.keys, source.only) == ("extra", ("A1" * 20,), ("tool",))
    assert source.key_text == f"{KEY}\n".encode()


def test_a_repository_for_another_distribution_is_left_out() -> None:
    text = REPOSITORY.replace("only =", 'distros = ["ubuntu", "debian/bookworm"]\nonly =')

    groups = origins.groups(TRIXIE, Build(), parse(text).repositories)

    assert all(source.distro == "debian" for group in groups for source in group)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('fingerprint = "A1', 'fingerprint = "X', "40 hexadecimal digits"),
        ('only = ["tool"]', 'only = ["Tool!"]', "is no package name"),
        ("https://", "ftp://", "only http:// and https://"),
        ('components = ["main"]', "", "repository.components: is required"),
        ('["{release}"]', '["a b"]', "words without spaces"),
        ("signed_by", "signed", "repository.signed: unknown key"),
        (KEY, "/etc/shadow", "no path of the host"),
        (KEY, "../key", "must be an armored key"),
        (KEY, f"{KEY}\n\x00", "invalid character"),
    ],
)
def test_a_repository_that_cannot_be_meant_is_refused(old: str, new: str, told: str) -> None:
    found = problems(REPOSITORY.replace(old, new))

    assert any(told in each for each in found), found


def test_only_a_trusted_template_names_a_keyring_of_the_host() -> None:
    text = REPOSITORY.replace(KEY, "/usr/share/keyrings/example.gpg")

    assert problems(text, trusted=True) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0" * 64, "0" * 63, "64 hexadecimal digits"),
        ("/opt/tool", "opt/tool", "must be an absolute path"),
        ("/opt/tool", "/opt/../etc/passwd", "must be an absolute path"),
        ("/opt/tool", "/run/tool", "must be an absolute path"),
        ("https://example.org/tool", "file:///etc/shadow", "only http:// and https://"),
        ('to = "/opt/tool"', 'to = "/opt/tool"\nmode = "rwx"', "must be octal"),
        ('to = "/opt/tool"', 'to = "/opt/tool"\nowner = "a b"', "no account's name"),
    ],
)
def test_a_download_that_cannot_be_meant_is_refused(old: str, new: str, told: str) -> None:
    found = problems(DOWNLOAD.replace(old, new))

    assert any(told in each for each in found), found


@pytest.mark.parametrize(
    ("mirror", "release", "security"),
    [
        ("http://h/snap/{timestamp}/debian", "http://h/snap/T/debian", "http://h/snap/T/debian-security"),
        ("http://h/debian/{timestamp}/", "http://h/debian/T", "http://h/debian-security/T"),
    ],
)  # fmt: skip
def test_as_of_fills_the_moment_into_the_mirrors_pattern(
    mirror: str, release: str, security: str
) -> None:
    moment = "20260101T000000Z"

    groups = origins.groups(TRIXIE, Build(mirror=mirror, as_of=moment))

    assert groups[0][0].url == release.replace("T", moment)
    assert groups[2][0].url == security.replace("T", moment)
    assert {source.as_of for group in groups for source in group} == {moment}
    assert [group[0].optional for group in groups] == [False, True, True]


def test_as_of_without_a_mirror_asks_the_distributions_own_archive_of_its_past() -> None:
    groups = origins.groups(TRIXIE, Build(as_of="20260101T000000Z"))

    assert [len(group) for group in groups] == [1, 1, 1]
    assert groups[0][0].url.endswith("/archive/debian/20260101T000000Z")
    assert groups[2][0].url.endswith("/archive/debian-security/20260101T000000Z")


def test_the_environment_may_allow_a_stale_index() -> None:
    assert origins.allowed_days(Build(), {"MKTEMPLATE_ALLOW_STALE": "30"}) == 30
    assert origins.allowed_days(Build(allow_stale=2), {"MKTEMPLATE_ALLOW_STALE": "30"}) == 2
    with pytest.raises(CommandError, match="E_PARAM"):
        origins.allowed_days(Build(), {"MKTEMPLATE_ALLOW_STALE": "-1"})


def test_recorded_mirrors_come_before_the_hosts() -> None:
    recorded = (sources.HostMirror("http://mine.example.org/debian", "trixie"),)

    groups = origins.groups(TRIXIE, Build(), recorded=recorded)

    assert groups[0][0].url == "http://mine.example.org/debian"
