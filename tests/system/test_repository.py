"""`--repo`: another signer's packages come in, beside the distribution's and never in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.archive import DAY, Deb, Key, Served, Suite, new_key, publish
from tests.family import Mirror, architecture
from tests.system.command import Mkt

pytestmark = pytest.mark.system
TOOL = Deb(name="example-tool", version="3.1", fields={"Depends": "libc6"})
EVIL = Deb(name="libc6", version="99:1", files={"evil": "x"})


@pytest.fixture(scope="module")
def other_key() -> Iterator[Key]:
    with new_key() as key:
        yield key


@pytest.fixture
def repository(served: Served, other_key: Key, tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a .sources file for a third party's repository, and gives its path."""
    suite = Suite(
        name="stable", origin="Example", label="Example", arch=architecture(), debs={"main": (TOOL, EVIL)},
        valid=7 * DAY,
    )  # fmt: skip
    publish(served.root, suite, other_key)

    def write(fingerprint: str = other_key.fingerprint, more: str = "") -> str:
        file = tmp_path / "example.sources"
        file.write_text(
            f"Types: deb\nURIs: {served.url}\nSuites: stable\nComponents: main\n"
            f"Signed-By: {other_key.keyring}\nFingerprint: {fingerprint}\n{more}"
        )
        return str(file)

    return write


@pytest.fixture
def plain(tmp_path: Path, family: Callable[[str], Mirror]) -> tuple[str, ...]:
    """Return the words that plan a template of Kali, which has one suite."""
    folder = tmp_path / "templates/plain"
    folder.mkdir(parents=True)
    (folder / "template.toml").write_text(
        'summary = "x"\ndistros = ["deb"]\nprofile = "service"\ncommand = []\n'
    )
    for kind in ("config", "tree"):
        (folder / f"{kind}.j2").write_text(
            f'{{% extends "_distro/" ~ distro.name ~ ".{kind}.j2" %}}\n'
        )
    return ("plain", "--template-path", str(folder.parent), *family("kali").options)


def test_its_packages_are_chosen_and_named_after_it(
    cold: Mkt, plain: tuple[str, ...], repository: Callable[..., str]
) -> None:
    plan = cold.json("plan", *plain, "--repo", repository(), "--packages", "example-tool")

    origins = {package["name"]: package["origin"] for package in plan["packages"]}
    assert origins.pop("example-tool") == "Example"
    assert set(origins.values()) == {"Kali"}


def test_it_cannot_replace_libc6_even_with_a_newer_version(
    cold: Mkt, plain: tuple[str, ...], repository: Callable[..., str]
) -> None:
    plan = cold.json("plan", *plain, "--repo", repository(), "--packages", "example-tool")

    [libc] = [package for package in plan["packages"] if package["name"] == "libc6"]
    assert libc["origin"] == "Kali"
    assert not libc["version"].startswith("99:")


def test_include_limits_what_may_come_from_it(
    cold: Mkt, plain: tuple[str, ...], repository: Callable[..., str]
) -> None:
    done = cold(
        "plan",
        *plain,
        "--repo",
        repository(more="Include: something\n"),
        "--packages",
        "example-tool",
    )

    assert done.returncode == 8
    assert "error[E_NOTFOUND]: example-tool" in done.stderr


@pytest.mark.parametrize(
    ("fingerprint", "code", "status"),
    [("F" * 40, "E_TRUST_NOKEYRING", 3), ("", "E_PARAM", 2), ("8DD47936", "E_PARAM", 2)],
)
def test_its_key_is_named_by_its_whole_fingerprint(
    cold: Mkt,
    plain: tuple[str, ...],
    repository: Callable[..., str],
    fingerprint: str,
    code: str,
    status: int,
) -> None:
    done = cold("plan", *plain, "--repo", repository(fingerprint))

    assert done.returncode == status, done.stderr
    assert f"error[{code}]" in done.stderr
