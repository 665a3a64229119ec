"""Images in files: an OCI layout (folder or archive), a docker-archive, an LXC tar, a plain rootfs tar.

What a file is, its own members say, not its name. A name in an archive is looked up, never opened as a path.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from provisioner import tar
from provisioner.errors import BadArchive, ProvisionError, UntrustedIndex
from provisioner.image import blob as blobs
from provisioner.image import config as configs
from provisioner.image import document, manifest, place
from provisioner.image.blob import Blob, Image, Piece
from provisioner.image.manifest import Descriptor, Index, Platform
from provisioner.image.unpack import nothing_in, unfolded, view
from provisioner.provision import Tools
from valuetypes import dataclass, replace

_LAYOUT, _INDEX, _SAVED = b"oci-layout", b"index.json", b"manifest.json"
_HEX_JSON = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?", re.ASCII)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TOPS = (b"usr", b"bin", b"etc", b"lib", b"sbin", b"var")  # a system has one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """A root file system without a description, or with LXC's."""

    subject: str
    digest: str  # of the uncompressed archive
    archive: place.Archive
    lxc_config: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked for in a file."""

    platform: Platform
    name: str = ""  # of several images, the one that is called so


@contextmanager
def opened(path: str, subject: str, wanted: Wanted, tools: Tools) -> Iterator[Image | Rootfs]:
    """Find the image in the file or folder `path`; it can be unpacked as long as the block lasts.

    Raises BadArchive, UntrustedIndex, ProvisionError (E_PARAM where it cannot be read, or holds several images).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise ProvisionError("E_PARAM", subject, problem.strerror or "cannot be read") from None
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            yield _in_layout(_Folder(fd, subject), subject, wanted)
        elif stat.S_ISREG(kind):
            with _in_file(fd, subject, wanted, tools) as found:
                yield found
        else:
            raise ProvisionError("E_PARAM", subject, "is neither a file nor a folder")
    finally:
        os.close(fd)


@contextmanager
def _in_file(fd: int, subject: str, wanted: Wanted, tools: Tools) -> Iterator[Image | Rootfs]:
    whole = Piece(fd=fd, offset=0, size=os.fstat(fd).st_size)
    if blobs.suffix(whole):
        with unfolded(whole, subject, tools) as (raw, digest):
            yield _in_tar(raw, subject, wanted) or _rootfs(raw, digest, subject)
        return
    found = _in_tar(fd, subject, wanted)
    if found is not None:
        yield found
        return
    with unfolded(whole, subject, tools) as (raw, digest):  # a copy that nobody else can change
        yield _rootfs(raw, digest, subject)


def _in_tar(fd: int, subject: str, wanted: Wanted) -> Image | None:
    """Return the image that an open tar is, None where it is a root file system."""
    packed = _Packed(fd, subject)
    if packed.has(_LAYOUT) and packed.has(_INDEX):
        return _in_layout(packed, subject, wanted)
    if packed.has(_SAVED):
        return _saved(packed, subject, wanted)
    return None


def _rootfs(fd: int, digest: str, subject: str) -> Rootfs:
    packed = _Packed(fd, subject)
    prefix = b"" if any(map(packed.has_top, _TOPS)) else b"rootfs"
    if prefix and not packed.has_top(prefix):
        raise nothing_in(subject)
    lxc = packed.read(b"config", document.LARGEST) if prefix and packed.has(b"config") else None
    archive = place.Archive(view=view(fd), subject=subject, whiteouts=False, prefix=prefix)
    return Rootfs(subject=subject, digest=digest, archive=archive, lxc_config=lxc)


