"""A lock: the exact package set with hashes and where it came from, as a text that apt reads and git compares.

It is a Packages file (deb822). Its first stanza has no Version, so that apt takes it for no package; it says what was
asked for and which signed indices answered:

    Package: mktemplate-lock
    X-Lock: 1                            the format
    X-Tool, X-Distro, X-Release, X-Arch
    X-Epoch                              the latest time inside the layers, in seconds
    X-Wanted, X-Options                  words: packages asked for; recommends, slim …
    X-Sources                            one line for each suite:
     URL SUITE COMPONENT,… ORIGIN DATE VALID-UNTIL|- SHA256 FINGERPRINT,…

Then one stanza for each package, in install order. X-URL is where its archive was; Filename is where it is kept beside
the lock once `fetch` has brought it there, else its place at the mirror. The hash decides, wherever the bytes are from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import quote, unquote

from provisioner.deb import index, relation
from provisioner.deb.trust import Release
from provisioner.errors import ProvisionError, UntrustedIndex
from provisioner.index import Clause, Package
from provisioner.resolver import PackageSet, name_of
from provisioner.url import check_url
from valuetypes import dataclass, replace

FORMAT = "1"
HEAD = "mktemplate-lock"
MAX_LOCK = 32 << 20  # bytes

_FOREIGN = re.compile(r"[^\n\x20-\x7e]")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:=~_/-]{0,127}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,10}", re.ASCII)
_SOURCE = re.compile(
    r"(\S+) ([a-z0-9][a-z0-9.+/-]*) ([a-z0-9][a-z0-9.+/,-]*) (\S+) (0|[1-9][0-9]{0,10})"
    r" (-|0|[1-9][0-9]{0,10}) ([0-9a-f]{64}) (-|[0-9A-F]{40}(?:,[0-9A-F]{40})*)",
    re.ASCII,
)
_LAYERS = ("base", "service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """One suite as it was when the set was chosen (D-17)."""

    url: str  # the mirror's root
    suite: str
    components: tuple[str, ...]
    origin: str
    date: int  # seconds since the epoch, as is valid_until
    valid_until: int | None = None
    sha256: str  # of the signed text
    signers: tuple[str, ...]  # fingerprints of the primary keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a container's packages are, and why they are these."""

    tool: str  # `mktemplate 0.1.0`
    distro: str
    release: str
    arch: str
    epoch: int  # seconds
    options: tuple[str, ...] = ()
    sources: tuple[Provenance, ...] = ()
    chosen: PackageSet
    files: tuple[
        str, ...
    ] = ()  # the archive of each package relative to the lock; () = where it is at the mirror


def provenance(release: Release) -> Provenance:
    """Return what a lock keeps of a verified Release."""
    return Provenance(
        url=release.source.url,
        suite=release.source.suite,
        components=release.source.components,
        origin=release.origin,
        date=release.date,
        valid_until=release.valid_until,
        sha256=release.sha256,
        signers=release.signers,
    )


