"""Entries → one tar stream, the same bytes for the same entries: ustar, PAX where ustar has no room (pax(1)).

Owners are numbers, times whole seconds, and no name of a user stands in it. Devices and sockets are left out: every
engine makes its own. It is written by hand because `tarfile` is slow, and opens by path what must go by descriptor.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable

from provisioner.content import OPAQUE
from provisioner.errors import StoreFailed
from provisioner.export.view import Entry
from provisioner.tar import BLOCK, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK
from valuetypes import dataclass

Write = Callable[[bytes], object]

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_PIECE = 1 << 20  # bytes that are read at once
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_MOST = {"uid": 0o7777777, "gid": 0o7777777, "size": 0o77777777777}  # that ustar can say
_SPARSE = 1 << 30  # bytes from which a file that is mostly holes is refused
_ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_")
_NAMESPACED, _PLAIN = 0x03000000, 0x02000000  # revisions of security.capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a member is beside its content."""

    name: str  # with a slash at the end where it is a directory
    kind: bytes = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Archive:
    """A tar stream on its way to `write`."""

    def __init__(self, write: Write) -> None:
        """Begin an empty archive."""
        self._write = write
        self._links: dict[tuple[int, int], str] = {}  # inode with several names → its first one

    def add(self, entry: Entry, name: str) -> None:
        """Add `entry` as `name`. Raises StoreFailed E_IO where it changes meanwhile, E_LIMIT for mere holes."""
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            self._directory(entry, name)
        elif stat.S_ISREG(mode):
            self._regular(entry, name)
        elif stat.S_ISLNK(mode):
            link = os.readlink(entry.name, dir_fd=entry.directory)
            self._head(_head(entry, name, SYMLINK, link=link))
        elif stat.S_ISFIFO(mode):
            self._head(_head(entry, name, FIFO))

    def file(self, name: str, body: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a file of root's that is no entry."""
        self._head(Head(name=name, mode=mode, size=len(body), mtime=mtime))
        self._write(body)
        self._pad(len(body))

    def directory(self, name: str, *, mode: int = 0o755, mtime: int = 0) -> None:
        """Add a directory of root's that is no entry."""
        self._head(Head(name=f"{name}/", kind=DIRECTORY, mode=mode, mtime=mtime))

    def link(self, name: str, target: str, *, mtime: int = 0) -> None:
        """Add a symlink of root's that is no entry."""
        self._head(Head(name=name, kind=SYMLINK, mode=0o777, mtime=mtime, link=target))

    def take(self, name: str, source: int, size: int, *, mtime: int = 0) -> None:
        """Add a file of root's whose `size` bytes are read from the descriptor `source`."""
        self._head(Head(name=name, size=size, mtime=mtime))
        self._content(source, size, name)

    def remark(self, name: str, text: str) -> None:
        """Add a comment on the whole archive, which unpacking skips; `name` is that of its header (pax(1))."""
        body = _record("comment", text.encode())
        self._write(_block(Head(name=name, size=len(body)), b"g"))
        self._write(body)
        self._pad(len(body))

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))

    def _directory(self, entry: Entry, name: str) -> None:
        fd = os.open(
            entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=entry.directory
        )
        try:
            xattrs = _attributes(fd)
        finally:
            os.close(fd)
        self._head(_head(entry, f"{name}/", DIRECTORY, xattrs=xattrs))

    def _regular(self, entry: Entry, name: str) -> None:
        status = entry.status
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                self._head(_head(entry, name, HARDLINK, link=first))
                return
        if entry.is_emptied:
            self._head(_head(entry, name, FILE))
            return
        if status.st_size > max(_SPARSE, 16 * 512 * status.st_blocks):
            detail = f"{status.st_size >> 30} GiB of holes: a file of {status.st_blocks >> 11} MiB"
            raise StoreFailed("E_LIMIT", entry.path, detail, hints=("remove it first",))
        fd = os.open(entry.name, _FILE, dir_fd=entry.directory)
        try:
            if not os.path.samestat(os.fstat(fd), status):
                raise _changed(entry.path)
            self._head(_head(entry, name, FILE, size=status.st_size, xattrs=_attributes(fd)))
            self._content(fd, status.st_size, entry.path)
        finally:
            os.close(fd)

    def _content(self, fd: int, size: int, shown: str) -> None:
        left = size
        while left and (data := os.read(fd, min(left, _PIECE))):
            self._write(data)
            left -= len(data)
        if left:
            raise _changed(shown)
        self._pad(size)

    def _pad(self, size: int) -> None:
        if size % BLOCK:
            self._write(bytes(BLOCK - size % BLOCK))

    def _head(self, head: Head) -> None:
        """Write the header of a member, a PAX one before it where it has no room."""
        records = b"".join(_record(key, value) for key, value in _extended(head))
        if records:
            self._write(_block(Head(name="pax", size=len(records), mtime=head.mtime), b"x"))
            self._write(records)
            self._pad(len(records))
        self._write(_block(head, head.kind))


