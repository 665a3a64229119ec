"""Package files that were given by path (`--packages ./x.deb`): read as the resolver reads an index, kept in the cache.

They are the caller's own word: nobody signed them, so their origin is `local` wherever packages are listed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mktemplate.arguments import is_package_file
from mktemplate.errors import CommandError, escape
from provisioner import disk
from provisioner.deb import relation
from provisioner.download import object_path
from provisioner.index import Package
from provisioner.store import Store

_LARGEST_CONTROL = 16 << 20  # bytes, T-24
_PIECE = 1 << 20  # bytes


def take(wanted: Sequence[str], store: Store) -> tuple[tuple[str, ...], tuple[Package, ...]]:
    """Return the names that are wanted, and the packages among them that were given as files."""
    local = {word: _package(Path(word), store) for word in wanted if is_package_file(word)}
    names = tuple(
        f"{local[word].name}={local[word].version}" if word in local else word for word in wanted
    )
    return names, tuple(local.values())


def _package(path: Path, store: Store) -> Package:
    shown = escape(str(path))
    try:
        with path.open("rb") as file:
            sha256, size, stanza = _kept(file, store.cache, shown)
    except OSError as error:
        raise CommandError(
            "E_PARAM", f"--packages {shown}", error.strerror or "unreadable"
        ) from None
    draft = Package(name=stanza["package"], version=stanza["version"], arch=stanza["architecture"])
    return replace(
        draft,
        pre_depends=tuple(relation.parse_clauses(stanza.get("pre-depends", ""))),
        depends=tuple(relation.parse_clauses(stanza.get("depends", ""))),
        recommends=tuple(relation.parse_clauses(stanza.get("recommends", ""))),
        suggests=tuple(relation.parse_clauses(stanza.get("suggests", ""))),
        provides=tuple(relation.parse_relations(stanza.get("provides", ""))),
        conflicts=tuple(relation.parse_relations(stanza.get("conflicts", ""))),
        breaks=tuple(relation.parse_relations(stanza.get("breaks", ""))),
        priority=stanza.get("priority", "optional"),
        multi_arch=stanza.get("multi-arch", "no"),
        size=size,
        installed_size=_kibibytes(stanza.get("installed-size", "0")),
        sha256=sha256,
        url=path.absolute().as_uri(),
        origin="local",
    )


def _kibibytes(text: str) -> int:
    return int(text) << 10 if text.isascii() and text.isdigit() and len(text) < 10 else 0


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
