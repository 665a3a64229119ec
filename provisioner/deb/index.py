"""Verified Packages files → an Index: merged over suites, memory-mapped, parsed stanza by stanza when asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from provisioner.deb import answers, flat, relation, version
from provisioner.deb.decode import decode
from provisioner.errors import UntrustedIndex
from provisioner.index import Package
from valuetypes import dataclass

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_VERSION = re.compile(relation.VERSION, re.ASCII)
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~%/-]*\.deb", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)
_FIELD = re.compile(r"^([!-9;-~]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE | re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PRIORITIES = frozenset(("", "required", "important", "standard", "optional", "extra"))
_MULTI_ARCH = frozenset(("no", "same", "foreign", "allowed"))
_LARGEST = 1 << 32  # bytes of one archive

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """One Packages file on disk, compressed, its bytes already found to be what a verified Release names."""

    path: Path
    sha256: str
    plain_size: int
    plain_sha256: str
    base_url: str  # what Filename is relative to
    origin: str
    suite: str
    component: str
    only: tuple[str, ...] | None = (
        None  # a third party's: the names it may give; () what others lack
    )


class DebIndex:
    """What several Packages files offer together, first mentioned first, the highest version winning."""

    def __init__(
        self, files: Sequence[_File], arch: str, local: Sequence[Package], cache: Path
    ) -> None:
        """Join `files` in the order of the sources; `local` packages outrank all of them."""
        self.arch = arch
        self._cache = cache
        self._files = files
        self._own = [file for file in files if file.source.only is None]
        self._others = [file for file in files if file.source.only is not None]
        self._local = {package.name: package for package in local}
        self._base: dict[str, Package] = {}  # the newest of their names, parsed already
        self._versions: dict[str, tuple[Package, ...]] = {}
        self._providers: dict[str, tuple[Package, ...]] = {}

    satisfies = staticmethod(version.satisfies)

    def versions(self, name: str) -> Sequence[Package]:
        """Return the packages called `name`: a local one, then newest first."""
        known = self._versions.get(name)
        if known is None:
            known = self._versions[name] = self._merge(name)
        return known

    def providers(self, name: str) -> Sequence[Package]:
        """Return the packages whose newest version provides `name`."""
        known = self._providers.get(name)
        if known is None:
            owners = {owner for file in self._own for owner in file.providing(name)}
            own = bool(owners)
            for file in self._others:
                if file.source.only or not (own or self.versions(name)):
                    owners.update(file.providing(name))
            owners.update(self._local)
            newest = map(self._newest, sorted(owners))
            known = self._providers[name] = tuple(
                package
                for package in newest
                if package and any(provided.name == name for provided in package.provides)
            )
        return known

    def essential(self) -> Sequence[Package]:
        """Return the newest version of each package that the distribution, no third party, marks Essential."""
        names = {name for file in self._own for name in file.essential()}
        names |= {package.name for package in self._local.values() if package.essential}
        newest = map(self._newest, sorted(names, key=self.mention))
        return tuple(package for package in newest if package)

    def base(self, find: Callable[[], Sequence[Package]]) -> Sequence[Package]:
        """Return the Essential closure, which `find` finds where it is not known from an earlier run."""
        known = self.recall(("base",), find)
        if not self._local:
            self._base = {package.name: package for package in known}
        return known

    def recall(
        self, question: Sequence[object], find: Callable[[], Sequence[Package]]
    ) -> Sequence[Package]:
        """Return what `find` finds, which is the answer to `question`; from the cache if these files were asked it."""
        if self._local:
            return find()
        facts = [
            (each.sha256, each.base_url, each.origin, each.suite, each.component, each.only)
            for each in (file.source for file in self._files)
        ]
        path = answers.place(self._cache, (self.arch, *facts, *question))
        known = answers.load(path)
        if known is None:
            known = tuple(find())
            answers.save(path, known)
        return known

    def mention(self, name: str) -> int:
        """Return a number that grows with the first mention of `name` over all files."""
        for rank, file in enumerate(self._files):
            order = file.mentioned(name)
            if order >= 0:
                return rank << 72 | order
        return len(self._files) << 72

    def nearest(self, name: str) -> Sequence[str]:
        """Return up to three existing names close to `name`."""
        import difflib  # only an error needs it

        names = {each for file in self._files for each in file.names()} | set(self._local)
        alike = {each for each in names if abs(len(each) - len(name)) < 3 and each[:1] == name[:1]}
        return difflib.get_close_matches(name, sorted(alike), 3, 0.75)

    def label(self) -> str:
        """Name the suites and components that were read, updates and fixes under their release."""
        suites = dict.fromkeys(file.source.suite for file in self._files)
        suites = {each: None for each in suites if each.rpartition("-")[0] not in suites}
        parts = dict.fromkeys(
            f"{file.source.suite}/{file.source.component}"
            for file in self._files
            if file.source.suite in suites
        )
        return f"{', '.join(parts)} {self.arch}".strip()

    def _newest(self, name: str) -> Package | None:
        return self._base.get(name) or next(iter(self.versions(name)), None)

    def _merge(self, name: str) -> tuple[Package, ...]:
        found: dict[str, Package] = {}
        for file in (*self._own, *self._others):
            only = file.source.only
            if only is not None and (name not in only if only else found):
                continue
            for package in file.named(name, self.arch):
                twin = found.setdefault(package.version, package)
                if twin.sha256 != package.sha256:
                    raise UntrustedIndex(
                        "E_TRUST_FIELD",
                        f"{name} {package.version}",
                        f"stands twice with different hashes, at {twin.url} and {package.url}",
                    )
        newest = list(found.values())
        if len(newest) > 1:
            newest.sort(key=lambda each: version.sort_key(each.version), reverse=True)
        local = self._local.get(name)
        return (*((local,) if local else ()), *newest)


class _File:
    """One mapped file with where it came from; a damaged map is made again from the compressed file."""

    def __init__(self, source: IndexFile, path: Path) -> None:
        self.source = source
        self._path = path
        self._opened: flat.Flat | None = None
        if not path.exists():
            self._make()

    @property
    def _flat(self) -> flat.Flat:
        """The map, opened where somebody looks into it: what is known of the solver's answers needs none."""
        if self._opened is None:
            self._opened = flat.Flat(self._path)
        return self._opened

    def named(self, name: str, arch: str) -> list[Package]:
        encoded = name.encode()
        return self._read(
            lambda: [
                parse_package(stanza, self.source, arch)
                for stanza in map(self._flat.stanza, self._flat.named(encoded))
                if stanza.startswith(b"Package: %s\n" % encoded)
            ]
        )

    def providing(self, name: str) -> list[str]:
        return self._read(
            lambda: list(map(_name_of, map(self._flat.stanza, self._flat.providing(name.encode()))))
        )

    def essential(self) -> list[str]:
        return self._read(lambda: list(map(_name_of, map(self._flat.stanza, self._flat.special()))))

    def mentioned(self, name: str) -> int:
        return self._read(lambda: self._flat.mentioned(name.encode()))

    def names(self) -> Iterable[str]:
        return self._read(lambda: [name.decode() for name in self._flat.every_name()])

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (FileNotFoundError, flat.Damaged, UntrustedIndex, IndexError, ValueError):
            self._make()  # either the map is damaged, or its text really says this, and says so again
            return read()

    def _make(self) -> None:
        source = self.source
        subject = f"{source.suite}/{source.component} Packages"
        packed = source.path.read_bytes()
        if hashlib.sha256(packed).hexdigest() != source.sha256:
            self._path.unlink(missing_ok=True)  # with neither, the next run fetches it anew
            raise UntrustedIndex(
                "E_TRUST_HASH", subject, "was damaged on the disk", hints=("try again",)
            )
        text = decode(packed, source.plain_size, subject)
        del packed
        if len(text) != source.plain_size:
            raise UntrustedIndex(
                "E_TRUST_SIZE", subject, f"has {len(text)} bytes, {source.plain_size} are signed"
            )

        def check() -> None:
            if hashlib.sha256(text).hexdigest() != source.plain_sha256:
                raise UntrustedIndex("E_TRUST_HASH", subject, "differs from what is signed")

        flat.write(self._path, text, check)
        self._opened = flat.Flat(self._path)


