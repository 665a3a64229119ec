"""Ubuntu, Devuan and Kali are rows: their releases, suites, keys and archives are what the rows say."""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner import sources
from provisioner.deb.index import read_index
from provisioner.deb.trust import Release
from provisioner.distro import DISTROS, Distro, find, series
from provisioner.errors import ProvisionError
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy
from provisioner.release import read_suites
from provisioner.resolver import PackageSet, resolve
from tests.archive import DAY, Deb, Key, Served, Suite, publish

BASE = Deb(name="toy-base", arch="amd64", essential=True, compression="zstd")


@pytest.mark.parametrize(
    ("name", "word", "release"),
    [
        ("ubuntu", "", "noble"),
        ("ubuntu", "24.04", "noble"),
        ("ubuntu", "22.04", "jammy"),
        ("devuan", "", "excalibur"),
        ("devuan", "stable", "excalibur"),
        ("devuan", "oldstable", "daedalus"),
        ("devuan", "unstable", "ceres"),
        ("kali", "", "kali-rolling"),
        ("kali", "rolling", "kali-rolling"),
        ("debian", "stable", "trixie"),
        ("debian", "12", "bookworm"),
        ("debian", "unstable", "sid"),
    ],
)
def test_a_release_has_its_names(name: str, word: str, release: str) -> None:
    assert series(find(name), word).name == release


@pytest.mark.parametrize(
    ("name", "release", "suites"),
    [
        ("ubuntu", "noble", ["noble", "noble-updates", "noble-security"]),
        ("devuan", "excalibur", ["excalibur", "excalibur-updates", "excalibur-security"]),
        ("devuan", "ceres", ["ceres"]),
        ("kali", "kali-rolling", ["kali-rolling"]),
    ],
)
def test_a_release_has_its_suites(name: str, release: str, suites: list[str]) -> None:
    assert [suite.name for suite in series(find(name), release).suites] == suites


@pytest.mark.parametrize("row", DISTROS.values(), ids=lambda row: row.name)
def test_every_suite_is_pinned_to_full_fingerprints(row: Distro) -> None:
    keys = [key for each in row.releases for suite in each.suites for key in suite.keys]

    assert keys
    assert all(re.fullmatch(r"[0-9A-F]{40}", key) for key in keys)
    assert all(suite.keys and suite.origin for each in row.releases for suite in each.suites)


@pytest.mark.parametrize("row", DISTROS.values(), ids=lambda row: row.name)
def test_no_two_releases_share_a_name(row: Distro) -> None:
    names = [name for each in row.releases for name in (each.name, *each.aliases)]

    assert len(names) == len(set(names))
    assert row.release in names


def test_ubuntu_for_other_machines_is_on_the_ports_server() -> None:
    urls = {
        arch: {group[0].url for group in sources.choose(find("ubuntu"), "noble", arch)}
        for arch in ("amd64", "arm64")
    }

    assert urls["amd64"] == {
        "http://archive.ubuntu.com/ubuntu",
        "http://security.ubuntu.com/ubuntu",
    }
    assert urls["arm64"] == {"http://ports.ubuntu.com/ubuntu-ports"}


# A signed local archive of each


def identity(row: Distro, release: str, root: Path, key: Key, **changes: str) -> None:
    """Publish toys as every suite of `release`; the name of each is its suite's."""
    for suite in series(row, release).suites:
        toy = Deb(name=f"toy-{suite.role}", compression="zstd")
        first, *others = row.components
        debs: dict[str, tuple[Deb | Path, ...]] = dict.fromkeys(others, ())
        debs[first] = (BASE, toy) if suite.role == "release" else (toy,)
        said = Suite(
            name=suite.name, origin=suite.origin, label=suite.label or row.title,
            codename=suite.codename or suite.name, debs=debs, valid=7 * DAY,
        )  # fmt: skip
        publish(root, replace(said, **changes), key)  # type: ignore[arg-type]  # each is a text field


