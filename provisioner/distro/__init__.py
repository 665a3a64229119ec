"""Distributions as rows: where they are served, which suites they have, whose keys sign them.

A new distribution of the deb family is one module with one value, and one line in `DISTROS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from provisioner.distro import debian, devuan, kali, ubuntu
from provisioner.distro.series import Distro, Mirror, Series, Suite
from provisioner.errors import ProvisionError

__all__ = ["DISTROS", "Distro", "Mirror", "Series", "Suite", "architecture", "find", "series"]

DISTROS = MappingProxyType(
    {row.name: row for row in (debian.DISTRO, ubuntu.DISTRO, devuan.DISTRO, kali.DISTRO)}
)


def find(name: str) -> Distro:
    """Return the row of the distribution `name`; E_USAGE names the nearest."""
    row = DISTROS.get(name)
    if row is None:
        raise _unknown(name, "no such distribution", DISTROS)
    return row


def series(distro: Distro, release: str = "") -> Series:
    """Return the release `release` of `distro` by name or alias ("" = its current stable), or raise E_USAGE."""
    wanted = release or distro.release
    for row in distro.releases:
        if wanted == row.name or wanted in row.aliases:
            return row
    names = [name for row in distro.releases for name in (row.name, *row.aliases)]
    raise _unknown(wanted, f"{distro.title} has no such release here", names)


def architecture(distro: Distro, word: str) -> str:
    """Return what `distro` calls the architecture `word` (its own name or `uname -m`), or raise E_USAGE."""
    if word in distro.arches.values():
        return word
    if word in distro.arches:
        return distro.arches[word]
    names = sorted({*distro.arches, *distro.arches.values()})
    raise _unknown(word, f"{distro.title} has no such architecture", names)


def _unknown(word: str, detail: str, known: Iterable[str]) -> ProvisionError:
    from difflib import get_close_matches  # only on the way out

    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(names)}"
    return ProvisionError("E_USAGE", word, detail, hints=(hint,))