def read_index(
    files: Sequence[IndexFile], cache: Path, arch: str, *, local: Sequence[Package] = ()
) -> DebIndex:
    """Return the Index over `files` in the order of their sources, mapped from `cache` or decoded into it."""
    opened = []
    for source in files:
        if not _SHA256.fullmatch(source.sha256):
            raise UntrustedIndex("E_TRUST_FIELD", str(source.path), "has no valid SHA256")
        opened.append(_File(source, flat.place(cache, source.sha256)))
    return DebIndex(opened, arch, local, cache)


def _name_of(stanza: bytes) -> str:
    return stanza[9 : stanza.index(b"\n")].decode()


def _fields(stanza: bytes) -> dict[str, str]:
    """Return the fields of one stanza by lower-case name; continued lines stay joined."""
    text = stanza.decode().rstrip("\n")
    found = _FIELD.findall(text)
    names = "\n".join([name for name, _ in found]).lower().split("\n")
    fields = dict(zip(names, [value for _, value in found], strict=True))
    more = text.count("\n") + 1 - len(found)  # continued lines
    if (more and more != sum([value.count("\n") for _, value in found])) or len(fields) != len(
        found
    ):
        raise UntrustedIndex(
            "E_TRUST_FIELD", text[:80], "has a malformed field, or one that stands twice"
        )
    return fields