class _Packed:
    """The members of an open, uncompressed tar, by name."""

    def __init__(self, fd: int, subject: str) -> None:
        self._fd = fd
        self._subject = subject
        self._members: dict[bytes, tar.Member] = {}
        self._tops: set[bytes] = set()
        self._twice: set[bytes] = set()
        for each in place.found(place.Archive(view=view(fd), subject=subject)):
            self._tops.add(each.name.partition(b"/")[0])
            if each.kind in (tar.FILE, tar.SYMLINK, tar.HARDLINK):
                if each.name in self._members:
                    self._twice.add(each.name)
                self._members[each.name] = each

    def has(self, name: bytes) -> bool:
        """Tell whether there is such a file."""
        return name in self._members

    def has_top(self, name: bytes) -> bool:
        """Tell whether anything is called, or below, `name`."""
        return name in self._tops

    def piece(self, name: bytes) -> Piece:
        """Return where the file `name` lies; Docker of old says with a link that a layer is there twice."""
        if name in self._twice:  # another reader could take the other one
            detail = f'"{tar.printable(name[:120])}" is in it twice'
            raise BadArchive("E_ARCHIVE_DUP", self._subject, detail)
        member = self._members.get(name)
        if member is not None and member.kind == tar.SYMLINK:
            member = self._members.get(_joined(name, member.link))
        elif member is not None and member.kind == tar.HARDLINK:
            member = self._members.get(member.link.removeprefix(b"./"))
        if member is None or member.kind != tar.FILE:
            detail = f'"{tar.printable(name[:120])}" is missing in it'
            raise BadArchive("E_IMAGE_FORMAT", self._subject, detail)
        return Piece(fd=self._fd, offset=member.offset, size=member.size)

    def read(self, name: bytes, limit: int) -> bytes:
        """Return the file `name` of at most `limit` bytes."""
        return _content(self.piece(name), limit, self._subject)

    @contextmanager
    def blob(self, digest: str) -> Iterator[Piece]:
        """Open the blob of a layout."""
        yield self.piece(b"blobs/sha256/" + digest.partition(":")[2].encode())


def _joined(name: bytes, link: bytes) -> bytes:
    """Return the name that a relative link at `name` means; it is only looked up."""
    parts = name.split(b"/")[:-1]
    for part in link.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _content(piece: Piece, limit: int, subject: str) -> bytes:
    if piece.size > limit:
        raise BadArchive("E_ARCHIVE_LIMIT", subject, f"a document of more than {limit} bytes")
    return os.pread(piece.fd, piece.size, piece.offset)


class _Folder:
    """An OCI layout on disk: each component opened by itself, none of them a link."""

    def __init__(self, fd: int, subject: str) -> None:
        self._fd = fd
        self._subject = subject

    def read(self, name: bytes, limit: int) -> bytes:
        """Return the file `name` of at most `limit` bytes."""
        with self._open(self._fd, os.fsdecode(name)) as piece:
            return _content(piece, limit, self._subject)

    @contextmanager
    def blob(self, digest: str) -> Iterator[Piece]:
        """Open a blob."""
        held = []
        try:
            at = self._fd
            for name in ("blobs", "sha256"):
                held.append(self._opened(at, name, _DIRECTORY))
                at = held[-1]
            with self._open(at, digest.partition(":")[2]) as piece:
                yield piece
        finally:
            for fd in held:
                os.close(fd)

    @contextmanager
    def _open(self, at: int, name: str) -> Iterator[Piece]:
        fd = self._opened(at, name, _FILE)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise BadArchive("E_IMAGE_FORMAT", self._subject, f'"{name}" is no regular file')
            yield Piece(fd=fd, offset=0, size=status.st_size)
        finally:
            os.close(fd)

    def _opened(self, at: int, name: str, flags: int) -> int:
        try:
            return os.open(name, flags, dir_fd=at)
        except OSError as problem:
            detail = f'"{name[:80]}": {problem.strerror}'
            raise BadArchive("E_IMAGE_FORMAT", self._subject, detail) from None


