"""Archives kept beside a lock, so that it can be built when no mirror has them any more.

What is beside a lock is input like a mirror's: it comes into the cache only where size and hash are those of the lock.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from provisioner.disk import disk_error, disk_failures
from provisioner.download import object_path
from provisioner.errors import ProvisionError, StoreFailed, UntrustedIndex
from provisioner.index import Package
from provisioner.lock import Lock, archive_name
from provisioner.part import hashed, part, regular_size
from valuetypes import replace

_CHUNK = 1 << 20  # bytes
_INSIDE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9+._~-]*/)*", re.ASCII)


def keep(lock: Lock, folder: Path, *, beside: Path, cache: Path) -> Lock:
    """Copy the archives of `lock` from the cache into `folder`; return the lock that names them there.

    `beside` is the folder of the lock's own file. Raises E_PARAM where `folder` is not below it, E_NOTFOUND where the
    cache lacks an archive (download them first), E_CORRUPT where it is damaged, E_NOSPACE ….
    """
    inside = _below(folder, beside)
    with disk_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for package in lock.chosen.packages:
        source, target = object_path(cache, package.sha256), folder / archive_name(package)
        if hashed(target) == (package.sha256, package.size):
            continue
        try:
            _copy(package, source, target, folder / f".{package.sha256}.partial")
        except FileNotFoundError:
            raise _absent(package, "its archive is not in the cache", "download it first") from None
        except UntrustedIndex:
            hints = ("run `mktemplate store verify`",)
            raise StoreFailed(
                "E_CORRUPT", str(source), "differs from its name", hints=hints
            ) from None
    files = tuple(f"{inside}{archive_name(each)}" for each in lock.chosen.packages)
    return replace(lock, files=files)


def restore(lock: Lock, *, beside: Path, cache: Path) -> int:
    """Bring what lies beside the lock into the cache; return how many archives that were.

    Raises E_TRUST_HASH where a file is there and is not the one that the lock means, E_NOTFOUND where a package that
    no mirror ever had is neither beside the lock nor in the cache, E_NOSPACE ….
    """
    taken = 0
    for package, file in zip(lock.chosen.packages, lock.files, strict=bool(lock.files)):
        target = object_path(cache, package.sha256)
        if regular_size(target) == package.size:
            continue
        try:
            _copy(package, beside / file, target, cache / "partial" / package.sha256)
            taken += 1
        except FileNotFoundError:
            if not package.url:
                why = "was given as a file, and no mirror has it"
                raise _absent(package, why, f"put it beside the lock as {file}") from None
        except UntrustedIndex:
            raise UntrustedIndex(
                "E_TRUST_HASH", str(beside / file), "is not the archive that the lock names",
                hints=("remove it, or run `mktemplate lock --fetch DIR FILE` again",),
            ) from None  # fmt: skip
    return taken


def _absent(package: Package, detail: str, hint: str) -> StoreFailed:
    return StoreFailed("E_NOTFOUND", package.name, detail, hints=(hint,))


def _below(folder: Path, beside: Path) -> str:
    """Return the path from `beside` to `folder` as the start of a Filename, which may not climb (D-13)."""
    try:
        parts = folder.absolute().relative_to(beside.absolute()).parts
        inside = "".join(f"{part}/" for part in parts)
    except ValueError:
        inside = ".."
    if not _INSIDE.fullmatch(inside):
        raise ProvisionError(
            "E_PARAM", str(folder), f"is not a plain folder below {beside}, where the lock is",
            hints=("files are named relative to the lock: choose a folder beside it",),
        )  # fmt: skip
    return inside


def _copy(package: Package, source: Path, target: Path, partial: Path) -> None:
    """Make `target` the archive of `package`, from `source`, whole or not at all; it may be there already.

    Raises FileNotFoundError where there is no source, E_TRUST_HASH where it is another file.
    """
    whole = (package.sha256, package.size)
    with (
        _opened(source, package) as stream,
        part(partial, package.size, lambda: hashed(target) == whole) as out,
    ):
        if out is None:
            return
        out.seek(0)  # what a broken run left is not worth a resumption
        out.truncate()
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
        out.commit(target, package.sha256, str(source))


@contextmanager
def _opened(path: Path, package: Package) -> Iterator[BufferedReader]:
    """Open a regular file that is as large as the archive of `package`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise disk_error(problem, path) from problem
    with open(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != package.size:
            raise UntrustedIndex("E_TRUST_SIZE", str(path), f"is no file of {package.size} bytes")
        yield stream
