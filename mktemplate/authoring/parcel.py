"""Templates in transit: what a folder, a tar or a git repository holds of them, as bytes in memory.

Everything in it is hostile. Only the files that a template is made of are taken, by name; nothing is unpacked to disk,
no link is followed, and git neither checks out nor runs anything of what it fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mktemplate.authoring import cloning
from mktemplate.errors import CommandError, escape
from mktemplate.template import library
from provisioner import tar
from provisioner.deb import archive
from provisioner.errors import BadArchive
from provisioner.fetch import HttpFetch
from provisioner.image import blob
from valuetypes import dataclass

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_OURS = re.compile(rf"(?:template\.toml|tests\.toml|README\.md|LICENSE|(?:files/)?{_PART}\.j2)")
_TAR = re.compile(r"\.(?:tar|tar\.gz|tgz|tar\.xz|tar\.zst)", re.ASCII)
_LARGEST = 16 << 20  # bytes of a tar, and of all that it holds
_MOST = 1000  # files
_FACTS = "template.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """The files of templates by their path in the source; `top` is what the source itself is called."""

    files: Mapping[str, bytes]
    top: str
    revision: str = ""  # git's commit, or the SHA-256 of the tar


def read(source: str) -> Parcel:
    """Return what SOURCE holds: a folder, a tar (a file or an address), or what git clones."""
    address, _, reference = source.partition("#")
    if cloning.is_repository(address):
        fetched = cloning.fetch(address, reference)
        return _of_tar(fetched.tar, _stem(address), fetched.commit, source)
    if address.startswith(("http://", "https://")) and _TAR.search(address):
        with HttpFetch(os.environ) as fetch:
            body = fetch.document(address, _LARGEST)
        return _of_tar(body, _stem(address), hashlib.sha256(body).hexdigest(), address)
    path = Path(source)
    if path.is_dir():
        return Parcel(files=dict(_of_folder(path.absolute())), top=path.absolute().name)
    if path.is_file():
        body = _content(path)
        return _of_tar(body, _stem(path.name), hashlib.sha256(body).hexdigest(), source)
    raise CommandError(
        "E_USAGE",
        escape(source),
        "is neither a folder nor a file, nor an address that is known",
        hints=(
            "https://HOST/NAME.tar.gz, or for git https://HOST/NAME.git, ssh://…, USER@HOST:PATH",
        ),
    )


def lasting(source: str) -> str:
    """Return how SOURCE is called from anywhere."""
    path, mark, reference = source.partition("#")
    return f"{os.path.abspath(path)}{mark}{reference}" if os.path.exists(path) else source


def _stem(address: str) -> str:
    last = address.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return _TAR.split(last)[0].removesuffix(".git")


def _content(path: Path) -> bytes:
    with open(path, "rb") as file:
        body = file.read(_LARGEST + 1)
    if len(body) > _LARGEST:
        raise _too_large(str(path))
    return body


def _too_large(subject: str) -> CommandError:
    return CommandError("E_ARCHIVE_LIMIT", escape(subject), f"larger than {_LARGEST >> 20} MiB")


def _of_folder(top: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the template in `top`, or of those in its folders."""
    folder = library.OnDisk(str(top), top.name)
    for place in ("", *(f"{name}/" for name in folder.names("") if not name.startswith("."))):
        if _FACTS not in folder.names(place.rstrip("/")):
            continue
        below = [f"files/{name}" for name in folder.names(f"{place}files")]
        for name in (*folder.names(place.rstrip("/")), *below):
            if _OURS.fullmatch(name):
                yield f"{place}{name}", folder.read(f"{place}{name}")


def _of_tar(body: bytes, stem: str, revision: str, subject: str) -> Parcel:
    """Return the templates in the bytes of a tar; one folder that holds all of it gives its name."""
    try:
        plain = _plain(body, escape(subject))
        found = dict(_members(plain, escape(subject)))
    except BadArchive as refused:
        if refused.code != "E_DEB_FORMAT":
            raise
        raise CommandError("E_ARCHIVE_TYPE", refused.subject, refused.detail) from None
    tops = {name.partition("/")[0] for name in found}
    if len(tops) == 1 and _FACTS not in found:
        [stem] = tops
        found = {name.partition("/")[2]: content for name, content in found.items()}
    return Parcel(files=found, top=stem, revision=revision)


def _plain(body: bytes, subject: str) -> bytes:
    """Return the bytes of a tar uncompressed, at most _LARGEST of them."""
    with os.fdopen(os.memfd_create("parcel", os.MFD_CLOEXEC), "w+b", 0) as file:
        file.write(body)
        piece = blob.Piece(fd=file.fileno(), offset=0, size=len(body))
        span = archive.Span(offset=0, size=len(body), suffix=blob.suffix(piece))
        return b"".join(archive.inflate(file.fileno(), span, _LARGEST, subject))


def _members(plain: bytes, subject: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files that templates are made of; a link in the place of one is refused, what else there is, left."""
    seen: set[bytes] = set()
    for number, member in enumerate(tar.members(memoryview(plain), subject)):
        if number > _MOST:
            raise BadArchive("E_ARCHIVE_LIMIT", subject, f"more than {_MOST} members")
        name = _known(member.name)
        if not name or member.kind == tar.DIRECTORY:
            continue
        if member.kind != tar.FILE:
            raise BadArchive("E_ARCHIVE_LINK", subject, f'"{name}" is a link')
        if member.name in seen:
            raise BadArchive("E_ARCHIVE_DUP", subject, f'"{name}" is in it twice')
        seen.add(member.name)
        yield name, plain[member.offset : member.offset + member.size]


def _known(path: bytes) -> str:
    """Return the path of a file of a template, "" where it is none: at most two folders above it."""
    name = path.decode("ascii", "replace")
    match = re.fullmatch(rf"((?:{_PART}/){{0,2}})({_OURS.pattern})", name, re.ASCII)
    return name if match else ""


def templates(parcel: Parcel) -> dict[str, dict[str, bytes]]:
    """Return the files of each template in a parcel by its name; E_NOTFOUND where there is none."""
    found: dict[str, dict[str, bytes]] = {}
    for path in parcel.files:
        folder, _, name = path.rpartition("/")
        if name == _FACTS:
            prefix = f"{folder}/" if folder else ""
            found[folder.rpartition("/")[2] or parcel.top] = {
                name: body
                for each, body in parcel.files.items()
                if each.startswith(prefix) and _OURS.fullmatch(name := each.removeprefix(prefix))
            }
    if not found:
        raise CommandError("E_NOTFOUND", escape(parcel.top), f"holds no template: no {_FACTS}")
    return found


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of a template's files: sha256sum of what sha256sum prints for all of them, sorted."""
    lines = (
        f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in sorted(files.items())
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()
