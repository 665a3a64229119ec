"""The package databases of a root: dpkg's status with what each package says of its licenses, or apk's installed file.

`read` runs inside the root, which may be hostile: every file is bounded, and nothing there leads out.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from provisioner.deb.archive import parse_stanza
from provisioner.errors import BadArchive
from valuetypes import dataclass, replace

_DPKG = "/var/lib/dpkg/status"
_APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
_LARGEST = 64 << 20  # bytes of a database
_LARGEST_COPYRIGHT = 1 << 20
_MOST_LICENSES = 100
_DEP5 = re.compile(r"^Format(?:-Specification)?:[ \t]*\S*(?:copyright-format|dep5)", re.M | re.I)
_LICENSE = re.compile(r"^License:[ \t]*([^\n]{1,300})", re.M)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,200}", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z.+~:_-]{1,240}", re.ASCII)
_PERSON = re.compile(r"\s*(.*?)\s*<([^<>\s]{1,200})>\s*")


class Texts(TypedDict):
    """What `read` found."""

    dpkg: str
    apk: str
    copyrights: dict[str, str]  # package → the licenses it names, one a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One package as its database has it."""

    kind: str  # deb, apk: the type of its package URL
    name: str
    version: str
    arch: str
    source: str = ""  # the source package
    summary: str = ""
    homepage: str = ""
    maintainer: tuple[str, str] = ("", "")  # name, address
    licenses: tuple[str, ...] = ()  # as the package calls them
    depends: tuple[str, ...] = ()  # keys of what it needs of what is installed
    sha256: str = ""  # of its archive
    location: str = ""  # where that came from

    @property
    def key(self) -> str:
        """What is unique among what is installed together."""
        return f"{self.name}:{self.arch}"


def read() -> Texts:
    """Return the databases of the root that this process has pivoted into."""
    dpkg = _text(_DPKG, _LARGEST)
    apk = "" if dpkg else next(filter(None, (_text(path, _LARGEST) for path in _APK)), "")
    copyrights = {}
    for name in re.findall(r"^Package: ([^\s/]{1,200})$", dpkg, re.M):
        text = _text(f"/usr/share/doc/{name}/copyright", _LARGEST_COPYRIGHT)
        if _DEP5.search(text):
            found = dict.fromkeys(word.strip() for word in _LICENSE.findall(text))
            copyrights[name] = "\n".join(sorted(found)[:_MOST_LICENSES])
    return {"dpkg": dpkg, "apk": apk, "copyrights": copyrights}


def _text(path: str, limit: int) -> str:
    """Return a regular file of at most `limit` bytes, "" for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return ""
        return file.read(limit).decode("utf-8", "replace")


def parse(texts: Texts, subject: str) -> tuple[Installed, ...]:
    """Return what is installed, by name; BadArchive E_DEB_FORMAT for a database that is none."""
    rows = _debs(texts, subject) if texts["dpkg"] else _apks(texts["apk"])
    return tuple(
        sorted(_related(list(rows)), key=lambda each: (each.name, each.arch, each.version))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A package before anybody knows what its relations mean here."""

    package: Installed
    needs: tuple[tuple[str, ...], ...] = ()  # each one of several alternatives
    provides: tuple[str, ...] = ()


def _related(rows: Sequence[_Row]) -> Iterator[Installed]:
    """Yield each package with the keys of what it needs."""
    named: dict[str, str] = {}
    for row in rows:
        for name in row.provides:
            named.setdefault(name, row.package.key)
    for row in rows:
        named[row.package.name] = row.package.key
    for row in rows:
        met = (next((named[name] for name in group if name in named), "") for group in row.needs)
        needed = sorted(set(filter(None, met)) - {row.package.key})
        yield replace(row.package, depends=tuple(needed))


def _debs(texts: Texts, subject: str) -> Iterator[_Row]:
    for stanza in re.split(r"\n\n+", texts["dpkg"].strip("\n")):
        fields = parse_stanza(stanza.encode("utf-8", "surrogateescape"), subject)
        if fields.get("Status", "").rpartition(" ")[2] in ("not-installed", "config-files", ""):
            continue
        yield _Row(
            package=_deb(fields, texts["copyrights"], subject),
            needs=tuple(_groups(fields.get("Pre-Depends", ""), fields.get("Depends", ""))),
            provides=tuple(name for group in _groups(fields.get("Provides", "")) for name in group),
        )


def _deb(fields: Mapping[str, str], copyrights: Mapping[str, str], subject: str) -> Installed:
    name, version = fields.get("Package", ""), fields.get("Version", "")
    _check(name, version, subject)
    return Installed(
        kind="deb",
        name=name,
        version=version,
        arch=_word(fields.get("Architecture", "")),
        source=_word(fields.get("Source", name).partition(" ")[0]),
        summary=fields.get("Description", "").partition("\n")[0][:500],
        homepage=_address(fields.get("Homepage", "")),
        maintainer=_person(fields.get("Maintainer", "")),
        licenses=tuple(filter(None, copyrights.get(name, "").split("\n"))),
    )


def _apks(text: str) -> Iterator[_Row]:
    """Read apk's own format: one letter, a colon, a value (apk-installed(5))."""
    for stanza in re.split(r"\n\n+", text.strip("\n")):
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            key, colon, value = line.partition(":")
            if colon and len(key) == 1:
                fields.setdefault(key, value)
        if not _NAME.fullmatch(fields.get("P", "")):
            continue
        _check(fields["P"], fields.get("V", ""), fields["P"])
        yield _Row(
            package=Installed(
                kind="apk",
                name=fields["P"],
                version=fields["V"],
                arch=_word(fields.get("A", "")),
                source=_word(fields.get("o", "")),
                summary=fields.get("T", "")[:500],
                homepage=_address(fields.get("U", "")),
                maintainer=_person(fields.get("m", "")),
                licenses=tuple(filter(None, [fields.get("L", "")[:300]])),
            ),
            needs=tuple((re.split(r"[<>=~]", word)[0],) for word in fields.get("D", "").split()),
            provides=tuple(word.partition("=")[0] for word in fields.get("p", "").split()),
        )


def _check(name: str, version: str, subject: str) -> None:
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        shown = f"{name[:60]} {version[:60]}".encode("ascii", "backslashreplace").decode()
        raise BadArchive("E_DEB_FORMAT", subject, f'"{shown}" is no package')


def _groups(*relations: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of each clause of a relation field (Policy 7.1)."""
    for clause in ",".join(relations).split(","):
        names = (re.match(r"\s*([A-Za-z0-9][A-Za-z0-9+.-]*)", word) for word in clause.split("|"))
        group = tuple(found[1] for found in names if found)
        if group:
            yield group


def _word(text: str) -> str:
    return text if _NAME.fullmatch(text) else ""


def _address(text: str) -> str:
    return text if re.fullmatch(r"https?://[\x21-\x7e]{1,500}", text) and '"' not in text else ""


def _person(text: str) -> tuple[str, str]:
    found = _PERSON.fullmatch(text[:500])
    return (found[1].strip('"'), found[2]) if found else (text[:200].strip(), "")
