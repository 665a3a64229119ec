"""Which suites are read, and at which mirrors, in the order in which these are tried.

`choose` is pure: what the environment, the config file and the host's apt say is handed in (`host_mirrors`). Of the
host's apt only http(s) addresses are taken; whether something there is Debian is decided by our own pinned keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from provisioner.distro.series import Distro, Mirror, Suite
from provisioner.errors import ProvisionError, UntrustedIndex
from provisioner.url import check_url
from valuetypes import dataclass, replace

_WORD = re.compile(r"[a-z0-9][a-z0-9.+/-]{0,63}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_MAX_APT_FILE = 1 << 20  # bytes
_MOMENT = "{timestamp}"  # what --as-of takes the place of


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One suite at one mirror, with what its Release file must say and whose signature it must bear."""

    distro: str  # "" for a third-party repository
    suite: str
    url: str  # the mirror's root, without a slash at its end
    components: tuple[str, ...]
    arch: str
    role: str = "release"  # release, updates, security, extra
    keys: tuple[str, ...] = ()  # primary fingerprints that may sign; () = each one in `keyring`
    keyring: Path | None = None  # a file given with --keyring or Signed-By
    key_text: bytes = b""  # or the key itself, from Signed-By
    origin: str = ""  # "" = not checked, here and in the next two
    label: str = ""
    codename: str = ""
    optional: bool = False  # that it is missing at every mirror is a note
    only: tuple[str, ...] | None = None  # packages that may come from it; None = as the role says
    min_signers: int = 1  # how many of the keys must have signed
    unverified: bool = False  # --grant trust:none
    as_of: str = ""  # the moment of a snapshot, whose state is kept apart from today's

    @property
    def name(self) -> str:
        """What a person calls it: `debian trixie-updates`, or host and suite of a third-party repository."""
        return f"{self.distro or urlsplit(self.url).netloc} {self.suite}"


@dataclass(frozen=True, slots=True)
class HostMirror:
    """An address that the host's apt uses for a suite."""

    url: str
    suite: str


def asked_mirror(option: str, environ: Mapping[str, str], config: str) -> str:
    """Return the mirror that takes the place of all others: --mirror, MKTEMPLATE_MIRROR, the config file's, or ""."""
    url = option or environ.get("MKTEMPLATE_MIRROR", "") or config
    return check_url(url) if url else ""


def choose(
    distro: Distro,
    release: str,
    arch: str,
    *,
    mirror: str = "",
    host: Iterable[HostMirror] = (),
    keyring: Path | None = None,
) -> tuple[tuple[Source, ...], ...]:
    """Return for each suite of `release` its sources, the preferred mirror first.

    `mirror` (see `asked_mirror`) replaces every other; `keyring` (--keyring) replaces the pinned keys. The order of
    the suites is release, updates, security.
    """
    from provisioner.distro import architecture, series

    row = series(distro, release)
    own_arch = architecture(distro, arch)
    places = _asked(mirror) if mirror else _usual(distro, own_arch, tuple(host))
    return tuple(
        tuple(
            Source(
                distro=distro.name,
                suite=suite.name,
                url=url,
                components=distro.components,
                arch=own_arch,
                role=suite.role,
                keys=() if keyring else suite.keys,
                keyring=keyring,
                origin=suite.origin,
                label=suite.label,
                codename=suite.codename,
                optional=bool(mirror) and suite.role != "release",
            )
            for url in dict.fromkeys(places(suite))
        )
        for suite in row.suites
    )


def choose_past(
    distro: Distro,
    release: str,
    arch: str,
    as_of: str,
    *,
    mirror: str = "",
    keyring: Path | None = None,
) -> tuple[tuple[Source, ...], ...]:
    """Return what `choose` does, as it was at the moment `as_of` (YYYYMMDDTHHMMSSZ): only snapshots of it count.

    `mirror` is a pattern with a part `{timestamp}`; without it the distribution's own archive of its past is meant.
    Raises E_PARAM where neither is there.
    """
    if mirror:
        rows = _past_mirrors(mirror)
    elif distro.snapshot:
        rows = (distro.snapshot,)
    else:
        hint = "name one: --mirror http://HOST/…/{timestamp}/…"
        raise ProvisionError(
            "E_PARAM", distro.name, "no archive of its past is known", hints=(hint,)
        )
    then = tuple(
        replace(
            row,
            url=row.url.replace(_MOMENT, as_of),
            security=row.security.replace(_MOMENT, as_of),
        )
        for row in rows
    )
    groups = choose(replace(distro, mirrors=then), release, arch, keyring=keyring)
    return tuple(
        tuple(
            replace(
                source, url=check_url(source.url), as_of=as_of, optional=source.role != "release"
            )
            for source in group
        )
        for group in groups
    )


