"""The code that Jinja makes of trusted templates, kept below PATH so that each is compiled once (see `keeping`)."""

from __future__ import annotations

import hashlib
import marshal
from pathlib import Path

from jinja2 import BytecodeCache, Environment
from jinja2 import __version__ as jinja
from jinja2.bccache import Bucket

from mktemplate.template.keeping import Kept, kept

FOLDER = "jinja"  # below PATH/.store/cache


class Compiled(BytecodeCache):
    """The folder `PATH/.store/cache/jinja`, as Jinja asks for it."""

    def __init__(self, place: Kept) -> None:
        """Keep code in `place`."""
        self._kept = place

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Return what names the template in tracebacks, beside its source."""
        return filename or name

    def get_source_checksum(self, source: str) -> str:
        """Return the hash of a template's text; Jinja's own is SHA-1."""
        return hashlib.sha256(source.encode()).hexdigest()

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket where its code is kept."""
        code = self._kept.find(*_made_from(bucket))
        if code:
            bucket.code = marshal.loads(code)  # noqa: S302  # ours, see `keeping`

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the code of the bucket."""
        self._kept.keep(marshal.dumps(bucket.code), *_made_from(bucket))


def compiled(cache: Path | None) -> Compiled | None:
    """Return the code that is kept below `cache`; None where others may have written there."""
    place = kept(cache, FOLDER) if cache else None
    return Compiled(place) if place else None


def _made_from(bucket: Bucket) -> tuple[object, ...]:
    return (bucket.key, bucket.checksum, jinja, _options(bucket.environment))


def _options(environment: Environment) -> str:
    """Return what of the environment decides about the code that it makes."""
    sandbox: frozenset[str] = getattr(environment, "intercepted_binops", frozenset())
    syntax = (environment.trim_blocks, environment.lstrip_blocks, environment.keep_trailing_newline)
    return repr((type(environment).__name__, sorted(sandbox), syntax, sorted(environment.filters)))
