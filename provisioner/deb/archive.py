"""A .deb file: deb(5)'s ar container, the control members in memory, data.tar as a bounded stream.

Two forms are read. A *packed* archive is the .deb as it was downloaded. A *raw* one is ours: both tars of one .deb,
decompressed and joined behind one block that says their sizes and their sha256, so that a package is decompressed
once per machine. Everything is checked before it is believed; nothing here touches a file system.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from provisioner import tar
from provisioner.errors import BadArchive
from provisioner.index import Package
from provisioner.inside import write_all
from valuetypes import dataclass

CHUNK = 1 << 20
CONTROL_LIMIT = 16 << 20  # bytes of control.tar, decompressed (T-24)
DATA_LIMIT = 8 << 30
DECODER_MEMORY = 192 << 20  # xz -9 needs 65 MiB
SECONDS = 120.0  # for one package's decompression

_MAGIC = b"!<arch>\n"
_AR_NAME = re.compile(rb"[a-z0-9_.-]{1,15}")
_AR_NUMBER = re.compile(rb"(0|[1-9][0-9]{0,9}) *")
_MEMBER = re.compile(rb"(control|data)\.tar(|\.gz|\.xz|\.zst)")
_SCRIPT_NAME = re.compile(rb"[a-z0-9][a-z0-9.+-]*")
_FIELD = re.compile(rb"([!-9;-~]+):[ \t]*(.*)")
_RAW = re.compile(rb"mktemplate raw archive 1\n([0-9]{1,12}) ([0-9]{1,12}) ([0-9a-f]{64})\n\0*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where one compressed tar lies in its .deb."""

    suffix: str  # "", "gz", "xz", "zst"
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The two members of a .deb that matter."""

    control: Span
    data: Span


class Decoder(Protocol):
    """What lzma, zlib and zstd have in common here."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended as it should."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after that end."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether it has nothing more to give before the next input."""
        ...

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Return at most `max_length` bytes."""
        ...


def layout(fd: int, subject: str) -> Layout:
    """Return where control.tar and data.tar lie in the archive open at `fd`.

    Raises BadArchive E_DEB_FORMAT: anything but deb(5)'s three members, exactly sized and in order (T-26).
    """
    size = os.fstat(fd).st_size
    if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
        raise BadArchive("E_DEB_FORMAT", subject, "bad magic: no ar archive")
    spans: dict[bytes, Span] = {}
    offset, first = len(_MAGIC), True
    while offset < size:
        name, start, length = _ar_header(fd, offset, size, subject)
        if first != (name == b"debian-binary"):
            raise BadArchive("E_DEB_FORMAT", subject, "debian-binary is not the first member")
        if first and not re.fullmatch(rb"2\.[0-9]+\n", os.pread(fd, min(length, 16), start)):
            raise BadArchive("E_DEB_FORMAT", subject, "debian-binary does not say 2.x")
        if not first and not name.startswith(b"_"):
            _add_span(
                spans, name, Span(suffix=_suffix(name, subject), offset=start, size=length), subject
            )
        first = False
        offset = start + length + length % 2
    if offset != size or set(spans) != {b"control", b"data"}:
        raise BadArchive(
            "E_DEB_FORMAT", subject, "members: control.tar or data.tar is missing or cut"
        )
    return Layout(control=spans[b"control"], data=spans[b"data"])


def _ar_header(fd: int, offset: int, size: int, subject: str) -> tuple[bytes, int, int]:
    """Return name, data offset and length of the ar member at `offset` (ar(5), common format)."""
    head = os.pread(fd, 60, offset)
    if len(head) != 60 or head[58:] != b"`\n":
        raise BadArchive("E_DEB_FORMAT", subject, f"ar header at {offset} is cut or damaged")
    name = head[:16].rstrip(b" ").removesuffix(b"/")
    length = _AR_NUMBER.fullmatch(head[48:58])
    if not _AR_NAME.fullmatch(name):
        raise BadArchive("E_DEB_FORMAT", subject, f'member name "{tar.printable(name)}"')
    if length is None:
        raise BadArchive("E_DEB_FORMAT", subject, f"size of {name.decode()}: {head[48:58]!r}")
    if offset + 60 + int(length[1]) > size:
        raise BadArchive("E_ARCHIVE_TRUNC", subject, f"{name.decode()} ends after the file")
    return name, offset + 60, int(length[1])


def _suffix(name: bytes, subject: str) -> str:
    match = _MEMBER.fullmatch(name)
    if not match:
        raise BadArchive("E_DEB_FORMAT", subject, f"member {name.decode()} is not known")
    return match[2].decode().removeprefix(".")


def _add_span(spans: dict[bytes, Span], name: bytes, span: Span, subject: str) -> None:
    kind = name.split(b".", 1)[0]
    if kind in spans or (kind == b"control" and spans):
        raise BadArchive("E_DEB_FORMAT", subject, f"member {name.decode()} is out of order")
    spans[kind] = span


class _Gzip:
    """zlib with the methods of lzma's decompressor."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


