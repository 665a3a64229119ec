"""Signed Release files: how a clear-signed message is taken apart, and what its text must say.

The splitter is as strict as apt's (apt-pkg/contrib/gpgv.cc) and stricter: nothing may stand outside the signed part.
`Verified` is made by `provisioner.trust` only; a `Release` is parsed from nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType

from provisioner.errors import UntrustedIndex
from provisioner.sources import Source, is_word
from valuetypes import dataclass, field

MAX_INRELEASE = 32 << 20  # bytes; the one object without a signed size
_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_BEGIN_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END_SIGNATURE = b"-----END PGP SIGNATURE-----"
_HASH_HEADER = re.compile(rb"Hash: (?:(?:MD5|SHA1|RIPEMD160|SHA(?:224|256|384|512)),? ?)+")
_STRONG = {b"SHA256": 8, b"SHA384": 9, b"SHA512": 10}
_MAX_LINE = 64 << 10  # bytes
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*):[ \t]*(.*)", re.ASCII)
_HASH_LINE = re.compile(
    r"^([0-9a-f]{64})[ \t]+(0|[1-9][0-9]{0,12})[ \t]+([!-~]+)$", re.ASCII | re.MULTILINE
)
_HASHES = ("md5sum", "sha1", "sha256", "sha512")
_DATE = re.compile(
    r"(?:[A-Z][a-z]{2}, )?([ 0-3]?[0-9]) ([A-Z][a-z]{2}) ([0-9]{4}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:UTC|GMT|Z|\+0000)",
    re.ASCII,
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MAX_SIZE = 1 << 40
_COMPRESSED = (".xz", ".gz", ".zst", "")


@dataclass(frozen=True, slots=True)
class Message:
    """A clear-signed message taken apart: the text that is signed, and its armored signatures."""

    text: bytes  # dash-escapes undone, lines as they stand, without the last newline
    signatures: bytes
    hashes: frozenset[int]  # OpenPGP numbers of the strong hashes that its header names


@dataclass(frozen=True, slots=True)
class Verified:
    """A text, or the `extract` of one, and the primary fingerprints whose signatures on it were accepted."""

    text: bytes
    signers: tuple[str, ...]
    until: int = 0  # seconds since the epoch when signatures must be judged again; 0 = never
    sha256: str = ""  # of the whole text, where this is an extract


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A verified Release file: what one suite at one mirror holds, and until when that is true."""

    source: Source  # the one, of a suite's mirrors, where it was found
    mirrors: tuple[str, ...] = ()  # all of them, in the order in which they are tried
    extract: str = field(repr=False)
    sha256: str  # of the signed text
    signers: tuple[str, ...]
    until: int  # see Verified
    date: int  # seconds since the epoch, as is valid_until
    valid_until: int | None
    origin: str
    label: str
    suite: str
    codename: str
    by_hash: bool
    hashes: Mapping[str, tuple[str, int]] = field(
        repr=False
    )  # name below dists/SUITE → SHA256, size
    index_arches: tuple[
        str, ...
    ]  # the binary-ARCH folders to read: the architecture's, and `all` where it is apart
    notes: tuple[str, ...] = ()  # what the user should know: mirrors left out, expiry accepted
    replayed: bool = False  # taken from the store, as every mirror had an older one

    @property
    def mirror(self) -> str:
        """The root of the mirror that it came from."""
        return self.source.url

    def index(self, component: str, arch: str) -> tuple[str, str, int] | None:
        """Return name, SHA256 and size of the best compressed Packages file, or None where the suite has none."""
        for ending in _COMPRESSED:
            name = f"{self.prefix(component)}/binary-{arch}/Packages{ending}"
            if name in self.hashes:
                return (name, *self.hashes[name])
        return None

    def plain_index(self, component: str, arch: str) -> tuple[str, int] | None:
        """Return SHA256 and size that the decompressed Packages file must have."""
        return self.hashes.get(f"{self.prefix(component)}/binary-{arch}/Packages")

    @staticmethod
    def prefix(component: str) -> str:
        """Return the folder of a component: `updates/main` (-security) lies in `main`."""
        return component.rpartition("/")[2]


