"""What is kept below PATH/.store/cache so that it is made once: by the names of what it was made from.

What is found there decides what a container is, or is even executed, with the caller's rights. So it is only taken from
a folder that nobody but the caller can reach (`is_ours`), and if its own hash is right: that one is for what a power
cut left, not against a person, who could not have written here. Failing to keep something is no failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from pathlib import Path

from mktemplate import __version__
from provisioner.disk import write_once
from valuetypes import dataclass

_LARGEST = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """One folder of such things."""

    folder: Path

    def find(self, *made_from: object) -> bytes:
        """Return what was kept of what is made from these; nothing where it is not there, or is damaged."""
        with contextlib.suppress(OSError):
            body = _read(self._place(made_from))
            if hashlib.sha256(body[32:]).digest() == body[:32]:
                return body[32:]
        return b""

    def keep(self, body: bytes, *made_from: object) -> None:
        """Keep `body` in place of what is there: whole or not at all, and nothing beside it."""
        place = self._place(made_from)
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            place.unlink(missing_ok=True)  # what is there was not good enough to be taken
            write_once(place, hashlib.sha256(body).digest() + body, durable=False)

    def _place(self, made_from: tuple[object, ...]) -> Path:
        program = (__version__, sys.implementation.cache_tag, hex(sys.hexversion))
        return self.folder / hashlib.sha256(repr((*made_from, *program)).encode()).hexdigest()


def kept(cache: Path, name: str) -> Kept | None:
    """Return the folder `name` below `cache`; None where others may have written there."""
    return Kept(cache / name) if is_ours(cache) else None


def is_ours(folder: Path) -> bool:
    """Whether nobody but the caller and root can put something into `folder`, or something else in its place."""
    user = os.geteuid()
    place = Path(os.path.realpath(folder))
    own = os.stat(place)
    if own.st_uid != user or own.st_mode & 0o077:
        return False
    return all(_is_closed(os.stat(above), user) for above in place.parents)


def _is_closed(status: os.stat_result, user: int) -> bool:
    """Whether others can neither rename nor replace what a directory holds; a sticky one guards each owner's."""
    if status.st_uid not in (0, user):
        return False
    return not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX)


def _read(place: Path) -> bytes:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        return file.read(_LARGEST)