class _Plain:
    """A tar that is not compressed ends where its member ends."""

    eof = True
    unused_data = b""
    needs_input = True

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        del max_length  # the input is no larger
        return data


def decoder(suffix: str) -> Decoder:
    """Return a fresh decoder; import zstd's before any fork: a sandboxed child cannot."""
    if suffix == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECODER_MEMORY)
    if suffix == "zst":
        return zstd_decoder()()
    return _Gzip() if suffix == "gz" else _Plain()


def zstd_decoder() -> Callable[[], Decoder]:
    """Return the class that decodes zstd: the standard library's from 3.14 on, else its backport."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore] # from 3.14 on
    except ImportError:
        from backports import zstd  # type: ignore[no-redef,import-not-found,import-untyped,unused-ignore] # the same
    decoder: Callable[[], Decoder] = zstd.ZstdDecompressor
    return decoder


def inflate(fd: int, span: Span, limit: int, subject: str) -> Iterator[bytes]:
    """Yield the decompressed bytes of `span`, at most `limit` of them.

    Raises BadArchive: E_ARCHIVE_BOMB (more), E_ARCHIVE_TRUNC (stream not ended, or bytes after its end),
    E_DEB_FORMAT (damaged), E_ARCHIVE_LIMIT (time, decoder memory).
    """
    stream = decoder(span.suffix)
    deadline = time.monotonic() + SECONDS
    total = 0
    for data in _pieces(fd, span):
        if stream.eof and span.suffix:
            raise BadArchive("E_ARCHIVE_TRUNC", subject, "bytes after the compressed stream")
        piece = data
        while True:
            out = step(stream, piece, subject)
            total += len(out)
            if total > limit:
                raise BadArchive("E_ARCHIVE_BOMB", subject, f"more than {limit} bytes")
            if time.monotonic() > deadline:
                raise BadArchive(
                    "E_ARCHIVE_LIMIT", subject, f"more than {SECONDS:.0f} s to decompress"
                )
            yield out
            if stream.eof or stream.needs_input:
                break
            piece = b""
    if not stream.eof or stream.unused_data:
        raise BadArchive("E_ARCHIVE_TRUNC", subject, "the compressed stream has no proper end")


def step(stream: Decoder, piece: bytes, subject: str) -> bytes:
    """Return what `stream` makes of `piece`, at most CHUNK bytes; BadArchive for what is damaged."""
    try:
        return stream.decompress(piece, CHUNK)
    except (lzma.LZMAError, zlib.error, ValueError, EOFError) as problem:
        code = "E_ARCHIVE_LIMIT" if "Memory usage limit" in str(problem) else "E_DEB_FORMAT"
        raise BadArchive(code, subject, f"compressed data: {problem}") from problem
    except Exception as problem:  # each zstd module has an error class of its own
        raise BadArchive("E_DEB_FORMAT", subject, f"compressed data: {problem}") from problem


def _pieces(fd: int, span: Span) -> Iterator[bytes]:
    offset, end = span.offset, span.offset + span.size
    while offset < end:
        data = os.pread(fd, min(CHUNK, end - offset), offset)
        if not data:
            return  # the decoder's end decides
        offset += len(data)
        yield data


def data_limit(package: Package) -> int:
    """Return how many bytes data.tar of `package` may have (T-24)."""
    return min(DATA_LIMIT, package.installed_size * 4 + (256 << 20))


def unfold(fd: int, out: int, package: Package) -> None:
    """Write the raw archive of the .deb at `fd` to the file at `out`; the .deb's sha256 is checked first (I-12)."""
    subject = title(package)
    if package.sha256 and file_sha256(fd) != package.sha256:
        raise BadArchive("E_CORRUPT", subject, "the cached archive no longer has its sha256")
    place = layout(fd, subject)
    digest = hashlib.sha256()
    sizes = []
    os.lseek(out, tar.BLOCK, os.SEEK_SET)
    for span, limit, name in (
        (place.control, CONTROL_LIMIT, "control.tar"),
        (place.data, data_limit(package), "data.tar"),
    ):
        size = 0
        for piece in inflate(fd, span, limit, f"{subject}: {name}"):
            digest.update(piece)
            size += len(piece)
            write_all(out, piece)
        sizes.append(size)
    head = f"mktemplate raw archive 1\n{sizes[0]} {sizes[1]} {digest.hexdigest()}\n".encode()
    os.pwrite(out, head.ljust(tar.BLOCK, b"\0"), 0)


