"""What the store may forget, and whether what it keeps is still what it was."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from provisioner import content
from provisioner.deb import archive
from provisioner.disk import is_named
from provisioner.errors import StoreFailed
from provisioner.recovery import is_free, recover
from provisioner.store import Store
from valuetypes import dataclass

_ARCHIVES = ("cache/sha256", "cache/tar", "cache/partial")
_MADE = ("cache/jinja", "cache/texts")  # what is made anew in no time
_LISTS = "cache/lists"
_SIGNED = (".InRelease", ".Release")  # what was accepted last of each suite
_DIGEST = re.compile("[0-9a-f]{64}")
_LARGEST = 32 << 20  # bytes of a Release file


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What a collection removed, or would remove."""

    layers: tuple[str, ...] = ()
    downloads: int = 0  # files
    size: int = 0  # bytes
    busy: tuple[str, ...] = ()  # unused, but leased or locked by a running command


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification read, and what was not as it should be (now in quarantine/)."""

    downloads: int
    layers: int
    damaged: tuple[str, ...] = ()


def prune(
    store: Store,
    used: Callable[[], Collection[str]],
    *,
    layers: bool = True,
    downloads: bool = True,
    dry_run: bool = False,
) -> Freed:
    """Remove layers that are not in `used()` and leased by nobody, and all archives unless a build is reading them.

    With the archives go the indices that no accepted Release names any more, and the locks that nobody holds.
    `used` is asked again under the lease of each layer that goes: a container may have come into being meanwhile.
    With `dry_run` nothing is removed and the answer says what would be.
    """
    gone: list[str] = []
    busy: list[str] = []
    files = size = 0
    if not dry_run:
        recover(store)
    if layers:
        known = used()
        for name in _listed(store.path / "layers"):
            if name in known:
                continue
            freed = _drop_layer(store, name, used, dry_run=dry_run)
            (busy if freed is None else gone).append(name)
            size += freed or 0
    if downloads:
        files, freed_now = _drop_downloads(store, busy, dry_run=dry_run)
        size += freed_now
    if not dry_run:
        _drop_locks(store)
    return Freed(layers=tuple(gone), downloads=files, size=size, busy=tuple(busy))


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Hold the layer at `path` exclusively; False where somebody has leased it, or removed it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield is_free(fd) and is_named(fd, path)
    finally:
        os.close(fd)


def _drop_layer(
    store: Store, name: str, used: Callable[[], Collection[str]], *, dry_run: bool
) -> int | None:
    """Remove one layer and return its bytes; None where it is leased or came into use."""
    path = store.path / "layers" / name
    with _alone(path) as mine:
        if not mine or name in used():
            return None
        if dry_run:
            return store.among(path, _size)
        return store.trash(path)  # under the lease: whoever waits for it finds the layer gone


def _size(path: Path) -> int:
    return sum(entry.status.st_blocks * 512 for entry in content.walk(path))


def _drop_downloads(store: Store, busy: list[str], *, dry_run: bool) -> tuple[int, int]:
    """Remove archives and old indices, unless they are in use; return how many files and bytes."""
    try:
        with store.lock("downloads", wait=False):
            archives = _drop_archives(store, dry_run=dry_run)
            lists = _drop_lists(store, dry_run=dry_run)
    except StoreFailed as locked:
        if locked.code != "E_LOCKED":
            raise
        busy.append("downloads")
        return 0, 0
    return archives[0] + lists[0], archives[1] + lists[1]


def _drop_archives(store: Store, *, dry_run: bool) -> tuple[int, int]:
    """Remove the downloaded archives and their raw forms; return how many files and bytes."""
    files = size = 0
    for folder in (*_ARCHIVES, *_MADE):
        for path, status in _files(store.path / folder):
            files += 1
            size += status.st_blocks * 512
            if not dry_run:
                path.unlink(missing_ok=True)
    return files, size


def _drop_lists(store: Store, *, dry_run: bool) -> tuple[int, int]:
    """Remove the indices, and their maps, that are of releases gone by; return how many files and bytes."""
    folder = store.path / _LISTS
    named: set[str] = set()
    for name in _listed(folder):
        if name.endswith(_SIGNED):
            with (folder / name).open("rb") as file:
                named.update(_DIGEST.findall(file.read(_LARGEST).decode("ascii", "replace")))
    files = size = 0
    for name in _listed(folder):
        digest = name.partition(".")[0]
        if not _DIGEST.fullmatch(digest) or digest in named:
            continue
        files += 1
        size += os.lstat(folder / name).st_blocks * 512
        if not dry_run:
            (folder / name).unlink(missing_ok=True)
    return files, size


def _drop_locks(store: Store) -> None:
    """Remove the files of locks that nobody holds; who waits for one sees that it is gone and makes it anew."""
    folder = store.path / "locks"
    for name in _listed(folder):
        fd = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW)
        try:
            if is_free(fd) and is_named(fd, folder / name):
                (folder / name).unlink()
        finally:
            os.close(fd)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files of a cache folder and of the folders in it; nobody but us writes there."""
    for name in _listed(folder):
        status = os.lstat(folder / name)
        if stat.S_ISDIR(status.st_mode):
            yield from _files(folder / name)
        elif stat.S_ISREG(status.st_mode):
            yield folder / name, status


def verify(store: Store) -> Verified:
    """Hash all archives and layers again; move to quarantine/ what is not what its name or its record says.

    Nothing that is in quarantine is used: it is fetched, or built, again.
    """
    damaged: list[str] = []
    layers = 0
    with store.lock("downloads", shared=True):
        archives = _verify_archives(store, damaged)
    for layer in _layer_names(store, damaged):
        layers += 1
        path = store.path / "layers" / layer
        found = store.layer(layer)
        if found is not None and store.among(found.path, content.digest) != found.content:
            damaged.append(f"layers/{layer}")
            os.rename(path, store.path / "quarantine" / f"{layer}.{secrets.token_hex(4)}")
    return Verified(downloads=archives, layers=layers, damaged=tuple(damaged))


def _verify_archives(store: Store, damaged: list[str]) -> int:
    archives = 0
    for folder, sound in (("cache/sha256", _is_sound_download), ("cache/tar", _is_sound_raw)):
        for path, _ in _files(store.path / folder):
            archives += 1
            if not sound(path):
                damaged.append(f"{folder}/{path.name}")
                os.rename(path, store.path / "quarantine" / f"{path.name}.{secrets.token_hex(4)}")
    return archives


def _layer_names(store: Store, damaged: list[str]) -> Iterator[str]:
    """Yield the layers whose record can be read; the others are damaged by that alone."""
    for name in _listed(store.path / "layers"):
        try:
            store.layer(name)
        except StoreFailed:
            damaged.append(f"layers/{name}")
            place = store.path / "quarantine" / f"{name[:64]}.{secrets.token_hex(4)}"
            os.rename(store.path / "layers" / name, place)
        else:
            yield name


def _is_sound_download(path: Path) -> bool:
    with path.open("rb") as file:
        return archive.file_sha256(file.fileno()) == path.name


def _is_sound_raw(path: Path) -> bool:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        return archive.split_raw(view) is not None
