"""What is built from a lock with the mirror gone is what was built from the mirror, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from provisioner import keep, lock, sources
from provisioner.deb.index import read_index
from provisioner.deb.trust import Release
from provisioner.distro import series
from provisioner.download import download
from provisioner.errors import DownloadFailed
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy
from provisioner.index import Package
from provisioner.progress import SILENT
from provisioner.provision import Facts, Tools, provision
from provisioner.release import read_suites
from provisioner.resolver import PackageSet, resolve
from provisioner.store import Layer, Store
from provisioner.tree import Tree
from runtime import idmap
from runtime.sandbox import KernelSandbox
from tests.archive import flat_apt
from tests.family import Mirror, architecture

pytestmark = pytest.mark.system


def chosen_from(mirror: Mirror, store: Store) -> tuple[PackageSet, tuple[Release, ...]]:
    """Return what base comes to at `mirror` today."""
    groups = sources.choose(
        mirror.distro, mirror.release, architecture(), mirror=mirror.url, keyring=mirror.keyring
    )
    with closing(HttpFetch({})) as fetch:
        releases, files = read_suites(groups, fetch, store.path, Policy(now=time.time()))
    return resolve(
        [f"{mirror.distro.name}-release"], read_index(files, store.cache / "lists", architecture())
    ), releases


def built(chosen: PackageSet, mirror: Mirror, store: Store, *, offline: bool) -> tuple[Layer, ...]:
    """Return the layers of `chosen`, built in `store`."""
    facts = Facts(
        distro=mirror.distro.name, release=mirror.release, arch=architecture(),
        merged_usr=series(mirror.distro, mirror.release).merged_usr,
    )  # fmt: skip
    with closing(HttpFetch({})) as fetch:

        def bring(packages: Sequence[Package]) -> None:
            download(packages, store.cache, fetch, SILENT, offline=offline)

        tools = Tools(store=store, sandbox=KernelSandbox(idmap.for_build()))
        return provision(chosen, Tree(nodes=()), facts, tools, bring)


def recorded(
    mirror: Mirror, chosen: PackageSet, releases: Sequence[Release], epoch: int
) -> lock.Lock:
    return lock.Lock(
        tool="mktemplate 0", distro=mirror.distro.name, release=mirror.release, arch=architecture(),
        epoch=epoch, sources=tuple(map(lock.provenance, releases)), chosen=chosen,
    )  # fmt: skip


def empty_store(path: Path) -> Store:
    store = Store(path / ".store")
    store.prepare()
    return store


def test_the_real_apt_chooses_the_same_essential_packages_from_a_lock(
    tmp_path: Path, family: Callable[[str], Mirror]
) -> None:
    mirror = family("devuan")
    with closing(empty_store(tmp_path / "one")) as store:
        chosen, releases = chosen_from(mirror, store)
    made = recorded(mirror, chosen, releases, 0)
    (tmp_path / "Packages").write_text(lock.write(made))
    flat_apt(tmp_path, "apt-get", "update")

    told = flat_apt(tmp_path, "apt-get", "-s", "install", "?essential", *chosen.wanted)

    installed = {line.split()[1] for line in told.splitlines() if line.startswith("Inst ")}
    assert installed == {package.name for package in chosen.packages}


def test_a_lock_gives_the_same_layers_offline(
    tmp_path: Path, family: Callable[[str], Mirror]
) -> None:
    mirror = family("kali")
    with (
        closing(empty_store(tmp_path / "one")) as first,
        closing(empty_store(tmp_path / "two")) as second,
    ):
        chosen, releases = chosen_from(mirror, first)
        layers = built(chosen, mirror, first, offline=False)
        made = recorded(mirror, chosen, releases, layers[-1].epoch)
        kept = keep.keep(made, tmp_path / "debs", beside=tmp_path, cache=first.cache)
        again = lock.read(lock.write(kept), "x.lock")
        keep.restore(again, beside=tmp_path, cache=second.cache)

        rebuilt = built(again.chosen, mirror, second, offline=True)

    assert [(each.digest, each.content) for each in rebuilt] == [
        (each.digest, each.content) for each in layers
    ]
    assert rebuilt[-1].epoch == again.epoch


def test_offline_without_the_files_says_exactly_which_are_missing(
    tmp_path: Path, family: Callable[[str], Mirror]
) -> None:
    mirror = family("kali")
    with closing(empty_store(tmp_path / "one")) as store:
        chosen, _ = chosen_from(mirror, store)

        with pytest.raises(DownloadFailed) as refused:
            built(chosen, mirror, store, offline=True)

    assert all(package.name in refused.value.subject for package in chosen.essential)