def split(data: bytes, subject: str) -> Message:
    """Take a clear-signed message apart (RFC 9580, 7), or raise E_TRUST_FORMAT, E_MIRROR_CAPTIVE (D-3, D-4)."""
    lines = data.split(b"\n")
    if lines[0] != _BEGIN:
        raise _not_signed(data, subject)
    if lines[-1] == b"":
        lines.pop()
    try:
        blank = lines.index(b"", 1)
        end = lines.index(_BEGIN_SIGNATURE, blank)
    except ValueError:
        raise _format(subject, "the signed part has no end") from None
    body = lines[blank + 1 : end]
    if not all(_HASH_HEADER.fullmatch(header) for header in lines[1:blank]):
        raise _format(subject, "an armor header other than Hash")
    if any([line[:1] == b"-" and line[:2] != b"- " for line in body]):
        raise _format(subject, "a line of the signed part begins with a dash")
    if b"\0" in data or b"\r" in data or max(map(len, lines)) > _MAX_LINE:
        raise _format(subject, "a line is too long or holds NUL or CR")
    _check_signature_lines(lines[end:], subject)
    text = b"\n".join([line[2:] if line[:2] == b"- " else line for line in body])
    named = b" ".join(lines[1:blank])
    hashes = frozenset(number for name, number in _STRONG.items() if name in named)
    return Message(text, b"\n".join(lines[end:]) + b"\n", hashes)


def _check_signature_lines(lines: list[bytes], subject: str) -> None:
    """Nothing but whole signature blocks, back to back."""
    inside = False
    for line in lines:
        if line == _BEGIN_SIGNATURE and not inside:
            inside = True
        elif line == _END_SIGNATURE and inside:
            inside = False
        elif not inside or line.startswith(b"-"):
            raise _format(subject, "something stands after the signature, or it is not closed")
    if inside:
        raise _format(subject, "the signature is cut off")


def _not_signed(data: bytes, subject: str) -> UntrustedIndex:
    start = data[:80].decode("ascii", "backslashreplace").encode("unicode_escape").decode()
    if _BEGIN in data:
        return _format(subject, "something stands before the signed part")
    return UntrustedIndex(
        "E_MIRROR_CAPTIVE",
        subject,
        f'not a signed Release file (begins "{start}")',
        hints=("is this a proxy or a login page?",),
    )


def _format(subject: str, detail: str) -> UntrustedIndex:
    return UntrustedIndex(
        "E_TRUST_FORMAT",
        subject,
        f"not a well-formed signed message: {detail}",
        hints=("try another mirror",),
    )


def parse(verified: Verified, source: Source) -> Release:
    """Return the Release that `verified` is, checked against what `source` wants (D-7, D-8, D-10, D-11)."""
    subject = f"{source.url}/dists/{source.suite}"
    try:
        text = verified.text.decode("utf-8")
    except UnicodeDecodeError:
        raise _field(subject, "is not UTF-8") from None
    fields = _fields(text, subject)
    release = Release(
        source=source,
        extract=text if verified.sha256 else extract(text, source.arch),
        sha256=verified.sha256 or hashlib.sha256(verified.text).hexdigest(),
        signers=verified.signers,
        until=verified.until,
        date=_time(fields, "date", subject),
        valid_until=_time(fields, "valid-until", subject) if "valid-until" in fields else None,
        origin=fields.get("origin", ""),
        label=fields.get("label", ""),
        suite=fields.get("suite", ""),
        codename=fields.get("codename", ""),
        by_hash=fields.get("acquire-by-hash", "").lower() == "yes",
        hashes=MappingProxyType(_hashes(fields.get("sha256", ""), subject)),
        index_arches=_index_arches(fields, source, subject),
    )
    _check_identity(release, source, subject)
    _check_components(fields, source, subject)
    return release


def extract(text: str, arch: str) -> str:
    """Return of a Release what `parse` looks at for `arch`: of its hashes, which are most of it, very few."""
    wanted = re.compile(rf"[ \t][^ \t/]+/binary-(?:{re.escape(arch)}|all)/Packages[^/]*$")
    lines = []
    block = ""
    for line in text.split("\n"):
        if line[:1] not in {" ", "\t"}:
            block = line.partition(":")[0].lower()
        elif block in _HASHES and (block != "sha256" or not wanted.search(line)):
            continue
        lines.append(line)
    return "\n".join(lines)


def _fields(text: str, subject: str) -> dict[str, str]:
    """Return the fields of one stanza, names in lower case; a name twice or a second stanza is an error."""
    fields: dict[str, list[str]] = {}
    value: list[str] = []
    for line in text.rstrip("\n").split("\n"):
        if line[:1] in {" ", "\t"} and fields and line.strip():
            value.append(line.strip(" \t"))
            continue
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _field(subject, f"a line is no field: {line[:40]!r}")
        if found[1].lower() in fields:
            raise _field(subject, f"{found[1]} stands twice")
        value = fields[found[1].lower()] = [found[2].strip(" \t")]
    return {name: "\n".join(lines) for name, lines in fields.items()}