def copy(fd: int, out: int, package: Package) -> None:
    """Copy the .deb at `fd` to the file at `out`, its sha256 checked on the way."""
    digest, offset = hashlib.sha256(), 0
    while data := os.pread(fd, CHUNK, offset):
        digest.update(data)
        write_all(out, data)
        offset += len(data)
    if digest.hexdigest() != package.sha256:
        detail = "the cached archive no longer has its sha256"
        raise BadArchive("E_CORRUPT", title(package), detail)


def file_sha256(fd: int) -> str:
    """Return the sha256 of the whole file open at `fd`; its offset is not used."""
    digest, offset = hashlib.sha256(), 0
    while data := os.pread(fd, CHUNK, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()


def split_raw(view: memoryview) -> tuple[memoryview, memoryview] | None:
    """Return control.tar and data.tar of the raw archive `view`; None where it is damaged or of another version."""
    head = _RAW.fullmatch(view[: tar.BLOCK])
    if head is None or len(view) != tar.BLOCK + int(head[1]) + int(head[2]):
        return None
    if hashlib.sha256(view[tar.BLOCK :]).hexdigest().encode() != head[3]:
        return None
    return halves(view)


def halves(view: memoryview) -> tuple[memoryview, memoryview]:
    """Return control.tar and data.tar of a raw archive that is known to be whole."""
    head = _RAW.fullmatch(view[: tar.BLOCK])
    if head is None:
        raise ValueError("not a raw archive")
    middle = tar.BLOCK + int(head[1])
    return view[tar.BLOCK : middle], view[middle:]


def title(package: Package) -> str:
    """Return what people call the archive of `package`."""
    return f"{package.name}_{package.version}_{package.arch}.deb"


class ControlFile(NamedTuple):
    """One member of a control archive."""

    body: bytes
    mode: int
    mtime: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The control archive of one package."""

    fields: dict[str, str]  # in the file's order, continuation lines kept as they are
    files: dict[str, ControlFile]  # every member but `control`
    stanza: bytes  # `control`, without blank lines
    newest: int  # the latest mtime inside


def read_control(view: memoryview, package: Package) -> Control:
    """Return the control members of `package`, held against its index entry (D-16).

    Raises BadArchive E_ARCHIVE_*, E_DEB_FORMAT, E_TRUST_MISMATCH.
    """
    subject = title(package)
    files: dict[str, ControlFile] = {}
    newest = 0
    for member in tar.members(view, f"{subject}: control.tar"):
        newest = max(newest, member.mtime)
        if member.kind == tar.DIRECTORY and not member.name:
            continue
        if member.kind != tar.FILE or not _SCRIPT_NAME.fullmatch(member.name):
            name = tar.printable(member.name)
            raise BadArchive("E_ARCHIVE_TYPE", subject, f'control.tar: "{name}" is no plain file')
        if member.name.decode() in files:
            raise BadArchive("E_ARCHIVE_DUP", subject, f"control.tar: {member.name.decode()} twice")
        body = bytes(view[member.offset : member.offset + member.size])
        files[member.name.decode()] = ControlFile(body, member.mode & 0o755, member.mtime)
    stanza = files.pop("control", ControlFile(b"", 0, 0)).body.strip(b"\n") + b"\n"
    fields = parse_stanza(stanza, subject)
    for key, wanted in (
        ("Package", package.name),
        ("Version", package.version),
        ("Architecture", package.arch),
    ):
        if fields.get(key) != wanted:
            detail = f"control says {key}: {fields.get(key)!r}, the index {wanted!r}"
            raise BadArchive("E_TRUST_MISMATCH", subject, detail)
    return Control(fields=fields, files=files, stanza=stanza, newest=newest)


def parse_stanza(text: bytes, subject: str) -> dict[str, str]:
    """Return the fields of one deb822 stanza in their order; values keep their continuation lines.

    Raises BadArchive E_DEB_FORMAT for a duplicate field or a line that is none.
    """
    fields: dict[str, str] = {}
    key = ""
    for line in text.rstrip(b"\n").split(b"\n"):
        if line[:1] in (b" ", b"\t") and key:
            fields[key] += "\n" + line.decode("utf-8", "surrogateescape")
            continue
        match = _FIELD.fullmatch(line)
        key = match[1].decode() if match else ""
        if match is None or key in fields:
            raise BadArchive("E_DEB_FORMAT", subject, f'control: line "{tar.printable(line)}"')
        fields[key] = match[2].rstrip().decode("utf-8", "surrogateescape")
    return fields