def _past_mirrors(pattern: str) -> tuple[Mirror, ...]:
    """Return where the suites are; -security at the last element X of the pattern as X-security, else with the rest."""
    url = pattern.rstrip("/")
    if _MOMENT not in url.split("/"):
        hint = "write http://HOST/…/{timestamp}/… where it has the moment"
        raise ProvisionError("E_PARAM", url, "is of no other day: no {timestamp}/", hints=(hint,))
    last = f"/{_MOMENT}" if url.endswith(f"/{_MOMENT}") else ""  # X is the element before
    beside = f"{url.removesuffix(last)}-security{last}"
    return Mirror(url=url, security=beside), Mirror(url=url)


def _asked(mirror: str) -> Callable[[Suite], Iterator[str]]:
    """Offer everything at `mirror`; -security beside it, at its last element X as X-security, else below it."""
    url = check_url(mirror)

    def places(suite: Suite) -> Iterator[str]:
        if suite.role == "security" and urlsplit(url).path not in {"", "/"}:
            yield f"{url}-security"
        yield url

    return places


def _usual(
    distro: Distro, arch: str, host: tuple[HostMirror, ...]
) -> Callable[[Suite], Iterator[str]]:
    """Offer the host's own mirrors, then the built-in ones."""
    known = {suite.name: suite.role for row in distro.releases for suite in row.suites}
    for row in distro.releases:
        known |= {
            alias + suite.name.removeprefix(row.name): suite.role
            for alias in row.aliases
            for suite in row.suites
        }
    built_in = [entry for entry in distro.mirrors if not entry.arches or arch in entry.arches]

    def places(suite: Suite) -> Iterator[str]:
        security = suite.role == "security"
        for entry in host:
            role = known.get(entry.suite)
            if role is not None and (role == "security") == security:
                yield entry.url
        for place in built_in:
            yield _address(place, distro, security=security)

    return places


def _address(mirror: Mirror, distro: Distro, *, security: bool) -> str:
    pattern = mirror.security if security and mirror.security else mirror.url
    return pattern.format(name=distro.name)


