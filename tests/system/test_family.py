"""Ubuntu, Devuan and Kali, whole: archives of the host's own packages made theirs, signed by a test's key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.family import Mirror
from tests.system.command import Mkt

pytestmark = pytest.mark.system
FAMILY = ("ubuntu", "devuan", "kali")
TEMPLATE = {
    "template.toml": 'summary = "Essential packages"\ndistros = ["deb"]\nprofile = "service"\ncommand = []\n',
    "config.j2": '{% extends "_distro/" ~ distro.name ~ ".config.j2" %}\n',
    "tree.j2": '{% extends "_distro/" ~ distro.name ~ ".tree.j2" %}\n',
}


@pytest.fixture(params=FAMILY)
def mirror(request: pytest.FixtureRequest, family: Callable[[str], Mirror]) -> Mirror:
    return family(request.param)


@pytest.fixture
def plain(tmp_path: Path, mirror: Mirror) -> tuple[str, ...]:
    """Return the words that name a template for the whole family and the mirror."""
    folder = tmp_path / "templates/plain"
    folder.mkdir(parents=True)
    for name, text in TEMPLATE.items():
        (folder / name).write_text(text)
    return ("plain", "own", "--template-path", str(folder.parent), *mirror.options)


def test_base_holds_the_essential_packages_configured_and_clean(
    mkt: Mkt, mirror: Mirror, plain: tuple[str, ...]
) -> None:
    mkt.ok("create", *plain)

    info = mkt.json("info", "own")
    assert (info["distro"], info["release"]) == (mirror.distro.name, mirror.release)
    mkt.ok("start", "own")
    told = mkt.ok("exec", "own", "--", "dpkg-query", "-Wf", "${Package} ${db:Status-Status}\n")
    assert {line.split()[1] for line in told.splitlines()} == {"installed"}
    assert {line.split()[0] for line in told.splitlines()} <= mirror.names
    assert mkt.ok("exec", "own", "--", "dpkg", "--audit") == ""
    assert mkt.ok("exec", "own", "--", "dpkg", "--verify") == ""
    assert f"ID={mirror.distro.name}\n" in mkt.ok("exec", "own", "--", "cat", "/etc/os-release")


def test_usr_is_merged_though_no_package_ships_the_links(
    mkt: Mkt, mirror: Mirror, plain: tuple[str, ...]
) -> None:
    mkt.ok("create", *plain)
    mkt.ok("start", "own")

    told = mkt.ok("exec", "own", "--", "readlink", "/bin", "/sbin", "/lib")

    assert told.split() == ["usr/bin", "usr/sbin", "usr/lib"]


def test_packages_of_every_suite_can_be_added(
    mkt: Mkt, mirror: Mirror, plain: tuple[str, ...]
) -> None:
    roles = [
        suite.role
        for row in mirror.distro.releases
        if row.name == mirror.release
        for suite in row.suites
    ]
    names = [f"{mirror.distro.name}-{role}" for role in roles]

    plan = mkt.json("plan", *plain, "--packages", ",".join(names))

    added = {
        package["name"]: package for package in plan["packages"] if package["layer"] == "service"
    }
    assert set(added) == set(names)
    assert {package["origin"] for package in plan["packages"]} == {
        mirror.distro.releases[0].suites[0].origin
    }


def test_without_the_right_key_nothing_is_created(
    mkt: Mkt, mirror: Mirror, plain: tuple[str, ...]
) -> None:
    other = Path("/usr/share/keyrings/debian-archive-keyring.pgp")
    if not other.exists():
        pytest.skip("this machine lacks the Debian archive keyring, any other key")
    options = [str(other) if word == str(mirror.keyring) else word for word in plain]

    done = mkt("create", *options)

    assert done.returncode == 3
    assert "error[E_TRUST_NOKEY]" in done.stderr
    assert mkt.names() == []