def _time(fields: Mapping[str, str], name: str, subject: str) -> int:
    """Return a date of the form `Sat, 21 Nov 2026 09:15:44 UTC` in seconds since the epoch."""
    import calendar
    from datetime import datetime

    found = _DATE.fullmatch(fields.get(name, ""))
    if found is None or found[2] not in _MONTHS:
        raise _field(
            subject, f"{name.title()} is missing or no date: {fields.get(name, '')[:40]!r}"
        )
    day, year, hour, minute, second = (int(found[each]) for each in (1, 3, 4, 5, 6))
    try:
        moment = datetime(year, _MONTHS.index(found[2]) + 1, day, hour, minute, min(second, 59))
    except ValueError:
        raise _field(subject, f"{name.title()} is no date") from None
    return calendar.timegm(moment.timetuple())


def _hashes(block: str, subject: str) -> dict[str, tuple[str, int]]:
    """Return name → (SHA256, size). MD5Sum and SHA1 are as if they were not there (D-11)."""
    lines = [line for line in block.split("\n") if line]
    rows = _HASH_LINE.findall(block)
    if len(rows) != len(lines):
        bad = next(line for line in lines if _HASH_LINE.fullmatch(line) is None)
        raise _field(subject, f"SHA256 has a malformed line: {bad[:80]!r}")
    found: dict[str, tuple[str, int]] = {}
    for digest, size, name in rows:
        if name[0] == "/" or (".." in name and ".." in name.split("/")) or name in found:
            raise _field(subject, f"SHA256 names a file twice or outside the suite: {name[:80]!r}")
        found[name] = (digest, int(size))
        if found[name][1] > _MAX_SIZE:
            raise _field(subject, f"SHA256 names a file that is too large: {name[:80]!r}")
    if not found:
        raise UntrustedIndex(
            "E_TRUST_NOHASH",
            subject,
            "has no SHA256 checksums",
            hints=("MD5 and SHA-1 are not accepted",),
        )
    return found


def _check_identity(release: Release, source: Source, subject: str) -> None:
    if source.suite not in {release.suite, release.codename}:
        got = f"{release.suite!r} (codename {release.codename!r})"
        raise UntrustedIndex(
            "E_TRUST_SUITE",
            subject,
            f"asked for {source.suite}, got {got}",
            hints=("is the mirror's URL right?",),
        )
    wanted = (
        ("Origin", source.origin, release.origin),
        ("Label", source.label, release.label),
        ("Codename", source.codename, release.codename),
    )
    for name, expected, got in wanted:
        if expected and expected != got:
            raise UntrustedIndex(
                "E_TRUST_INFO",
                subject,
                f"{name} is {got!r}, not {expected!r}",
                hints=("is this the right archive?",),
            )


def _index_arches(fields: Mapping[str, str], source: Source, subject: str) -> tuple[str, ...]:
    """Return the architectures whose indexes are to be read: `all` has one of its own in few archives."""
    arches = [word for word in fields.get("architectures", "").split() if is_word(word)]
    if source.arch not in arches and arches != ["all"]:
        raise UntrustedIndex(
            "E_TRUST_ARCH",
            subject,
            f"has no {source.arch} (has {' '.join(arches)[:200]})",
            hints=("choose another --arch, or another mirror",),
        )
    apart = (
        "all" in arches
        and "Packages" not in fields.get("no-support-for-architecture-all", "").split()
    )
    own = (source.arch,) if source.arch in arches else ()
    return (*own, "all") if apart else own


def _check_components(fields: Mapping[str, str], source: Source, subject: str) -> None:
    there = {
        word.rpartition("/")[2] for word in fields.get("components", "").split() if is_word(word)
    }
    for component in source.components:
        if component.rpartition("/")[2] not in there:
            raise UntrustedIndex(
                "E_TRUST_COMPONENT",
                subject,
                f"has no component {component} (has {' '.join(sorted(there))[:200]})",
                hints=("is the mirror complete?",),
            )


def _field(subject: str, detail: str) -> UntrustedIndex:
    return UntrustedIndex("E_TRUST_FIELD", subject, detail, hints=("try another mirror",))
