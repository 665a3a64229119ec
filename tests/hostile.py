"""Archives that no honest tool makes: tar, ar and .deb bytes with each field as a test wants it."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provisioner.index import Package


@dataclass(frozen=True, kw_only=True)
class Item:
    """One tar member."""

    name: bytes
    body: bytes = b""
    kind: bytes = b"0"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: bytes = b""
    mtime: int = 1_700_000_000
    pax: Mapping[str, bytes] = field(default_factory=dict)
    size: bytes | None = None  # the raw size field


def directory(name: bytes, mode: int = 0o755) -> Item:
    return Item(name=name, kind=b"5", mode=mode)


def file(name: bytes, body: bytes = b"new\n", mode: int = 0o644) -> Item:
    return Item(name=name, body=body, mode=mode)


def symlink(name: bytes, target: bytes) -> Item:
    return Item(name=name, kind=b"2", link=target, mode=0o777)


def hardlink(name: bytes, target: bytes) -> Item:
    return Item(name=name, kind=b"1", link=target)


def header(item: Item, kind: bytes, name: bytes, size: int) -> bytes:
    def octal(value: int, width: int) -> bytes:
        text = b"%0*o" % (width - 1, value)
        return text + b"\0" if len(text) < width else b"\x80" + value.to_bytes(width - 1, "big")

    length = item.size if item.size is not None and kind == item.kind else octal(size, 12)
    block = bytearray(
        name[:100].ljust(100, b"\0") + octal(item.mode, 8) + octal(item.uid, 8) + octal(item.gid, 8)
        + length + octal(item.mtime, 12) + b" " * 8 + kind + item.link[:100].ljust(100, b"\0")
        + b"ustar\x0000" + bytes(32) + bytes(32) + octal(0, 8) + octal(0, 8) + bytes(155) + bytes(12)
    )  # fmt: skip
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(body: bytes) -> bytes:
    return body + bytes(-len(body) % 512)


def tar(items: Sequence[Item], end: bytes = bytes(1024)) -> bytes:
    out = []
    for item in items:
        pax = dict(item.pax)
        if len(item.name) > 100:
            pax.setdefault("path", item.name)
        if len(item.link) > 100:
            pax.setdefault("linkpath", item.link)
        if pax:
            records = b"".join(record(key.encode(), value) for key, value in pax.items())
            out.append(header(item, b"x", b"PaxHeaders/x", len(records)) + padded(records))
        out.append(header(item, item.kind, item.name, len(item.body)) + padded(item.body))
    return b"".join(out) + end


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def ar(members: Sequence[tuple[bytes, bytes]]) -> bytes:
    out = b"!<arch>\n"
    for name, body in members:
        out += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(body))
        out += body + b"\n" * (len(body) % 2)
    return out


@dataclass(frozen=True, kw_only=True)
class HostileDeb:
    """A .deb of any content; `fields` are added to its control file."""

    name: str
    items: Sequence[Item] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    control: Sequence[Item] = ()
    data: bytes | None = None  # data.tar itself
    compress: str = "gz"

    @property
    def bytes(self) -> bytes:
        stanza = {"Package": self.name, "Version": "1", "Architecture": "all"} | dict(self.fields)
        text = "".join(f"{key}: {value}\n" for key, value in stanza.items())
        text += "Maintainer: Nobody <nobody@example.org>\nDescription: hostile\n"
        control = tar([directory(b"./"), file(b"./control", text.encode()), *self.control])
        data = tar(self.items) if self.data is None else self.data
        pack = {"gz": lambda body: gzip.compress(body, mtime=0), "xz": lzma.compress, "": bytes}[
            self.compress
        ]
        ending = f".{self.compress}".rstrip(".").encode()
        return ar(
            [
                (b"debian-binary", b"2.0\n"),
                (b"control.tar" + ending, pack(control)),
                (b"data.tar" + ending, pack(data)),
            ]
        )


def cached(deb: HostileDeb, cache: Path) -> Package:
    """Put `deb` into `cache` as a download would; return its index entry."""
    return cached_bytes(deb.name, deb.bytes, cache)


def cached_bytes(name: str, body: bytes, cache: Path, installed: int = 1 << 20) -> Package:
    digest = hashlib.sha256(body).hexdigest()
    folder = cache / "sha256" / digest[:2]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(body)
    return Package(
        name=name, version="1", arch="all", sha256=digest, size=len(body), installed_size=installed
    )
