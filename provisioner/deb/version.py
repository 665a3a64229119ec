"""Debian version order, as dpkg's `verrevcmp` has it (deb-version(7))."""

from __future__ import annotations

import re
from functools import lru_cache

# Words are compared letter by letter: `~` before the end of a word, that before letters, letters before the rest.
_RANK = {ord("~"): "\x00"} | {
    n: chr(n + 256) for n in range(128) if not chr(n).isalnum() and n != 126
}
_END = "\x01"
_PARTS = re.compile(r"([^0-9]*)([0-9]*)", re.ASCII)

Key = tuple[int, tuple[str | int, ...], tuple[str | int, ...]]


def _part(text: str) -> tuple[str | int, ...]:
    if text.isdecimal():  # the commonest revision and many an upstream version
        return (_END, int(text), _END)
    key: list[str | int] = []
    for word, digits in _PARTS.findall(text):
        if word or digits or not key:
            key.append(word.translate(_RANK) + _END)
            key.append(int(digits or "0"))
    key.append(_END)
    return tuple(key)


@lru_cache(maxsize=1 << 16)
def sort_key(version: str) -> Key:
    """Return a key that sorts as dpkg orders versions; equal versions (`1.0`, `0:1.0-0`) have equal keys."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch), _part(upstream), _part(revision)


def compare(a: str, b: str) -> int:
    """Return -1, 0 or 1: how `a` stands to `b`."""
    if a == b:
        return 0
    left, right = sort_key(a), sort_key(b)
    return (left > right) - (left < right)


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Tell whether `version OPERATOR wanted` holds; no operator always does, an unversioned `version` then only."""
    if not operator:
        return True
    if not version:
        return False
    order = compare(version, wanted)
    if order == 0:
        return operator in ("<=", "=", ">=")
    return operator in (("<<", "<=") if order < 0 else (">>", ">="))
