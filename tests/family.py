"""Whole distributions for tests: the host's own Essential packages, repacked and re-signed as another one's archive.

Only the mirror of the host's own distribution can be counted on. So its Essential closure is fetched by apt, its
packages are made what the wanted distribution's are (zstd for Ubuntu; a base-files without the links to usr/ wherever
the row says that these are made before the first package), and the archive is signed with the session's key.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from provisioner.distro import Distro, find, series
from tests.archive import DAY, Deb, Key, Served, Suite, pack, publish, serve
from tests.conftest import lacking

COMPRESSION = {"ubuntu": "zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """An archive of one distribution, served, with what the command needs to use it."""

    distro: Distro
    release: str
    served: Served
    keyring: Path
    names: frozenset[str]  # of the packages in its release suite

    @property
    def url(self) -> str:
        """Return what --mirror takes."""
        return f"{self.served.url}/{self.distro.name}"

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options with which the command uses it."""
        return (
            "--distro", self.distro.name, "--release", self.release,
            "--mirror", self.url, "--keyring", str(self.keyring),
        )  # fmt: skip


def fetch_essential(folder: Path, *more: str) -> tuple[Path, ...]:
    """Have apt download the host's Essential closure and `more` into `folder`; return the archives."""
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = (
        "Dir::State::status=/dev/null", f"Dir::Cache::archives={folder}", "Debug::NoLocking=1",
        "APT::Install-Recommends=0", "APT::Sandbox::User=root", "pkgCacheGen::ForceEssential=,",
    )  # fmt: skip
    done = subprocess.run(
        ["apt-get", "-qq", "-y", *(word for each in options for word in ("-o", each)),
         "--download-only", "install", "?essential", *more],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        lacking(f"an apt that can fetch its Essential packages ({done.stderr.strip()[-200:]})")
    return tuple(sorted(folder.glob("*.deb")))


def architecture() -> str:
    """Return the host's architecture as dpkg calls it."""
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


def repack(debs: tuple[Path, ...], folder: Path, distro: Distro) -> tuple[Path, ...]:
    """Return `debs` as `distro` would have built them."""
    compression = COMPRESSION.get(distro.name, "xz")
    folder.mkdir(parents=True, exist_ok=True)

    def one(deb: Path) -> Path:
        base = deb.name.startswith("base-files_")
        return _repack(deb, folder, distro, compression) if base or compression != "xz" else deb

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(one, debs))


def _repack(deb: Path, folder: Path, distro: Distro, compression: str) -> Path:
    tree, target = folder / f"{deb.stem}.tree", folder / deb.name
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True, timeout=60)
    if deb.name.startswith("base-files_"):
        _rebrand(tree, distro)
    pack(tree, target, compression)
    subprocess.run(["rm", "-rf", "--", tree], check=True, timeout=60)
    return target


def _rebrand(tree: Path, distro: Distro) -> None:
    """Make base-files another distribution's: without links to usr/, with its name in os-release."""
    for link in tree.iterdir():
        if link.is_symlink() and str(link.readlink()).startswith("usr/"):
            link.unlink()
    release = tree / "usr/lib/os-release"
    old = hashlib.md5(release.read_bytes()).hexdigest()
    lines = [
        line
        for line in release.read_text().split("\n")
        if line.partition("=")[0] not in {"ID", "NAME"}
    ]
    release.write_text("\n".join([f'NAME="{distro.title}"', f"ID={distro.name}", *lines]))
    new = hashlib.md5(release.read_bytes()).hexdigest()
    sums = tree / "DEBIAN/md5sums"
    sums.write_text(sums.read_text().replace(old, new))


def publish_family(
    root: Path, distro: Distro, release: str, debs: tuple[Path, ...], key: Key
) -> str:
    """Publish `debs` as the first suite of `release`, its other suites with one newer toy each; return its name."""
    row = series(distro, release)
    for suite in row.suites:
        extra = Deb(name=f"{distro.name}-{suite.role}", version="2.0")
        first, *others = distro.components
        packages: dict[str, tuple[Deb | Path, ...]] = dict.fromkeys(others, ())
        packages[first] = (*debs, extra) if suite.role == "release" else (extra,)
        publish(
            root / distro.name,
            Suite(
                name=suite.name, origin=suite.origin, label=suite.label or distro.title,
                codename=suite.codename, arch=architecture(), debs=packages,
                valid=None if suite.role == "release" and len(row.suites) > 1 else 7 * DAY,
            ),
            key,
        )  # fmt: skip
    return row.name


@pytest.fixture(scope="session")
def essential_debs(
    tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]
) -> tuple[Path, ...]:
    """Return the archives of the host's Essential closure."""
    needs("apt-get", "dpkg")
    return fetch_essential(tmp_path_factory.mktemp("essential"))


@pytest.fixture(scope="session")
def family(
    tmp_path_factory: pytest.TempPathFactory, essential_debs: tuple[Path, ...], archive_key: Key
) -> Iterator[Callable[[str], Mirror]]:
    """Return a function that gives the mirror of a distribution; each is made once."""
    root = tmp_path_factory.mktemp("family")
    root.chmod(0o755)
    made: dict[str, Mirror] = {}

    def mirror(name: str) -> Mirror:
        if name not in made:
            distro = find(name)
            debs = repack(essential_debs, root / "repacked" / name, distro)
            release = publish_family(root, distro, "", debs, archive_key)
            made[name] = Mirror(
                distro=distro, release=release, served=served, keyring=archive_key.keyring,
                names=frozenset(deb.name.partition("_")[0] for deb in debs),
            )  # fmt: skip
        return made[name]

    with serve(root) as served:
        yield mirror