def _changed(path: str) -> StoreFailed:
    return StoreFailed("E_IO", path, "changed while it was read", hints=("stop the container",))


def _head(
    entry: Entry,
    name: str,
    kind: bytes,
    *,
    size: int = 0,
    link: str = "",
    xattrs: tuple[tuple[str, bytes], ...] = (),
) -> Head:
    status = entry.status
    return Head(
        name=name, kind=kind, mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid,
        size=size, mtime=entry.mtime, link=link, xattrs=xattrs,
    )  # fmt: skip


def _attributes(fd: int) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes that mean the same elsewhere."""
    try:
        names = os.listxattr(fd)
    except OSError:  # a file system without them
        return ()
    return tuple(
        (name, _capability(os.getxattr(fd, name)) if name == "security.capability" else os.getxattr(fd, name))
        for name in sorted(names)
        if name.startswith(_ATTRIBUTES) and not name.startswith(OPAQUE.rpartition(".")[0])
    )  # fmt: skip


def _capability(value: bytes) -> bytes:
    """Return file capabilities without the user namespace that gave them (capabilities(7), revision 3)."""
    (magic,) = struct.unpack_from("<I", value)
    if magic & 0xFF000000 != _NAMESPACED:
        return value
    return struct.pack("<I", _PLAIN | magic & 0x00FFFFFF) + value[4:20]


def _extended(head: Head) -> list[tuple[str, bytes]]:
    """Return what of `head` only PAX can say."""
    name, link = os.fsencode(head.name), os.fsencode(head.link)
    found = [] if _split(name) else [("path", name)]
    if len(link) > 100:
        found.append(("linkpath", link))
    found += [
        (key, str(getattr(head, key)).encode())
        for key, most in _MOST.items()
        if getattr(head, key) > most
    ]
    found += [(f"SCHILY.xattr.{key}", value) for key, value in head.xattrs]
    return found


def _record(key: str, value: bytes) -> bytes:
    """Return one PAX record: its own length, blank, key=value, newline."""
    rest = b" %s=%s\n" % (os.fsencode(key), value)
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d%s" % (length, rest)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return prefix and name as ustar has them, None where they have no room."""
    if len(name) <= 100:
        return b"", name
    at = name.find(b"/", len(name) - 101, len(name) - 1)
    if at < 1 or at > 155:
        return None
    return name[:at], name[at + 1 :]


def _block(head: Head, kind: bytes) -> bytes:
    """Return the ustar header; what a PAX one says better is cut."""
    prefix, name = _split(os.fsencode(head.name)) or (b"", os.fsencode(head.name)[:100])
    numbers = {key: getattr(head, key) for key in _MOST}
    uid, gid, size = (value if value <= _MOST[key] else 0 for key, value in numbers.items())
    fields = [
        name, b"%07o\0" % head.mode, b"%07o\0" % uid, b"%07o\0" % gid, b"%011o\0" % size,
        b"%011o\0" % head.mtime, b" " * 8, kind, os.fsencode(head.link)[:100], b"ustar\0", b"00",
        b"", b"", b"%07o\0" % 0, b"%07o\0" % 0, prefix,
    ]  # fmt: skip
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)
