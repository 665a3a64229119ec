"""The Packages files that a verified Release names, from whichever mirror has them: their hashes decide (D-12)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from provisioner.deb import flat
from provisioner.deb.index import IndexFile
from provisioner.deb.trust import Release
from provisioner.errors import DownloadFailed, ProvisionError, UntrustedIndex
from provisioner.fetch import Fetch, Missing
from provisioner.part import hashed, part, regular_size
from provisioner.workers import in_threads


def fetch_indexes(
    releases: Sequence[Release], fetch: Fetch, lists: Path, *, offline: bool = False
) -> tuple[IndexFile, ...]:
    """Return every Packages file that the sources of `releases` want, in the order in which apt would read them."""
    wanted = [
        (release, component, arch)
        for release in releases
        for component in release.source.components
        for arch in release.index_arches
        if release.index(component, arch) is not None or arch != "all"
    ]

    def bring(each: tuple[Release, str, str]) -> IndexFile:
        path = fetch_index(*each, fetch, lists, offline=offline)
        return _index_file(*each, path)

    # Threads wait for a network; to look what is here, and most is, they only cost.
    alone = offline or all(_is_here(*each, lists) for each in wanted)
    return tuple(in_threads(bring, wanted, 1 if alone else 4))


def _is_here(release: Release, component: str, arch: str, lists: Path) -> bool:
    found = release.index(component, arch)
    return found is not None and flat.place(lists, found[1]).exists()


def _index_file(release: Release, component: str, arch: str, path: Path) -> IndexFile:
    plain = release.plain_index(component, arch)
    found = release.index(component, arch)
    if plain is None or found is None:
        raise UntrustedIndex(
            "E_TRUST_NOHASH",
            f"{release.mirror}/dists/{release.source.suite}",
            f"signs no hash of the plain Packages file of {component}",
        )
    third_party = release.source.role == "extra"
    return IndexFile(
        path=path,
        sha256=found[1],
        plain_sha256=plain[0],
        plain_size=plain[1],
        base_url=release.mirror,
        origin=release.origin,
        suite=release.source.suite,
        component=component,
        only=(release.source.only or ()) if third_party else None,
    )


def fetch_index(
    release: Release,
    component: str,
    arch: str,
    fetch: Fetch,
    lists: Path,
    *,
    offline: bool = False,
) -> Path:
    """Return the compressed Packages file of a component and architecture, its size and hash checked (D-12).

    `arch` is one of `release.index_arches`. The file is `lists/<sha256>` with its ending; what is there already is
    taken after it was hashed again, or unread where its tables were made: whoever decodes it hashes it then.
    """
    found = release.index(component, arch)
    if found is None:
        raise UntrustedIndex(
            "E_TRUST_COMPONENT",
            f"{release.mirror}/dists/{release.source.suite}",
            f"signs no Packages file for {component} on {arch}",
            hints=("is the mirror complete?",),
        )
    name, sha256, size = found
    target = lists / f"{sha256}{name.rpartition('/Packages')[2]}"
    if _is_decoded(target, sha256, size) or hashed(target) == (sha256, size):
        return target
    if offline:
        raise DownloadFailed(
            "E_NET_CONNECT",
            f"{release.source.suite}/{name}",
            "is not in the cache, and the run is offline",
            hints=("run once without --offline",),
        )
    problems: list[ProvisionError] = []
    for url in fetch.places(_index_url(release, name, sha256)):
        try:
            return _bring(url, target, (sha256, size), fetch)
        except Missing:
            problems.append(_updating(release, url))
        except (DownloadFailed, UntrustedIndex) as problem:
            problems.append(problem)
    raise problems[0]


def _is_decoded(target: Path, sha256: str, size: int) -> bool:
    return regular_size(target) == size and flat.place(target.parent, sha256).exists()


def _bring(url: str, target: Path, signed: tuple[str, int], fetch: Fetch) -> Path:
    """Fetch one index as `target`, unless another run does it meanwhile."""
    sha256, size = signed
    partial = target.parent / "partial" / sha256
    with part(partial, size, lambda: hashed(target) == signed) as out:
        if out is not None:
            out.seek(0)  # an index is small: what a broken run left is not worth a resumption
            out.truncate()
            fetch.download(url, out, offset=0, size=size, advance=lambda count: None)
            out.commit(target, sha256, url)
    return target


def _index_url(release: Release, name: str, sha256: str) -> str:
    base = f"{release.mirror}/dists/{release.source.suite}"
    folder = name.rpartition("/")[0]
    return f"{base}/{folder}/by-hash/SHA256/{sha256}" if release.by_hash else f"{base}/{name}"


def _updating(release: Release, url: str) -> UntrustedIndex:
    if release.replayed:
        return UntrustedIndex(
            "E_TRUST_ROLLBACK",
            url,
            "every mirror has an older state than the one accepted before, and not that one's index",
            hints=("try again later, or another mirror",),
        )
    return UntrustedIndex(
        "E_MIRROR_STALE",
        url,
        "is missing: the mirror is being updated",
        hints=("try again, or another mirror",),
    )
