"""Archives kept beside a lock, so that it can be built when no mirror has them any more.

What is beside a lock is input like a mirror's: it comes into the cache only where size and hash are those of the lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BufferedReader
from pathlib import Path

from provisioner.download import object_path
from provisioner.errors import ProvisionError, StoreFailed, UntrustedIndex
from provisioner.index import Package
from provisioner.lock import Lock, archive_name

_CHUNK = 1 << 20  # bytes
_INSIDE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9+._~-]*/)*", re.ASCII)


def keep(lock: Lock, folder: Path, *, beside: Path, cache: Path) -> Lock:
    """Copy the archives of `lock` from the cache into `folder`; return the lock that names them there.

    `beside` is the folder of the lock's own file. Raises E_PARAM where `folder` is not below it, E_NOTFOUND where the
    cache lacks an archive (download them first), E_CORRUPT where it is damaged.
    """
    inside = _below(folder, beside)
    folder.mkdir(parents=True, exist_ok=True)
    for package in lock.chosen.packages:
        source, target = object_path(cache, package.sha256), folder / archive_name(package)
        if _is(target, package):
            continue
        try:
            _copy(source, target, package, 0o644)
        except FileNotFoundError:
            raise StoreFailed(
                "E_NOTFOUND",
                package.name,
                "its archive is not in the cache",
                hints=("download it first",),
            ) from None
        except _Differs:
            raise StoreFailed(
                "E_CORRUPT",
                str(source),
                "differs from its name",
                hints=("run `mktemplate store verify`",),
            ) from None
    files = tuple(f"{inside}{archive_name(each)}" for each in lock.chosen.packages)
    return replace(lock, files=files)


def restore(lock: Lock, *, beside: Path, cache: Path) -> int:
    """Bring what lies beside the lock into the cache; return how many archives that were.

    Raises E_TRUST_HASH where a file is there and is not the one that the lock means, E_NOTFOUND where a package that
    no mirror ever had is neither beside the lock nor in the cache.
    """
    taken = 0
    for package, file in zip(lock.chosen.packages, lock.files, strict=bool(lock.files)):
        target = object_path(cache, package.sha256)
        if target.exists():
            continue
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _copy(beside / file, target, package, 0o444)
        except FileNotFoundError:
            if not package.url:
                raise _nowhere(package) from None
            continue
        except _Differs:
            raise UntrustedIndex(
                "E_TRUST_HASH", str(beside / file), "is not the archive that the lock names",
                hints=("remove it, or run `mktemplate lock --fetch DIR FILE` again",),
            ) from None  # fmt: skip
        taken += 1
    return taken


def _nowhere(package: Package) -> StoreFailed:
    hints = ("put it beside the lock under the name that Filename gives it",)
    return StoreFailed(
        "E_NOTFOUND", package.name, "was given as a file, and no mirror has it", hints=hints
    )


class _Differs(Exception):
    """A file has other bytes than were expected."""


def _below(folder: Path, beside: Path) -> str:
    """Return the path from `beside` to `folder` as the start of a Filename, which may not climb (D-13)."""
    try:
        inside = "".join(
            f"{part}/" for part in folder.absolute().relative_to(beside.absolute()).parts
        )
    except ValueError:
        inside = ".."
    if not _INSIDE.fullmatch(inside):
        raise ProvisionError(
            "E_PARAM", str(folder), f"is not a plain folder below {beside}, where the lock is",
            hints=("files are named relative to the lock: choose a folder beside it",),
        )  # fmt: skip
    return inside


def _is(path: Path, package: Package) -> bool:
    with suppress(FileNotFoundError, _Differs), _regular(path, package) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == package.sha256
    return False


@contextmanager
def _regular(path: Path, package: Package) -> Iterator[BufferedReader]:
    """Open a file that is regular and as large as the archive of `package`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != package.size:
            raise _Differs(path)
        yield stream


def _copy(source: Path, target: Path, package: Package, mode: int) -> None:
    """Make `target` a copy of `source`, whole and with the hash of `package`, or not at all."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    digest = hashlib.sha256()
    with _regular(source, package) as stream:
        try:
            with draft.open("xb") as out:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
                os.fchmod(out.fileno(), mode)
                os.fsync(out.fileno())
            if digest.hexdigest() != package.sha256:
                raise _Differs(source)
            os.rename(draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
