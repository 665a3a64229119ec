"""The door through which an image's layer enters a root; runs inside it, where nothing else is in reach.

The root is an overlay over the layers below, so a removal becomes a whiteout and a directory that was emptied an
opaque one, by the kernel's own hand and in the form that the runtime mounts. What a layer hides is hidden first,
whatever the order in its archive; then its members replace what is there (image-spec, layer.md).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from provisioner import inside, tar
from provisioner import member as members
from provisioner.errors import BadArchive
from provisioner.tar import DIRECTORY, FILE, HARDLINK, NODES, Member, printable
from valuetypes import dataclass

_HIDE = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."  # AUFS's own notes: they say nothing of the tree
_MOST_NOTES = 10
_ORDINARY = (b"proc", b"sys", b"dev")  # what a start mounts over, and never through a link (T-02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One uncompressed layer, wholly there."""

    view: memoryview
    subject: str  # how messages call it
    whiteouts: bool = True  # a plain rootfs has none
    prefix: bytes = b""  # of an archive only what is below this directory, seen from there
    first_id: int = 0  # owners from here on are the container's own 0, 1, … (an LXC rootfs on disk)


def place(archive: Archive) -> tuple[int, list[str]]:
    """Unpack `archive` over the root that this process has pivoted into; return the latest time in it, and notes.

    Raises BadArchive: E_ARCHIVE_PATH, _LINK, _TYPE, _DUP, _LIMIT, _TRUNC, E_IMAGE_FORMAT, E_IDMAP, E_ROOTFS_SYMLINK.
    """
    os.umask(0o022)
    layer = _Layer(archive)
    try:
        layer.unpack()
    except RecursionError:
        raise BadArchive(
            "E_ARCHIVE_LIMIT", archive.subject, "directories nested too deep"
        ) from None
    except OSError as problem:
        if problem.errno != errno.ENAMETOOLONG:
            raise
        raise BadArchive("E_ARCHIVE_LIMIT", archive.subject, "a path is too long") from None
    return layer.newest, layer.notes()


def found(archive: Archive) -> Iterator[Member]:
    """Yield the members of `archive` that are meant, their names seen from its prefix."""
    top = archive.prefix
    try:
        for each in tar.members(archive.view, archive.subject, nodes=True):
            if top and each.name != top and not each.name.startswith(top + b"/"):
                continue
            link = each.link
            if top and each.kind == HARDLINK:
                link = tar.clean_name(link, archive.subject).removeprefix(top + b"/")
            uid, gid = (_shifted(number, archive.first_id) for number in (each.uid, each.gid))
            yield each._replace(
                name=each.name[len(top) + 1 :] if top else each.name, link=link, uid=uid, gid=gid
            )
    except BadArchive as refused:
        if refused.code == "E_DEB_FORMAT":  # the reader of tars speaks of packages
            raise BadArchive("E_IMAGE_FORMAT", refused.subject, refused.detail) from None
        raise


def _shifted(number: int, first: int) -> int:
    return number - first if number >= first else number


