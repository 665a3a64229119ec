"""The distro-neutral model of what a repository offers.

An `Index` exists only if it was verified. What it is read from lives in the format folders (`deb/index.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One package name with an optional version condition and architecture qualifier: `libc6:any (>= 2.38)`."""

    name: str
    operator: str = ""  # one of "", "<<", "<=", "=", ">=", ">>"
    version: str = ""
    qualifier: str = ""  # "", "any", "native" or an architecture


@dataclass(frozen=True, slots=True)
class Clause:
    """Alternatives of which one is enough, in the order in which they are preferred."""

    alternatives: tuple[Relation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One version of one package, as its signed index stanza tells it."""

    name: str
    version: str
    arch: str
    pre_depends: Sequence[Clause] = ()
    depends: Sequence[Clause] = ()
    recommends: Sequence[Clause] = ()
    suggests: Sequence[Clause] = ()
    provides: Sequence[Relation] = ()
    conflicts: Sequence[Relation] = ()
    breaks: Sequence[Relation] = ()
    essential: bool = False
    protected: bool = False  # `Protected: yes`, `Important: yes`
    priority: str = "optional"
    multi_arch: str = "no"
    size: int = 0  # bytes of the archive
    installed_size: int = 0  # bytes
    sha256: str = ""
    url: str = ""  # where its archive is
    origin: str = ""  # Origin of its repository, or `local`


class Index(Protocol):
    """Every package that the verified sources of one run offer for one architecture."""

    arch: str

    def satisfies(self, version: str, operator: str, wanted: str) -> bool:
        """Tell whether `version OPERATOR wanted` holds in this distribution's order."""
        ...

    def versions(self, name: str) -> Sequence[Package]:
        """Return the packages called `name`, newest version first; empty where there is none."""
        ...

    def providers(self, name: str) -> Sequence[Package]:
        """Return the packages that provide the virtual name `name`, newest version of each."""
        ...

    def essential(self) -> Sequence[Package]:
        """Return the packages marked `Essential: yes`."""
        ...

    def base(self, find: Callable[[], Sequence[Package]]) -> Sequence[Package]:
        """Return the Essential closure, which `find` finds where it is not known from an earlier run."""
        ...

    def recall(
        self, question: Sequence[object], find: Callable[[], Sequence[Package]]
    ) -> Sequence[Package]:
        """Return the answer to `question`, which `find` finds where it is not known from an earlier run."""
        ...

    def mention(self, name: str) -> int:
        """Return the order in which `name` is first mentioned: apt's package ID, its last tie-break."""
        ...

    def nearest(self, name: str) -> Sequence[str]:
        """Return existing names that someone who typed `name` may have meant, likeliest first."""
        ...

    def label(self) -> str:
        """Name what was searched, `trixie/main amd64`."""
        ...