def parse_package(stanza: bytes, source: IndexFile, arch: str) -> Package:
    """Parse one stanza; raise UntrustedIndex where a field is not what it may be."""
    fields = _fields(stanza)
    _check(fields, arch)
    url = f"{source.base_url.rstrip('/')}/{fields['filename']}"
    return package_of(
        fields, size=int(fields["size"]), sha256=fields["sha256"], url=url, origin=source.origin
    )


def package_of(
    fields: Mapping[str, str], *, size: int, sha256: str, url: str, origin: str
) -> Package:
    """Return the package that a stanza's fields describe, names in lower case, and where its archive is."""
    get = fields.get
    priority, multi_arch = get("priority", ""), get("multi-arch", "no")
    return Package(
        name=fields["package"],
        version=fields["version"],
        arch=fields["architecture"],
        pre_depends=relation.parse_clauses(get("pre-depends", "")),
        depends=relation.parse_clauses(get("depends", "")),
        recommends=relation.parse_clauses(get("recommends", "")),
        suggests=relation.parse_clauses(get("suggests", "")),
        provides=relation.parse_relations(get("provides", "")),
        conflicts=relation.parse_relations(get("conflicts", "")),
        breaks=relation.parse_relations(get("breaks", "")),
        essential=get("essential") == "yes",
        protected=get("protected") == "yes" or get("important") == "yes",
        priority=priority if priority in _PRIORITIES else "extra",
        multi_arch=multi_arch if multi_arch in _MULTI_ARCH else "no",
        size=size,
        installed_size=int(get("installed-size", "0")) * 1024,
        sha256=sha256,
        url=url,
        origin=origin,
    )


IDENTITY: tuple[tuple[str, re.Pattern[str]], ...] = (("package", _NAME), ("version", _VERSION))
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    *IDENTITY,
    ("filename", _FILENAME),
    ("size", _NUMBER),
    ("installed-size", _NUMBER),
    ("sha256", _SHA256),
)


def _check(fields: dict[str, str], arch: str) -> None:
    """Hold one stanza to the rules of security.md D-13."""
    subject = fields.get("package", "")[:80]
    fields.setdefault("installed-size", "0")
    for name, rule in _RULES:
        if not rule.fullmatch(fields.get(name, "")):
            raise UntrustedIndex("E_TRUST_FIELD", subject, f"has no valid {name.title()}")
    if fields.get("architecture") not in (arch, "all"):
        raise UntrustedIndex("E_TRUST_FIELD", subject, f"is not for {arch}")
    if ".." in fields["filename"]:
        raise UntrustedIndex("E_TRUST_FIELD", subject, "has no valid Filename")
    if int(fields["size"]) > _LARGEST:
        raise UntrustedIndex("E_TRUST_SIZE", subject, "is larger than 4 GiB")