def host_mirrors(etc_apt: Path = Path("/etc/apt")) -> tuple[HostMirror, ...]:
    """Return the http(s) addresses of the host's apt sources, in apt's order (sources.list(5)).

    Options, keys and pins of the entries are ignored (R-7); so is an entry that is malformed, flat or of another
    scheme: it is somebody else's file.
    """
    folder = etc_apt / "sources.list.d"
    try:
        parts = sorted(folder.iterdir())
    except OSError:
        parts = []
    found: list[HostMirror] = []
    for file in (etc_apt / "sources.list", *parts):
        text = _text_of(file)
        entries = _deb822_entries(text) if file.suffix == ".sources" else _line_entries(text)
        if file.suffix in {".list", ".sources"}:
            found += [HostMirror(url, suite) for url, suite in entries]
    return tuple(dict.fromkeys(found))


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(_MAX_APT_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def _line_entries(text: str) -> Iterator[tuple[str, str]]:
    """`deb [option=value …] URI SUITE COMPONENT…`."""
    for line in text.split("\n"):
        bare = re.sub(r"\[[^\]]*\]", " ", line.split("#", 1)[0], count=1)
        words = bare.split()
        if len(words) >= 4 and words[0] == "deb":
            yield from _entries([words[1]], [words[2]])


def _deb822_entries(text: str) -> Iterator[tuple[str, str]]:
    for fields in stanzas(text):
        on = fields.get("enabled", "yes").strip().lower() not in {"no", "false", "0", "off"}
        if on and "deb" in fields.get("types", "").split() and fields.get("components", "").split():
            yield from _entries(fields.get("uris", "").split(), fields.get("suites", "").split())


def _entries(urls: Iterable[str], suites: Iterable[str]) -> Iterator[tuple[str, str]]:
    names = [suite for suite in suites if not suite.endswith("/") and is_word(suite)]
    for url in urls:
        try:
            good = check_url(url)
        except ProvisionError:
            continue
        yield from ((good, name) for name in names)


def is_word(text: str) -> bool:
    """Whether `text` can be a suite, component or architecture (D-1)."""
    return bool(_WORD.fullmatch(text)) and ".." not in text and "//" not in text


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a deb822 text, field names in lower case, continuation lines joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.replace("\r\n", "\n").split("\n"), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line[1:]
        elif line[0] != "#":
            key, colon, value = line.partition(":")
            name = key.strip().lower() if colon else ""
            if name:
                fields[name] = value.strip()


def parse_repository(text: str, arch: str, *, where: str) -> tuple[tuple[Source, ...], ...]:
    """Return the third-party sources of a deb822 text (sources.list(5)), one group for each suite of each stanza.

    Fields: Types URIs Suites Components Signed-By, and ours: Fingerprint (who signs, full and required) and Include
    (the packages that may come from here). `where` names the text in errors.
    """
    groups = [group for fields in stanzas(text) for group in _repository(fields, arch, where=where)]
    if not groups:
        raise _bad_field(where, "holds no repository", "write Types, URIs, Suites and Components")
    return tuple(groups)


def _repository(
    fields: Mapping[str, str], arch: str, *, where: str
) -> Iterator[tuple[Source, ...]]:
    urls, suites, components = (
        tuple(fields.get(key, "").split()) for key in ("uris", "suites", "components")
    )
    only = tuple((fields.get("include") or fields.get("only") or "").split()) or None
    _check_repository(fields, arch, where=where)
    keys, keyring, key_text = _signers(fields, where)
    for suite in suites:
        yield tuple(
            Source(
                distro="",
                suite=suite,
                url=check_url(url),
                components=components,
                arch=arch,
                role="extra",
                keys=keys,
                keyring=keyring,
                key_text=key_text,
                only=only,
            )
            for url in urls
        )


def _check_repository(fields: Mapping[str, str], arch: str, *, where: str) -> None:
    """Raise E_PARAM for the first field that cannot be meant."""
    for key in ("uris", "suites", "components"):
        if not fields.get(key, "").split():
            raise _bad_field(where, f"a repository lacks {key.capitalize()}", "see sources.list(5)")
    if fields.get("types", "deb").split() != ["deb"]:
        raise _bad_field(where, "Types must be `deb`", "sources of packages are not used")
    words = f"{fields['suites']} {fields['components']}".split()
    bad = [word for word in words if not is_word(word) or word.endswith("/")]
    if bad:
        raise _bad_field(where, f"{bad[0]!r} is no suite or component", "flat ones do not work")
    names = f"{fields.get('include', '')} {fields.get('only', '')}".split()
    bad = [name for name in names if not _PACKAGE.fullmatch(name)]
    if bad:
        raise _bad_field(where, f"{bad[0]!r} is no package name", "Include takes package names")
    arches = fields.get("architectures", arch).split()
    if arch not in arches:
        raise _bad_field(where, f"is not for {arch}", f"its Architectures are {' '.join(arches)}")


def _signers(fields: Mapping[str, str], where: str) -> tuple[tuple[str, ...], Path | None, bytes]:
    """Who may sign, and where the key is: a file, or the key's text itself with `.` for its empty lines."""
    keys = tuple(word.upper() for word in fields.get("fingerprint", "").replace(",", " ").split())
    signed_by = fields.get("signed-by", "").strip()
    if not signed_by:
        raise UntrustedIndex(
            "E_TRUST_NOKEYRING", where, "the repository names no key", hints=("add Signed-By",)
        )
    if "BEGIN PGP PUBLIC KEY BLOCK" in signed_by:
        lines = ["" if line.strip() == "." else line.strip() for line in signed_by.split("\n")]
        keyring, key_text = None, "\n".join(lines).encode() + b"\n"
    elif signed_by.startswith("/"):
        keyring, key_text = Path(signed_by), b""
    else:
        raise _bad_field(where, "Signed-By is neither a path nor a key", "write an absolute path")
    if not keys:
        raise _bad_field(
            where, "Fingerprint is missing", "write the key's 40 digits, `Fingerprint: …`"
        )
    for key in keys:
        if not _FINGERPRINT.fullmatch(key):
            raise _bad_field(
                where, f"{key!r} is no full fingerprint", "it has 40 hexadecimal digits"
            )
    return keys, keyring, key_text


def _bad_field(where: str, detail: str, hint: str) -> ProvisionError:
    return ProvisionError("E_PARAM", where, detail, hints=(hint,), path=where)
