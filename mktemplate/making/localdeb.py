"""Package files that were given by path (`--packages ./x.deb`): read as the resolver reads an index, kept in the cache.

They are the caller's own word: nobody signed them, so their origin is `local` wherever packages are listed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from mktemplate.cli.arguments import is_package_file
from mktemplate.errors import CommandError, escape
from provisioner import disk
from provisioner.deb.index import IDENTITY, package_of
from provisioner.download import object_path
from provisioner.index import Package
from provisioner.store import Store

_LARGEST_CONTROL = 16 << 20  # bytes, T-24
_PIECE = 1 << 20  # bytes
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
        with path.open("rb") as file:
            sha256, size, stanza = _kept(file, store.cache, shown)
    except OSError as error:
        raise CommandError(
            "E_PARAM", f"--packages {shown}", error.strerror or "unreadable"
        ) from None
    _check(stanza, arch, shown)
    if not _NUMBER.fullmatch(stanza.get("installed-size", "")):
        stanza["installed-size"] = "0"  # dpkg-deb does not insist on it
    url = path.absolute().as_uri()
    return package_of(stanza, size=size, sha256=sha256, url=url, origin="local")


def _check(stanza: Mapping[str, str], arch: str, shown: str) -> None:
    """Refuse what is no package, or none for `arch`."""
    for name, rule in IDENTITY:
        if not rule.fullmatch(stanza.get(name, "")):
            raise CommandError("E_DEB_FORMAT", shown, f"has no valid {name.title()}")
    its = stanza.get("architecture", "")
    if its not in (arch, "all"):
        raise CommandError("E_PARAM", f"--packages {shown}", f"is for {escape(its)}, not {arch}")


def _kept(file: BinaryIO, cache: Path, shown: str) -> tuple[str, int, dict[str, str]]:
    """Copy a package into the cache, whole or not at all; return the copy's hash, size and control stanza."""
    unnamed = os.open(cache / "sha256", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o444)
    with open(unnamed, "w+b") as copy:
        found = hashlib.sha256()
        while piece := file.read(_PIECE):
            found.update(piece)
            copy.write(piece)
        copy.flush()
        stanza = _stanza(unnamed, shown)
        target = object_path(cache, found.hexdigest())
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        disk.name(unnamed, target)
        return found.hexdigest(), copy.tell(), stanza


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
