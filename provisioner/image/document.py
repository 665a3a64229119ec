"""JSON of others, read under limits: no document larger, deeper or more ambiguous than an image needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from provisioner.errors import BadArchive, UntrustedIndex

LARGEST = 4 << 20  # bytes; registries accept no larger manifest
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_SIZE = 1 << 40  # bytes of one blob, at most; what fits is decided where it is unpacked


def parse(body: bytes, subject: str) -> dict[str, object]:
    """Return the one JSON object of `body`; BadArchive E_IMAGE_FORMAT or E_ARCHIVE_LIMIT where it is none.

    A key that stands twice is refused: two readers could take it for two different images (CVE-2021-41190).
    """
    if len(body) > LARGEST:
        raise BadArchive("E_ARCHIVE_LIMIT", subject, f"a document of more than {LARGEST} bytes")
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise BadArchive("E_ARCHIVE_LIMIT", subject, "a document nested too deep") from None
    except ValueError as problem:
        raise malformed(subject, f"no JSON: {problem}") from None
    if not isinstance(value, dict):
        raise malformed(subject, "no JSON object")
    return value


def parse_list(body: bytes, subject: str) -> list[object]:
    """Return the JSON array of `body`, under the same rules as `parse`."""
    value = parse(b'{"":' + body + b"}", subject)[""]
    if not isinstance(value, list):
        raise malformed(subject, "no JSON array")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def malformed(subject: str, detail: str) -> BadArchive:
    """Return the error for a document that says what none may say."""
    return BadArchive("E_IMAGE_FORMAT", subject, detail)


def digest(value: object, subject: str) -> str:
    """Return the digest `sha256:HEX`; UntrustedIndex E_TRUST_FIELD for anything else: it becomes a path (T-64)."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        shown = str(value)[:80].encode("ascii", "backslashreplace").decode()
        raise UntrustedIndex("E_TRUST_FIELD", subject, f'digest "{shown}" is no sha256')
    return value


def size(value: object, subject: str) -> int:
    """Return a number of bytes; UntrustedIndex E_TRUST_FIELD for what is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _SIZE:
        raise UntrustedIndex("E_TRUST_FIELD", subject, "a size is no number of bytes")
    return value


def text(data: Mapping[str, object], key: str, subject: str) -> str:
    """Return the text at `key`, "" where there is none or null."""
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(subject, f"{key} is no text")
    return value


def texts(data: Mapping[str, object], key: str, subject: str) -> tuple[str, ...]:
    """Return the list of texts at `key`, empty where there is none or null."""
    value = data.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise malformed(subject, f"{key} is no list of texts")
    return tuple(value)


def table(data: Mapping[str, object], key: str, subject: str) -> dict[str, object]:
    """Return the object at `key`, empty where there is none or null."""
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(subject, f"{key} is no object")
    return value


def rows(data: Mapping[str, object], key: str, subject: str) -> list[dict[str, object]]:
    """Return the list of objects at `key`, empty where there is none or null."""
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise malformed(subject, f"{key} is no list of objects")
    return value