def chosen_from(
    row: Distro, served: Served, key: Key, tmp_path: Path, *wanted: str
) -> tuple[tuple[Release, ...], PackageSet]:
    """Return what the product reads from the archive below `/NAME` and chooses for `wanted`."""
    url = f"{served.url}/{row.name}"
    groups = sources.choose(row, "", "amd64", mirror=url, keyring=key.keyring)
    store = tmp_path / "store"
    for folder in ("trust", "cache/lists/partial"):
        (store / folder).mkdir(parents=True, exist_ok=True)
    with closing(HttpFetch({})) as fetch:
        releases, files = read_suites(groups, fetch, store, Policy(now=time.time()))
    return releases, resolve(wanted, read_index(files, store / "cache/lists", "amd64"))


@pytest.mark.parametrize("name", ["ubuntu", "devuan", "kali", "debian"])
def test_all_suites_of_an_archive_are_read_and_merged(
    name: str, archive_key: Key, served: Served, tmp_path: Path
) -> None:
    row = find(name)
    identity(row, "", served.root / name, archive_key)
    wanted = [f"toy-{suite.role}" for suite in series(row).suites]

    releases, chosen = chosen_from(row, served, archive_key, tmp_path, *wanted)

    assert [release.suite for release in releases] == [suite.name for suite in series(row).suites]
    assert {release.signers for release in releases} == {(archive_key.fingerprint,)}
    assert {package.name for package in chosen.packages} == {"toy-base", *wanted}


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("ubuntu", {"origin": "Debian"}, "E_TRUST_INFO"),
        ("ubuntu", {"codename": "jammy"}, "E_TRUST_INFO"),
        ("ubuntu", {"label": "LP-PPA-somebody"}, "E_TRUST_INFO"),
        ("devuan", {"origin": "Debian"}, "E_TRUST_INFO"),
        ("kali", {"origin": "Debian"}, "E_TRUST_INFO"),
        ("kali", {"suite": "sid", "codename": "sid"}, "E_TRUST_SUITE"),
    ],
)
def test_another_distributions_archive_is_refused(
    name: str, changes: dict[str, str], code: str, archive_key: Key, served: Served, tmp_path: Path
) -> None:
    identity(find(name), "", served.root / name, archive_key, **changes)

    with pytest.raises(ProvisionError) as refused:
        chosen_from(find(name), served, archive_key, tmp_path)

    assert refused.value.code == code


def test_ubuntu_without_a_security_suite_there_says_so(
    archive_key: Key, served: Served, tmp_path: Path
) -> None:
    identity(find("ubuntu"), "", served.root / "ubuntu", archive_key)
    for file in (served.root / "ubuntu/dists/noble-security").iterdir():
        if file.is_file():
            file.unlink()

    releases, _ = chosen_from(find("ubuntu"), served, archive_key, tmp_path)

    notes = [note for release in releases for note in release.notes]
    assert any("security" in note for note in notes)
    assert [release.suite for release in releases] == ["noble", "noble-updates"]


def test_security_beside_the_mirror_is_preferred_to_security_below_it(
    archive_key: Key, served: Served, tmp_path: Path
) -> None:
    identity(find("ubuntu"), "", served.root / "ubuntu", archive_key)
    (served.root / "ubuntu-security/dists").mkdir(parents=True)
    (served.root / "ubuntu/dists/noble-security").rename(
        served.root / "ubuntu-security/dists/noble-security"
    )

    releases, _ = chosen_from(find("ubuntu"), served, archive_key, tmp_path)

    assert releases[2].mirror == f"{served.url}/ubuntu-security"


def test_kali_is_fetched_by_hash_for_its_redirector_may_change_mirrors(
    archive_key: Key, served: Served, tmp_path: Path
) -> None:
    identity(find("kali"), "", served.root / "kali", archive_key)

    chosen_from(find("kali"), served, archive_key, tmp_path)

    fetched = [path for path in served.requests if "Packages" in path or "by-hash" in path]
    assert fetched
    assert all("/by-hash/SHA256/" in path for path in fetched)


def test_without_its_keyring_devuan_says_what_to_do(served: Served, tmp_path: Path) -> None:
    row = find("devuan")
    groups = sources.choose(row, "", "amd64", mirror=f"{served.url}/devuan")

    with closing(HttpFetch({})) as fetch, pytest.raises(ProvisionError) as refused:
        read_suites(groups, fetch, tmp_path, Policy(now=time.time()))

    assert refused.value.code in {"E_TRUST_NOKEYRING", "E_NET_HTTP"}
