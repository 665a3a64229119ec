"""A file on its way into the store: `partial/<sha256>` until every byte is there and hashed, then an object.

The partial file is also the lock: who holds it downloads, whoever else wants the object waits and finds it done.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioner.disk import disk_failures, hold
from provisioner.errors import ProvisionError, UntrustedIndex

_CHUNK = 1 << 20  # bytes


class Part:
    """The bytes of one object so far, hashed as they come. Made by `part`."""

    def __init__(self, descriptor: int, path: Path) -> None:
        """Begin with what an earlier run left, hashed again: only then may it be continued (D-14)."""
        self.path = path
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self.length = 0
        self._take_over()

    def _take_over(self) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        while count := os.readv(self._descriptor, [buffer]):
            self._hash.update(buffer[:count])
            self.length += count

    def write(self, data: bytes | memoryview, /) -> int:
        """Append all of `data`."""
        view = memoryview(data)
        with disk_failures(self.path):
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
        self._hash.update(view)
        self.length += len(view)
        return len(view)

    def seek(self, offset: int, /) -> int:
        """Go to the start, to write it anew."""
        if offset:
            raise ValueError("a part is only begun anew")
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash, self.length = hashlib.sha256(), 0
        return 0

    def truncate(self) -> int:
        """Drop everything behind the position."""
        os.ftruncate(self._descriptor, self.length)
        return self.length

    def commit(self, target: Path, sha256: str, subject: str) -> None:
        """Make it the object `target`, whole and durable, if its hash is right; else drop it, E_TRUST_HASH."""
        if self._hash.hexdigest() != sha256:
            with disk_failures(self.path):
                os.unlink(self.path)
            raise UntrustedIndex(
                "E_TRUST_HASH",
                subject,
                f"its SHA-256 is {self._hash.hexdigest()[:16]}…, signed is {sha256[:16]}…",
                hints=("the mirror is damaged or not to be trusted: try another one",),
            )
        with disk_failures(target):
            os.fsync(self._descriptor)
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.rename(self.path, target)
            os.fchmod(
                self._descriptor, 0o444
            )  # last: a part must stay one that its owner can go on with


@contextmanager
def part(path: Path, size: int, exists: Callable[[], bool]) -> Iterator[Part | None]:
    """Hold the partial file `path`, alone; None where the object exists by the time that it is ours.

    A leftover longer than `size` is begun anew.
    """
    descriptor = _locked(path, exists)
    if descriptor is None:
        yield None
        return
    try:
        with disk_failures(path):
            held = Part(descriptor, path)
            if held.length > size:
                held.seek(0)
                held.truncate()
        yield held
    finally:
        os.close(descriptor)


def _locked(path: Path, exists: Callable[[], bool]) -> int | None:
    """Return a descriptor of `path` that holds its lock and is still the file of that name."""
    with disk_failures(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if exists():
            return None
        descriptor = hold(path)
        if not exists():
            return descriptor
        os.unlink(path)  # whoever held it has finished meanwhile
        os.close(descriptor)
    return None


def regular_size(path: Path) -> int:
    """Return the size of a regular file in bytes, -1 where there is none."""
    try:
        facts = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return -1
    return facts.st_size if stat.S_ISREG(facts.st_mode) else -1


def hashed(path: Path) -> tuple[str, int] | None:
    """Return SHA-256 and size of a regular file, None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ProvisionError("E_IO", str(path), problem.strerror or "cannot be read") from None
    with open(descriptor, "rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), os.fstat(descriptor).st_size