def lacking(lock: Lock, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return which of `wanted` (as `resolve` takes them) the lock does not hold in that name and version."""
    held = {package.name: package.version for package in lock.chosen.packages}
    names = [(word, name_of(word), word.partition("=")[2]) for word in wanted]
    return tuple(
        word for word, name, version in names if name not in held or version not in ("", held[name])
    )


def write(lock: Lock) -> str:
    """Return `lock` as text; equal locks are equal texts."""
    files = lock.files or tuple(_at_mirror(each, lock.sources) for each in lock.chosen.packages)
    base = len(lock.chosen.essential)
    stanzas = [_head(lock)]
    for number, (package, file) in enumerate(zip(lock.chosen.packages, files, strict=True)):
        stanzas.append(_stanza(package, file, _LAYERS[number >= base]))
    return "\n".join(stanzas)


def _head(lock: Lock) -> str:
    rows = [
        ("Package", HEAD),
        ("X-Lock", FORMAT),
        ("X-Tool", lock.tool),
        ("X-Distro", lock.distro),
        ("X-Release", lock.release),
        ("X-Arch", lock.arch),
        ("X-Epoch", str(lock.epoch)),
        ("X-Wanted", " ".join(lock.chosen.wanted)),
        ("X-Options", " ".join(lock.options)),
        ("X-Sources", "".join(f"\n {_line(each)}" for each in lock.sources)),
    ]
    return _fields(rows)


def _line(source: Provenance) -> str:
    words = (
        source.url,
        source.suite,
        ",".join(source.components),
        quote(source.origin, safe="") or "-",
        str(source.date),
        "-" if source.valid_until is None else str(source.valid_until),
        source.sha256,
        ",".join(source.signers) or "-",
    )
    return " ".join(words)


def _stanza(package: Package, file: str, layer: str) -> str:
    rows = [
        ("Package", package.name),
        ("Version", package.version),
        ("Architecture", package.arch),
        ("Multi-Arch", "" if package.multi_arch == "no" else package.multi_arch),
        ("Essential", "yes" if package.essential else ""),
        ("Protected", "yes" if package.protected else ""),
        ("Priority", package.priority),
        ("Pre-Depends", relation.spell_clauses(package.pre_depends)),
        ("Depends", relation.spell_clauses(package.depends)),
        ("Recommends", relation.spell_clauses(package.recommends)),
        ("Suggests", relation.spell_clauses(package.suggests)),
        ("Provides", relation.spell_relations(package.provides)),
        ("Conflicts", relation.spell_relations(package.conflicts)),
        ("Breaks", relation.spell_relations(package.breaks)),
        ("Installed-Size", str(package.installed_size // 1024)),
        ("Filename", file),
        ("Size", str(package.size)),
        ("SHA256", package.sha256),
        ("X-Layer", layer),
        ("X-Origin", _quoted(package.origin)),
        ("X-URL", package.url if _is_web(package.url) else ""),
    ]
    return _fields(rows)


def _fields(rows: list[tuple[str, str]]) -> str:
    return "".join(
        [
            f"{name}:{value}\n" if value.startswith("\n") else f"{name}: {value}\n"
            for name, value in rows
            if value
        ]
    )


_quoted = lru_cache(maxsize=64)(partial(quote, safe=" "))  # a few origins have all packages


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _at_mirror(package: Package, sources: Sequence[Provenance]) -> str:
    """Return the archive's place below its mirror's root; one that was given as a file has none, and gets a name."""
    for source in sources:
        if package.url.startswith(f"{source.url}/"):
            return package.url.removeprefix(f"{source.url}/")
    return archive_name(package)


def archive_name(package: Package) -> str:
    """Return the file name that archives give a package: NAME_VERSION_ARCH.deb, without an epoch."""
    return f"{package.name}_{package.version.rpartition(':')[2]}_{package.arch}.deb"


# Reading


def read(text: str, where: str) -> Lock:
    """Return the Lock in `text`; `where` names it in errors.

    Raises E_PARAM where it is no lock or one of a format to come, E_TRUST_FIELD where a field is not what it may be.
    """
    head, *rest = (part for part in text.split("\n\n") if part.strip("\n")) if text else ("",)
    told = read_head(head if len(text) <= MAX_LOCK else "", where)
    if found := _FOREIGN.search(text):
        raise _bad(where, f"holds {found[0]!a}, and a lock is printable ASCII")
    read_one = _Reader(told.arch, where)
    entries = [read_one(stanza.strip("\n") + "\n") for stanza in rest]
    packages = [package for package, _, _ in entries]
    if len({package.name for package in packages}) < len(packages):
        raise _bad(where, "a package stands twice")
    base = sum(layer == "base" for _, _, layer in entries)
    if any(layer != "base" for _, _, layer in entries[:base]):
        raise _bad(where, "packages of the base layer do not stand first")
    chosen = replace(told.chosen, essential=tuple(packages[:base]), added=tuple(packages[base:]))
    return replace(told, chosen=chosen, files=tuple(file for _, file, _ in entries))


def read_head(text: str, where: str) -> Lock:
    """Return what the first stanza, `text`, says of a Lock: all but its packages. Raises as `read` does."""
    if not text.startswith(f"Package: {HEAD}\n"):
        raise _no_lock(where, f'does not begin with "Package: {HEAD}"')
    if found := _FOREIGN.search(text):
        raise _bad(where, f"holds {found[0]!a}, and a lock is printable ASCII")
    fields = _parse_head(text, where)
    return Lock(
        tool=fields.get("x-tool", ""),
        distro=fields["x-distro"],
        release=fields["x-release"],
        arch=fields["x-arch"],
        epoch=int(fields["x-epoch"]),
        options=tuple(fields.get("x-options", "").split()),
        sources=tuple(_parse_line(line, where) for line in _lines(fields.get("x-sources", ""))),
        chosen=PackageSet(essential=(), added=(), wanted=tuple(fields.get("x-wanted", "").split())),
    )


def _parse_head(head: str, where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in head.split("\n"):
        if line.startswith(" ") and name:
            fields[name] += "\n" + line[1:]
            continue
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in fields:
            raise _bad(where, f"its head has a malformed line: {line[:80]!r}")
        fields[name] = value.strip(" ")
    if fields.get("x-lock") != FORMAT:
        raise _no_lock(
            where,
            f"its format is {fields.get('x-lock', '')[:20]!r}, this mktemplate knows {FORMAT}",
        )
    for key in ("x-distro", "x-release", "x-arch"):
        if not _WORD.fullmatch(fields.get(key, "")):
            raise _bad(where, f"has no valid {key.title()}")
    words = f"{fields.get('x-wanted', '')} {fields.get('x-options', '')}".split()
    if not _NUMBER.fullmatch(fields.get("x-epoch", "")) or not all(map(_WORD.fullmatch, words)):
        raise _bad(where, "has no valid X-Epoch, X-Wanted or X-Options")
    return fields


def _parse_line(line: str, where: str) -> Provenance:
    found = _SOURCE.fullmatch(line)
    if not found:
        raise _bad(where, f"X-Sources has a malformed line: {line[:80]!r}")
    url, suite, components, origin, date, until, sha256, signers = found.groups()
    return Provenance(
        url=check_url(url, subject=where),
        suite=suite,
        components=tuple(components.split(",")),
        origin="" if origin == "-" else unquote(origin),
        date=int(date),
        valid_until=None if until == "-" else int(until),
        sha256=sha256,
        signers=() if signers == "-" else tuple(signers.split(",")),
    )


def _lines(block: str) -> Iterator[str]:
    yield from (line for line in block.split("\n") if line)


class _Reader:
    """Reads one package's stanza with the index's own grammar (D-13)."""

    def __init__(self, arch: str, where: str) -> None:
        self._arch = arch
        self._where = where
        self._source = index.IndexFile(
            path=Path(where), sha256="", plain_size=0, plain_sha256="", base_url="", origin="", suite="", component=""
        )  # fmt: skip

    def __call__(self, stanza: str) -> tuple[Package, str, str]:
        """Return package, Filename and layer."""
        if not stanza.startswith("Package: "):
            raise _bad(self._where, f"a stanza begins with {stanza[:40]!r}, not with Package")
        package = index.parse_package(
            stanza.encode(), self._source, self._arch
        )  # the one grammar of stanzas
        for relations in (
            *_clauses_of(package),
            package.provides,
            package.conflicts,
            package.breaks,
        ):
            tuple(relations)  # read now: an index may put it off
        own = dict(line.partition(": ")[::2] for line in stanza.split("\n"))
        layer, url = own.get("X-Layer", ""), own.get("X-URL", "")
        if layer not in _LAYERS:
            raise _bad(self._where, f"{package.name} has no valid X-Layer")
        file = package.url.removeprefix("/")
        if url:
            check_url(url, subject=self._where)
        origin = unquote(own.get("X-Origin", ""))
        return replace(package, url=url, origin=origin), file, layer


def _clauses_of(package: Package) -> tuple[Sequence[Clause], ...]:
    return package.pre_depends, package.depends, package.recommends, package.suggests


def _no_lock(where: str, detail: str) -> ProvisionError:
    hints = ("`mktemplate lock NAME` prints one",)
    return ProvisionError("E_PARAM", where, f"is not a lock: {detail}", hints=hints, path=where)


def _bad(where: str, detail: str) -> UntrustedIndex:
    return UntrustedIndex("E_TRUST_FIELD", where, detail, path=where)