class _Layer:
    """One layer on its way into the root."""

    def __init__(self, archive: Archive) -> None:
        self.newest = 0
        self._archive = archive
        self._subject = archive.subject
        self._kinds: dict[bytes, bytes] = {}  # what this archive holds: names → types
        self._regular: set[bytes] = set()  # those of its regular files that were placed
        self._times: dict[bytes, int] = {}  # of directories: set when nothing more is put into them
        self._nodes = 0  # devices that were left out
        self._dropped: dict[str, int] = {}  # extended attributes: name → how many

    def notes(self) -> list[str]:
        """Return what was left out, in a few lines."""
        told = []
        if self._nodes:
            told.append(
                f"{self._subject}: {self._nodes} devices in dev/ left out: a start makes /dev"
            )
        for name, count in sorted(self._dropped.items())[:_MOST_NOTES]:
            told.append(f"{self._subject}: {name} dropped from {count} files")
        return told

    def unpack(self) -> None:
        """Look through the archive, hide what is to be hidden, place what there is."""
        for member in found(self._archive):
            self._admit(member)
        if self._archive.whiteouts:
            for member in found(self._archive):
                if self._is_note(member.name):
                    self._hide(member.name)
        for member in found(self._archive):
            if member.kind not in NODES and not self._is_note(member.name):
                self._put(member)
        for path, mtime in self._times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(b"/" + path, (mtime, mtime), follow_symlinks=False)

    def _is_note(self, name: bytes) -> bool:
        """Tell whether a member only says what is hidden."""
        return self._archive.whiteouts and name.rpartition(b"/")[2].startswith(_HIDE)

    def _admit(self, member: Member) -> None:
        """Refuse what contradicts the rest of the archive, and what no image may hold (T-22, T-27)."""
        name = member.name
        before = self._kinds.setdefault(name, member.kind)
        if (before == DIRECTORY) != (member.kind == DIRECTORY):
            raise self._refuse("E_ARCHIVE_DUP", name, "is a directory and none, in one archive")
        if member.kind in NODES:
            if not name.startswith(b"dev/"):
                raise self._refuse("E_ARCHIVE_TYPE", name, f"is a {NODES[member.kind]}")
            self._nodes += 1
            return
        if name in _ORDINARY and member.kind != DIRECTORY:
            raise self._refuse("E_ROOTFS_SYMLINK", name, "must be an ordinary directory")
        members.check_ids(member, self._subject)
        self._check_note(member)
        self.newest = max(self.newest, members.mtime(member))

    def _check_note(self, member: Member) -> None:
        """Refuse a whiteout of nothing, of `.` or `..`, one that is no file, and a directory that looks like one."""
        if not self._archive.whiteouts or _HIDE not in member.name:
            return
        folder, _, last = member.name.rpartition(b"/")
        hidden = last.removeprefix(_HIDE)
        wrong = any(part.startswith(_HIDE) for part in folder.split(b"/"))
        if last.startswith(_HIDE):
            wrong = wrong or hidden in (b"", b".", b"..") or member.kind not in (FILE, HARDLINK)
        if wrong:
            raise self._refuse("E_ARCHIVE_PATH", member.name, "hides no place below the root")

    def _hide(self, name: bytes) -> None:
        """Remove what the layers below have at the place that a whiteout names, or in its directory."""
        folder, _, last = name.rpartition(b"/")
        if last.startswith(_RESERVED) and last != _OPAQUE:
            return
        if not self._leads(folder):
            return
        top = b"/" + folder
        if last == _OPAQUE:
            for each in inside.listed(top):
                inside.delete(top + b"/" + each)
        elif inside.is_there(top + b"/" + last.removeprefix(_HIDE)):
            inside.delete(top + b"/" + last.removeprefix(_HIDE))

    def _leads(self, folder: bytes) -> bool:
        """Tell whether `folder` is a directory of the layers below, reached through no link.

        A link that this very layer replaces by a directory hides nothing. Through any other a whiteout would remove
        what it does not name.
        """
        parts = folder.split(b"/") if folder else []
        for depth in range(1, len(parts) + 1):
            path = b"/".join(parts[:depth])
            try:
                mode = os.lstat(b"/" + path).st_mode
            except FileNotFoundError:
                return False
            if stat.S_ISLNK(mode) and self._kinds.get(path) != DIRECTORY:
                raise self._refuse("E_ROOTFS_SYMLINK", folder, "is reached through a symlink")
            if not stat.S_ISDIR(mode):
                return False
        return True

    def _put(self, member: Member) -> None:
        """Make `member` in place of whatever is there."""
        try:
            self._make(member)
        except FileNotFoundError:
            self._parents(member.name)
            self._make(member)
        except NotADirectoryError:
            raise self._refuse(
                "E_ARCHIVE_DUP", member.name, "lies below what is no directory"
            ) from None
        except OSError as problem:
            if problem.errno != errno.ELOOP:
                raise
            raise self._refuse("E_ROOTFS_SYMLINK", member.name, "its directory is a loop") from None

    def _make(self, member: Member) -> None:
        place = b"/" + member.name
        if member.kind == DIRECTORY:
            self._directory(place, member)
            return
        source = self._source(member) if member.kind == HARDLINK else b""
        if source == member.name:
            return  # a file that is linked to itself is there
        if inside.is_there(place):
            inside.delete(place)
        self._regular.discard(member.name)
        if member.kind == HARDLINK:
            self._link(source, place, member)
        elif member.kind == FILE:
            data = self._archive.view[member.offset : member.offset + member.size]
            members.write(place, member, data, self._xattrs(member))
            self._regular.add(member.name)
        else:
            members.symlink(place, member)

    def _source(self, member: Member) -> bytes:
        """Return the file that a hard link names: one of this archive that was placed before it (T-28)."""
        source = tar.clean_name(member.link, self._subject)
        if source not in self._regular:
            raise self._refuse("E_ARCHIVE_LINK", member.name, "links to no file of this archive")
        return source

    def _link(self, source: bytes, place: bytes, member: Member) -> None:
        try:
            os.link(b"/" + source, place, follow_symlinks=False)
        except FileNotFoundError:
            if inside.is_there(b"/" + source):
                raise  # the directory of `place` is missing
            raise self._refuse(
                "E_ARCHIVE_LINK", member.name, "links to what was replaced"
            ) from None
        self._regular.add(member.name)

    def _directory(self, place: bytes, member: Member) -> None:
        """Have a directory with the owner, mode and attributes of `member`; what is in it stays."""
        if member.name:
            try:
                if not stat.S_ISDIR(os.lstat(place).st_mode):
                    os.unlink(place)
                    os.mkdir(place, 0o700)
            except FileNotFoundError:
                os.mkdir(place, 0o700)
        members.own(place, member)
        os.chmod(place, member.mode & 0o7777)
        for name, value in self._xattrs(member):
            os.setxattr(place, name, value)
        self._times[member.name] = members.mtime(member)

    def _parents(self, path: bytes) -> None:
        """Make the directories above `path` that nobody has named."""
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = b"/".join(parts[:depth])
            try:
                os.mkdir(b"/" + parent, 0o755)
            except FileExistsError:
                if not inside.is_directory(b"/" + parent):
                    raise self._refuse(
                        "E_ROOTFS_SYMLINK", parent, "leads to no directory"
                    ) from None

    def _xattrs(self, member: Member) -> members.Attributes:
        kept, dropped = members.attributes(member)
        for name in dropped:
            self._dropped[name] = self._dropped.get(name, 0) + 1
        return kept

    def _refuse(self, code: str, path: bytes, detail: str) -> BadArchive:
        return BadArchive(code, self._subject, f'"{printable(path)}" {detail}')