def _in_layout(layout: _Folder | _Packed, subject: str, wanted: Wanted) -> Image:
    """Return the image of an OCI layout (image-layout.md)."""
    said = document.parse(layout.read(_LAYOUT, document.LARGEST), subject)
    version = document.text(said, "imageLayoutVersion", subject)
    if not version.startswith("1."):
        raise document.malformed(subject, "is no OCI layout of version 1")
    index = manifest.parse(layout.read(_INDEX, document.LARGEST), subject, manifest.OCI_INDEX)
    if not isinstance(index, Index):
        raise document.malformed(subject, "its index.json is no index")

    def read(each: Descriptor) -> bytes:
        with layout.blob(each.digest) as piece:
            return blobs.verified(_content(piece, document.LARGEST, subject), each, subject)

    found = manifest.resolve(_named(index, subject, wanted), read, wanted.platform, subject)
    config = configs.parse(read(found.config), subject)
    configs.check(config, len(found.layers), wanted.platform, subject)
    layers = tuple(
        Blob(diff_id=diff_id, digest=each.digest, opened=partial(_sized, layout, each, subject))
        for each, diff_id in zip(found.layers, config.diff_ids, strict=True)
    )
    return Image(subject=subject, digest=found.digest, config=config, layers=layers)


@contextmanager
def _sized(layout: _Folder | _Packed, wanted: Descriptor, subject: str) -> Iterator[Piece]:
    with layout.blob(wanted.digest) as piece:
        if piece.size != wanted.size:
            detail = f"{wanted.digest[:19]}… has {piece.size} bytes, promised are {wanted.size}"
            raise UntrustedIndex("E_TRUST_SIZE", subject, detail)
        yield piece


def _named(index: Index, subject: str, wanted: Wanted) -> Descriptor:
    """Return the entry of a layout's index that is meant."""
    entries = index.manifests
    if wanted.name:
        entries = tuple(each for each in entries if _is_called(each.name, wanted.name))
    names = tuple(dict.fromkeys(each.name for each in entries))
    if len(names) != 1:
        raise _which(subject, wanted, tuple(each.name for each in index.manifests))
    if len(entries) == 1:
        return entries[0]
    return manifest.choose(replace(index, manifests=entries), wanted.platform, subject)


def _is_called(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f":{wanted}")


def _which(subject: str, wanted: Wanted, names: tuple[str, ...]) -> ProvisionError:
    there = ", ".join(sorted(set(filter(None, names)))[:20])
    detail = f'holds no image "{wanted.name}"' if wanted.name else "holds several images"
    if not names:
        return document.malformed(subject, "holds no image")
    hints = (f"say which with --image: {there}",) if there else ()
    return ProvisionError("E_PARAM", subject, detail, hints=hints)


def _saved(packed: _Packed, subject: str, wanted: Wanted) -> Image:
    """Return the image of a docker-archive: what `docker save` wrote."""
    rows = document.parse_list(packed.read(_SAVED, document.LARGEST), subject)
    entries = [each for each in rows if isinstance(each, dict)]
    tags = [document.texts(each, "RepoTags", subject) for each in entries]
    chosen = [
        each
        for each, names in zip(entries, tags, strict=True)
        if not wanted.name or any(_is_called(name, wanted.name) for name in names)
    ]
    if len(chosen) != 1:
        raise _which(subject, wanted, tuple(name for names in tags for name in names))
    return _saved_image(chosen[0], packed, subject, wanted)


def _saved_image(entry: dict[str, object], packed: _Packed, subject: str, wanted: Wanted) -> Image:
    name = document.text(entry, "Config", subject)
    body = packed.read(name.encode("utf-8", "surrogateescape"), document.LARGEST)
    said = _HEX_JSON.fullmatch(name)
    if said:  # the name is a promise
        promised = Descriptor(digest=f"sha256:{said[1]}", size=len(body))
        blobs.verified(body, promised, subject)
    config = configs.parse(body, subject)
    paths = document.texts(entry, "Layers", subject)
    if len(paths) > manifest.MOST_LAYERS:
        raise BadArchive("E_ARCHIVE_LIMIT", subject, f"more than {manifest.MOST_LAYERS} layers")
    configs.check(config, len(paths), wanted.platform, subject)
    layers = tuple(
        Blob(diff_id=diff_id, opened=partial(_open_layer, packed, path))
        for path, diff_id in zip(paths, config.diff_ids, strict=True)
    )
    return Image(subject=subject, digest="", config=config, layers=layers)


def _open_layer(packed: _Packed, path: str) -> AbstractContextManager[Piece]:
    return nullcontext(packed.piece(path.encode("utf-8", "surrogateescape")))
