"""Package files that were given by path (`--packages ./x.deb`): read as the resolver reads an index, kept in the cache.

They are the caller's own word: nobody signed them, so their origin is `local` wherever packages are listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mktemplate.cli.arguments import is_package_file
from mktemplate.errors import CommandError, escape
from provisioner.deb.index import IDENTITY, package_of
from provisioner.download import admit
from provisioner.index import Package
from provisioner.store import Store

_LARGEST_CONTROL = 16 << 20  # bytes, T-24
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def take(
    wanted: Sequence[str], arch: str, store: Store
) -> tuple[tuple[str, ...], tuple[Package, ...]]:
    """Return the names that are wanted, and the packages among them, for `arch`, that were given as files."""
    local = {word: _package(Path(word), arch, store) for word in wanted if is_package_file(word)}
    names = tuple(
        f"{local[word].name}={local[word].version}" if word in local else word for word in wanted
    )
    return names, tuple(local.values())


def _package(path: Path, arch: str, store: Store) -> Package:
    shown = escape(str(path))
    try:
        with path.open("rb") as file, admit(file, store.cache) as copy:
            stanza = _stanza(copy.descriptor, shown)
    except OSError as error:
        raise CommandError(
            "E_PARAM", f"--packages {shown}", error.strerror or "unreadable"
        ) from None
    _check(stanza, arch, shown)
    if not _NUMBER.fullmatch(stanza.get("installed-size", "")):
        stanza["installed-size"] = "0"  # dpkg-deb does not insist on it
    url = path.absolute().as_uri()
    return package_of(stanza, size=copy.size, sha256=copy.sha256, url=url, origin="local")


def _check(stanza: Mapping[str, str], arch: str, shown: str) -> None:
    """Refuse what is no package, or none for `arch`."""
    for name, rule in IDENTITY:
        if not rule.fullmatch(stanza.get(name, "")):
            raise CommandError("E_DEB_FORMAT", shown, f"has no valid {name.title()}")
    its = stanza.get("architecture", "")
    if its not in (arch, "all"):
        raise CommandError("E_PARAM", f"--packages {shown}", f"is for {escape(its)}, not {arch}")


def _stanza(descriptor: int, shown: str) -> dict[str, str]:
    from provisioner import tar  # only a package that was given is opened here
    from provisioner.deb import archive

    span = archive.layout(descriptor, shown).control
    raw = memoryview(b"".join(archive.inflate(descriptor, span, _LARGEST_CONTROL, shown)))
    for member in tar.members(raw, f"{shown}: control.tar"):
        if member.name == b"control":
            text = bytes(raw[member.offset : member.offset + member.size]).strip(b"\n") + b"\n"
            fields = archive.parse_stanza(text, shown)
            return {key.lower(): value for key, value in fields.items()}
    raise CommandError("E_DEB_FORMAT", shown, "control.tar holds no control")
