"""The code that Jinja makes of trusted templates, kept below PATH so that each is compiled once.

What is loaded is executed with the caller's rights. So it is only taken from a folder that nobody but the caller can
reach (`is_ours`), by a name that is the hash of everything it was made from, and if its own hash is right: that one
is for what a power cut left, not against a person, who could not have written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import stat
import sys
from pathlib import Path

from jinja2 import BytecodeCache, Environment
from jinja2 import __version__ as jinja
from jinja2.bccache import Bucket

from mktemplate import __version__
from provisioner.disk import write_once

FOLDER = "jinja"  # below PATH/.store/cache
_LARGEST = 1 << 20  # bytes


class Compiled(BytecodeCache):
    """The folder `PATH/.store/cache/jinja`, as Jinja asks for it. Failing to keep something is no failure."""

    def __init__(self, folder: Path) -> None:
        """Keep code in `folder`, made where it is missing."""
        self._folder = folder

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Return what names the template in tracebacks, beside its source."""
        return filename or name

    def get_source_checksum(self, source: str) -> str:
        """Return the hash of a template's text; Jinja's own is SHA-1."""
        return hashlib.sha256(source.encode()).hexdigest()

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket where its code is kept."""
        with contextlib.suppress(OSError):
            body = _read(self._folder / _name(bucket))
            if hashlib.sha256(body[32:]).digest() == body[:32]:
                bucket.code = marshal.loads(body[32:])  # noqa: S302  # ours: see above

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the code of the bucket: whole or not at all, and nothing beside it."""
        code = marshal.dumps(bucket.code)
        place = self._folder / _name(bucket)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            place.unlink(missing_ok=True)  # what is there was not good enough to be loaded
            write_once(place, hashlib.sha256(code).digest() + code, durable=False)


def kept(cache: Path) -> Compiled | None:
    """Return the code that is kept below `cache`; None where others may have written there."""
    return Compiled(cache / FOLDER) if is_ours(cache) else None


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


def _name(bucket: Bucket) -> str:
    made_from = (
        bucket.key,
        bucket.checksum,
        *(__version__, jinja, sys.implementation.cache_tag, hex(sys.hexversion)),
        _options(bucket.environment),
    )
    return hashlib.sha256(repr(made_from).encode()).hexdigest()


def _options(environment: Environment) -> str:
    """Return what of the environment decides about the code that it makes."""
    sandbox: frozenset[str] = getattr(environment, "intercepted_binops", frozenset())
    syntax = (environment.trim_blocks, environment.lstrip_blocks, environment.keep_trailing_newline)
    return repr((type(environment).__name__, sorted(sandbox), syntax, sorted(environment.filters)))


def _read(place: Path) -> bytes:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        return file.read(_LARGEST)
