"""Every package's archive in the cache, once a machine: fetched under its signed size, hashed while it comes (D-14).

The cache is `<store>/cache`: `sha256/aa/<hex>` holds what is whole, `partial/<hex>` what is on its way.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from provisioner import disk
from provisioner.errors import DownloadFailed, ProvisionError, UntrustedIndex
from provisioner.fetch import Fetch
from provisioner.index import Package
from provisioner.part import part, regular_size
from provisioner.progress import Advance, Progress
from provisioner.workers import in_threads
from valuetypes import dataclass

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PIECE = 1 << 20  # bytes


def object_path(cache: Path, sha256: str) -> Path:
    """Return where the cache keeps the file with this hash."""
    if not _DIGEST.fullmatch(sha256):  # it becomes a path
        raise UntrustedIndex("E_TRUST_FIELD", sha256[:80], "is no SHA-256")
    return cache / "sha256" / sha256[:2] / sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A file of the caller's, copied, that has no name yet."""

    descriptor: int
    sha256: str
    size: int


@contextmanager
def admit(file: BinaryIO, cache: Path) -> Iterator[Copy]:
    """Copy an open file into the cache: it is there, whole and durable, when the block ends, unless that raises."""
    unnamed = os.open(cache / "sha256", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o444)
    with open(unnamed, "w+b") as copy:
        found = hashlib.sha256()
        while piece := file.read(_PIECE):
            found.update(piece)
            copy.write(piece)
        copy.flush()
        yield Copy(descriptor=unnamed, sha256=found.hexdigest(), size=copy.tell())
        target = object_path(cache, found.hexdigest())
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        disk.name(unnamed, target)


def cached(package: Package, cache: Path) -> Path | None:
    """Return the archive of `package` where the cache has it, else None.

    It is hashed while it is unpacked (D-15), not here; one of another size is damaged and does not count.
    """
    path = object_path(cache, package.sha256)
    return path if regular_size(path) == package.size else None


def download(
    packages: Iterable[Package],
    cache: Path,
    fetch: Fetch,
    progress: Progress,
    *,
    offline: bool = False,
    connections: int = 4,
) -> None:
    """Bring the archive of each package into `cache`, or raise DownloadFailed, UntrustedIndex, StoreFailed."""
    absent = {each.sha256: each for each in packages if cached(each, cache) is None}
    if offline and absent:
        raise _unreachable(tuple(absent.values()))
    if not absent:
        return
    wanted = tuple(absent.values())
    with progress.phase("download", sum(each.size for each in wanted)) as advance:
        crew = _Crew(cache, fetch, advance)
        try:
            in_threads(crew.obtain, wanted, connections)
        finally:
            crew.stop()


class _Stopped(DownloadFailed):
    """Another download failed, so this one ends too."""


class _Crew:
    """What the connections of one run share."""

    def __init__(self, cache: Path, fetch: Fetch, advance: Advance) -> None:
        self._cache = cache
        self._fetch = fetch
        self._told = advance
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the downloads that still run end at their next byte; their partial files stay, to be resumed."""
        self._stopped.set()

    def obtain(self, package: Package) -> None:
        """Fetch one archive, from the first mirror that has it whole and right."""
        failures: list[ProvisionError] = []
        for url in self._fetch.places(package.url):
            try:
                self._obtain(package, url)
                return
            except _Stopped:
                raise
            except (DownloadFailed, UntrustedIndex) as failure:
                failures.append(failure)
        raise failures[0]

    def _obtain(self, package: Package, url: str) -> None:
        """Fetch from one mirror. Two runs share the work: whoever comes second waits and finds it done."""
        target = object_path(self._cache, package.sha256)
        partial = self._cache / "partial" / package.sha256

        def exists() -> bool:
            return regular_size(target) == package.size

        with part(partial, package.size, exists) as out:
            if out is None:
                self._advance(package.size)
                return
            resumed = out.length
            self._advance(resumed)
            try:
                self._fetch.download(
                    url, out, offset=resumed, size=package.size, advance=self._advance
                )
                out.commit(target, package.sha256, f"{package.name} {package.version} ({url})")
                return
            except (DownloadFailed, UntrustedIndex) as failure:
                self._advance(-out.length)
                if not resumed or not isinstance(failure, UntrustedIndex):
                    raise
        self._obtain(
            package, url
        )  # what was resumed was not the beginning of this file; it is gone now

    def _advance(self, count: int) -> None:
        with self._lock:
            if self._stopped.is_set():
                raise _Stopped("E_NET_CONNECT", "download", "stopped")
            self._told(count)


def _unreachable(packages: Sequence[Package]) -> DownloadFailed:
    names = ", ".join(f"{each.name} {each.version}" for each in packages)
    return DownloadFailed(
        "E_NET_CONNECT",
        names,
        f"{len(packages)} of the archives are not in the cache, and the run is offline",
        hints=("run once without --offline",),
    )
