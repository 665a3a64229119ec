"""Where an export goes: whole under its name or not at all, also over a power cut."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from provisioner.disk import disk_error, fsync_directory
from provisioner.errors import StoreFailed


@contextmanager
def file(target: Path) -> Iterator[BinaryIO]:
    """Open what becomes the file `target` when the block ends well; 0600, for it holds what only root reads inside."""
    _folder(target)
    try:
        fd, draft = _anonymous(target)
        try:
            with open(fd, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(fd)
                if not draft.exists():
                    _name(fd, draft)
            draft.replace(target)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
        fsync_directory(target.parent)
    except OSError as problem:
        raise disk_error(problem, target) from problem


def _name(fd: int, draft: Path) -> None:
    """Give the nameless file its name (open(2), O_TMPFILE)."""
    folder = os.open(draft.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The descriptor makes it linkat(2) with AT_SYMLINK_FOLLOW.
        os.link(f"/proc/self/fd/{fd}", draft.name, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _anonymous(target: Path) -> tuple[int, Path]:
    """Open a file beside `target` that has no name as long as it is not whole, where its file system has such files.

    Return it and the name that it is to have in between, or has already.
    """
    draft = _draft(target)
    try:
        return os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o600), draft
    except OSError as problem:
        if problem.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), draft


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """Make what becomes the directory `target`, which is not there yet, when the block ends well."""
    _folder(target)
    if os.path.lexists(target):
        raise StoreFailed("E_EXISTS", str(target), "already exists", hints=("name another folder",))
    draft = _draft(target)
    try:
        draft.mkdir(mode=0o755)
        yield draft
        _settle(draft)
        draft.rename(target)
        fsync_directory(target.parent)
    except OSError as problem:
        raise disk_error(problem, target) from problem
    finally:
        _remove(draft)


def _folder(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        raise StoreFailed("E_EXISTS", str(target), "is a directory")
    if not target.parent.is_dir():
        raise StoreFailed("E_PARAM", str(target), "its folder is not there")


def _draft(target: Path) -> Path:
    return target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}")


def _settle(draft: Path) -> None:
    """Have all of our own `draft` on disk."""
    for top, folders, names in os.walk(draft):
        for name in names:
            fd = os.open(Path(top, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        for name in folders:
            fsync_directory(Path(top, name))


def _remove(draft: Path) -> None:
    """Remove our own `draft`, in which nobody else wrote."""
    if not draft.is_dir():
        return
    for top, folders, names in os.walk(draft, topdown=False):
        for name in names:
            Path(top, name).unlink()
        for name in folders:
            Path(top, name).rmdir()
    draft.rmdir()
