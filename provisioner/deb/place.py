"""The door through which archive members enter a rootfs; runs inside it, where nothing else is in reach.

Packages are applied one after the other, in order, so who comes first is never a race. A file is created only where
nothing is (`O_EXCL`), straight under its own name: the tree is invisible until it is whole. What is already there is
decided by dpkg's rules: directories stay, symlinks to directories stay directories, another package's file is an
error unless one of the two Replaces the other, a conffile waits as `.dpkg-new`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from provisioner import member as members
from provisioner import tar
from provisioner.deb import database
from provisioner.deb.archive import Control, title
from provisioner.deb.database import Unpacked
from provisioner.deb.relation import parse_relations
from provisioner.deb.version import satisfies
from provisioner.errors import BadArchive
from provisioner.index import Package
from provisioner.inside import is_directory, is_there, read
from provisioner.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, Member, printable


class Placer:
    """Places the members of package after package; remembers what is whose."""

    def __init__(self, exclude: Callable[[bytes, bytes], bool] | None = None) -> None:
        """Read what an earlier layer's dpkg knows of diversions; owners only when there is a conflict.

        `exclude` tells by name and type which members are left out; they are recorded all the same, as dpkg does.
        """
        self._exclude = exclude
        self.installed: list[Unpacked] = []
        self.digests: dict[bytes, str] = {}  # md5 of files of packages without md5sums
        self.notes: list[str] = []
        self.newest = 0
        self._owner: dict[bytes, Unpacked] = {}
        self._earlier: dict[bytes, bytes] | None = None
        self._diverted = database.diversions()
        fresh = not read(database.ADMIN + b"status")
        self._fresh = fresh
        # Directories whose owner and mode nobody has said yet; in a fresh root that is the root itself.
        self._implied: set[bytes] = {b""} if fresh else set()
        self._times: dict[bytes, int] = {}
        self._package = Package(name="", version="", arch="")
        self._control: Control
        self._mine: dict[bytes, bytes] = {}  # this archive's names → their types
        self._regular: dict[bytes, bytes] = {}  # its regular files → where they were put
        self._conffiles: frozenset[bytes] = frozenset()

    def place(self, package: Package, control: Control, view: memoryview) -> None:
        """Unpack data.tar `view` of `package`.

        Raises BadArchive: E_ARCHIVE_*, E_ROOTFS_SYMLINK, E_IDMAP.
        """
        one = Unpacked(package=package, control=control)
        self._package, self._control = package, control
        self._mine, self._regular = {}, {}
        self._conffiles = frozenset(
            path for path, removed in database.conffiles(control) if not removed
        )
        hashed = "md5sums" not in control.files
        for member in tar.members(view, f"{title(package)}: data.tar"):
            self._admit(member)
            if self._exclude and self._exclude(member.name, member.kind):
                one.paths[member.name] = None
                self.newest = max(self.newest, member.mtime)
                continue
            if self._put(one, member, view):
                one.paths[member.name] = None
            self.newest = max(self.newest, member.mtime)
            if hashed and member.kind == FILE and member.name not in self._conffiles:
                data = view[member.offset : member.offset + member.size]
                self.digests[member.name] = database.md5(data)
        if not self._mine:
            raise BadArchive("E_ARCHIVE_TRUNC", title(package), "data.tar is empty")
        self.newest = max(self.newest, control.newest)
        self.installed.append(one)

    def is_for_dpkg(self, package: Package, control: Control, view: memoryview) -> bool:
        """Tell whether `package` may divert a file that is there: its preinst must run first, so dpkg unpacks it."""
        preinst = control.files.get("preinst")
        if self._fresh or preinst is None or b"dpkg-divert" not in preinst.body:
            return False
        found = tar.members(view, f"{title(package)}: data.tar")
        return any(m.kind != DIRECTORY and is_there(b"/" + m.name) for m in found)

    def finish(self) -> None:
        """Give the directories their times, now that nothing more is put into them."""
        for path, mtime in self._times.items():
            os.utime(b"/" + path, (mtime, mtime), follow_symlinks=False)

    def _admit(self, member: Member) -> None:
        """Refuse what contradicts the rest of its archive, or ids that no container has (T-22, T-27)."""
        before = self._mine.get(member.name)
        if before is not None and (before != DIRECTORY or member.kind != DIRECTORY):
            raise self._refuse("E_ARCHIVE_DUP", member.name, "is in the archive twice")
        members.check_ids(member, title(self._package))
        self._mine[member.name] = member.kind

    def _put(self, one: Unpacked, member: Member, view: memoryview) -> bool:
        """Make `member`; False where another package's file stays instead."""
        if member.kind == DIRECTORY:
            self._directory(member)
            return True
        path = self._target(member.name)
        data = view[member.offset : member.offset + member.size]
        try:
            self._make(path, member, data)
        except FileNotFoundError:
            self._parents(path)
            self._make(path, member, data)
        except FileExistsError:
            return self._make_instead(one, path, member, data)
        except NotADirectoryError:
            raise self._refuse(
                "E_ARCHIVE_DUP", member.name, "lies below what is no directory"
            ) from None
        except OSError as problem:
            if problem.errno == errno.ELOOP:
                raise self._refuse(
                    "E_ROOTFS_SYMLINK", member.name, "its directory is a loop"
                ) from None
            raise
        self._owner[path] = one
        return True

    def _make_instead(self, one: Unpacked, path: bytes, member: Member, data: memoryview) -> bool:
        """Make `member` in place of what is there, where that may be; tell whether the package has `path`."""
        if _leads_where(path, member):
            return True
        if not self._make_room(path, member):
            return False
        self._make(path, member, data)
        self._owner[path] = one
        return True

    def _target(self, name: bytes) -> bytes:
        """Return where `name` goes: aside where it is diverted or a conffile."""
        elsewhere = self._diverted.get(name)
        if elsewhere is not None and elsewhere[1] != self._package.name.encode():
            return elsewhere[0]
        return name + b".dpkg-new" if name in self._conffiles else name

    def _make(self, path: bytes, member: Member, data: memoryview) -> None:
        """Create `member` as `path`, where nothing may be."""
        place = b"/" + path
        if member.kind == FILE:
            self._regular[member.name] = path
            members.write(place, member, data, self._xattrs(member))
        elif member.kind == HARDLINK:
            source = tar.clean_name(member.link, title(self._package))
            if source not in self._regular:
                raise self._refuse(
                    "E_ARCHIVE_LINK", member.name, "links to no file of this archive"
                )
            os.link(b"/" + self._regular[source], place, follow_symlinks=False)
            self._regular[member.name] = path
        else:
            members.symlink(place, member)

    def _directory(self, member: Member) -> None:
        """Make the directory, or leave the one that is there; the first package that names it says how it is."""
        if not self._make_directory(member.name):
            return
        place = b"/" + member.name
        self._implied.discard(member.name)
        if member.uid or member.gid:
            members.own(place, member)
        if member.mode != 0o755 or not member.name:
            os.chmod(place, member.mode)
        for name, value in self._xattrs(member):
            os.setxattr(place, name, value)
        self._times[member.name] = members.mtime(member)

    def _make_directory(self, path: bytes) -> bool:
        """Have a directory at `path`; False where an earlier package, or a lower layer, has said how it is."""
        if path in self._implied:
            return True
        try:
            os.mkdir(b"/" + path, 0o755)
        except FileNotFoundError:
            self._parents(path)
            os.mkdir(b"/" + path, 0o755)
        except FileExistsError:
            if not is_directory(b"/" + path):
                raise self._refuse("E_ARCHIVE_DUP", path, "is no directory already") from None
            return False
        except NotADirectoryError:
            raise self._refuse("E_ARCHIVE_DUP", path, "lies below what is no directory") from None
        return True

    def _parents(self, path: bytes) -> None:
        """Make the directories above `path` that no package has named yet."""
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = b"/".join(parts[:depth])
            try:
                os.mkdir(b"/" + parent, 0o755)
                self._implied.add(parent)
            except FileExistsError:
                if not is_directory(b"/" + parent):
                    raise self._refuse(
                        "E_ROOTFS_SYMLINK", parent, "leads to no directory"
                    ) from None

    def _make_room(self, path: bytes, member: Member) -> bool:
        """Decide who has `path`: True once it is free for `member`, False where what is there stays."""
        status = os.lstat(b"/" + path)
        if stat.S_ISDIR(status.st_mode):
            raise self._refuse("E_ARCHIVE_DUP", member.name, "is a directory already")
        other = self._owner.get(path)
        if other is not None:
            if _replaces(other.control, self._package):
                return False
            self._check_replaces(member, other.package.name, other.package)
            other.paths.pop(path, None)
        else:
            self._take_from_earlier(path, member)
        os.unlink(b"/" + path)
        return True

    def _take_from_earlier(self, path: bytes, member: Member) -> None:
        """Take `path` over from a package of the layer below, if one has it."""
        if self._earlier is None:
            self._earlier = database.owners()
        stem = self._earlier.get(path)
        if stem is not None:
            name = stem.decode().partition(":")[0]
            self._check_replaces(member, name, Package(name=name, version="", arch=""))
            database.disown(stem, path)

    def _check_replaces(self, member: Member, name: str, other: Package) -> None:
        if not _replaces(self._control, other):
            raise self._refuse(
                "E_ARCHIVE_DUP", member.name, f"is in {name} and {self._package.name}"
            )

    def _xattrs(self, member: Member) -> members.Attributes:
        """Return the extended attributes that a package may bring; the others are named in a note."""
        if not member.xattrs:
            return []
        kept, dropped = members.attributes(member)
        self.notes += [
            f"{title(self._package)}: {printable(member.name)}: {name} dropped" for name in dropped
        ]
        return kept

    def _refuse(self, code: str, path: bytes, detail: str) -> BadArchive:
        return BadArchive(code, title(self._package), f'"{printable(path)}" {detail}')


def _leads_where(path: bytes, member: Member) -> bool:
    """Whether `path` is the same symlink to a directory as `member`: like directories, several packages may have it."""
    place = b"/" + path
    return (
        member.kind == SYMLINK
        and os.path.islink(place)
        and os.readlink(place) == member.link
        and is_directory(place)
    )


def _replaces(control: Control, other: Package) -> bool:
    """Tell whether `control` Replaces `other` (Policy 7.6.1); an unknown version counts as any."""
    return any(
        relation.name == other.name
        and (not other.version or satisfies(other.version, relation.operator, relation.version))
        for relation in parse_relations(control.fields.get("Replaces", "").replace("\n", " "))
    )
