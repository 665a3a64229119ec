"""A tree made real in a rootfs; runs inside it, where a symlink cannot lead out.

Accounts come first, so that owners can be named. What lies below /run, /tmp and /dev is left to the container's init:
there an empty file system is mounted at each start.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from types import MappingProxyType

from provisioner import accounts, inside
from provisioner.accounts import Numbers
from provisioner.errors import ProvisionError
from provisioner.tree import Adjust, Copy, Directory, Fetched, File, Link, Placed, Special, Tree

_TEMPORARY = b".mktemplate-new"
_CHUNK = 1 << 20  # bytes
NONE: Mapping[str, int] = MappingProxyType({})
_MODES = {"passwd": 0o644, "group": 0o644, "shadow": 0o640, "gshadow": 0o640}


def plant(tree: Tree, epoch: int, fetched: Mapping[str, int] = NONE) -> None:
    """Make `tree` in the root that this process has pivoted into; `epoch` dates new accounts.

    `fetched` holds for each sha256 of a Fetched an open file, which is hashed while it is copied.
    Raises ProvisionError E_CORRUPT (such a file is another), E_USER (no such owner), E_TEMPLATE_PATH (a directory on
    the way is none), E_ROOTFS_FILE (something of another kind is in the way).
    """
    os.umask(0o022)
    known = _plant_accounts(tree, epoch)
    for node in tree.kept:
        place = os.fsencode(node.path)
        if not isinstance(node, Adjust):
            _parents(place)
        try:
            if isinstance(node, Fetched):
                _plant_fetched(place, node, known, fetched[node.sha256])
            else:
                _plant(place, node, known)
        except (NotADirectoryError, FileNotFoundError) as problem:
            detail = f"{problem.strerror}: {os.fsdecode(problem.filename or b'')}"
            raise ProvisionError("E_TEMPLATE_PATH", node.path, detail) from problem
        except FileExistsError as problem:
            detail = "something of another kind is there"
            raise ProvisionError("E_ROOTFS_FILE", node.path, detail) from problem


def _plant_accounts(tree: Tree, epoch: int) -> Numbers:
    """Write the accounts that are not there yet; return who is who."""
    before = {
        name: inside.read(b"/etc/" + name.encode()).decode("utf-8", "surrogateescape")
        for name in accounts.FILES
    }
    after = accounts.extend(before, tree.accounts, epoch // 86_400) if tree.accounts else before
    if tree.alone:
        after = accounts.alone(after)
    known = accounts.numbers(after)
    for name, text in after.items():
        if text != before[name]:
            _parents(b"/etc/passwd")
            body = text.encode("utf-8", "surrogateescape")
            group = known.groups.get("shadow", 0) if "shadow" in name else 0
            _replace_keeping(b"/etc/" + name.encode(), body, _MODES[name], group)
    return known


def _replace_keeping(place: bytes, body: bytes, mode: int, group: int) -> None:
    """Replace a file's content at once, with the mode and owner that it had; `mode` and `group` for a new one."""
    owner = 0
    if inside.is_there(place):
        status = os.lstat(place)
        owner, group, mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
    inside.put(place + _TEMPORARY, body, 0o600)
    _own(place + _TEMPORARY, owner, group, mode)
    os.rename(place + _TEMPORARY, place)


def _own(place: bytes, user: int, group: int, mode: int | None) -> None:
    os.chown(place, user, group, follow_symlinks=False)
    if mode is not None:
        os.chmod(place, mode)  # after chown, which clears setuid


def _parents(place: bytes) -> None:
    """Make the directories above `place`, 0755 and root's, as tmpfiles.d(5) does."""
    parts = place.split(b"/")[1:-1]
    for depth in range(1, len(parts) + 1):
        parent = b"/" + b"/".join(parts[:depth])
        if inside.is_directory(parent):
            continue
        if inside.is_there(parent):
            shown = os.fsdecode(parent)
            raise ProvisionError("E_TEMPLATE_PATH", os.fsdecode(place), f"{shown} is no directory")
        os.mkdir(parent, 0o755)


def _plant(place: bytes, node: Placed, known: Numbers) -> None:
    match node:
        case Directory():
            _plant_directory(place, node, known)
        case File():
            _plant_file(place, node, known)
        case Link():
            _plant_link(place, node)
        case Copy():
            _plant_copy(place, node, known)
        case Special():
            _plant_special(place, node, known)
        case Adjust():
            _adjust(place, node, known)


def _plant_directory(place: bytes, node: Directory, known: Numbers) -> None:
    if not inside.is_directory(place):
        os.mkdir(place, 0o755)
    os.chown(place, *_ids(node, known))  # through a link: /var/run is a directory here
    os.chmod(place, node.mode)


def _plant_copy(place: bytes, node: Copy, known: Numbers) -> None:
    if not inside.is_there(place):
        _copy(os.fsencode(node.source), place)
        _own(place, *_ids(node, known), node.mode)


def _ids(node: Directory | File | Fetched | Copy | Special, known: Numbers) -> tuple[int, int]:
    return known.user(node.user), known.group(node.group)


def _plant_file(place: bytes, node: File, known: Numbers) -> None:
    """Write the file; without `replace` one that is there keeps its content."""
    there = inside.is_there(place)
    if there and not node.replace:
        if not stat.S_ISREG(os.lstat(place).st_mode):
            raise FileExistsError(errno.EEXIST, "not a regular file", place)
        _own(place, *_ids(node, known), node.mode)
        return
    if there and stat.S_ISDIR(os.lstat(place).st_mode):
        raise FileExistsError(errno.EEXIST, "a directory", place)
    # Under another name first: a symlink is replaced, not followed, and nobody sees half a file.
    inside.put(place + _TEMPORARY, node.body, 0o600)
    _own(place + _TEMPORARY, *_ids(node, known), node.mode)
    os.rename(place + _TEMPORARY, place)


def _plant_fetched(place: bytes, node: Fetched, known: Numbers, source: int) -> None:
    """Copy an open file under its place's name, whole, or raise E_CORRUPT."""
    if inside.is_there(place) and stat.S_ISDIR(os.lstat(place).st_mode):
        raise FileExistsError(errno.EEXIST, "a directory", place)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    out = os.open(place + _TEMPORARY, flags, 0o600)
    found = hashlib.sha256()
    try:
        offset = 0
        while chunk := os.pread(source, _CHUNK, offset):
            found.update(chunk)
            inside.write_all(out, chunk)
            offset += len(chunk)
    finally:
        os.close(out)
    if found.hexdigest() != node.sha256:
        hints = ("run `mktemplate store verify`",)
        raise ProvisionError("E_CORRUPT", node.path, "its download is damaged", hints=hints)
    _own(place + _TEMPORARY, *_ids(node, known), node.mode)
    os.rename(place + _TEMPORARY, place)


def _plant_link(place: bytes, node: Link) -> None:
    if inside.is_there(place):
        if not node.replace:
            return
        inside.delete(place)
    os.symlink(os.fsencode(node.target), place)


def _plant_special(place: bytes, node: Special, known: Numbers) -> None:
    if not inside.is_there(place):
        _make_special(place, node)
    _own(place, *_ids(node, known), node.mode)


def _make_special(place: bytes, node: Special) -> None:
    if node.device is None:
        os.mkfifo(place, 0o600)
        return
    try:
        os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(*node.device))
    except PermissionError:
        detail = "a rootfs holds no device nodes; /dev is made when the container starts"
        raise ProvisionError("E_ROOTFS_FILE", node.path, detail) from None


def _copy(source: bytes, place: bytes) -> None:
    """Copy a file, a link or a whole directory, with modes, owners and times."""
    status = os.lstat(source)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(place, 0o700)
        for name in inside.listed(source):
            _copy(source + b"/" + name, place + b"/" + name)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), place)
    else:
        inside.put(place, inside.read(source), 0o600)
    link = stat.S_ISLNK(status.st_mode)
    _own(place, status.st_uid, status.st_gid, None if link else stat.S_IMODE(status.st_mode))
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(place, ns=times, follow_symlinks=False)


def _adjust(place: bytes, node: Adjust, known: Numbers) -> None:
    if not inside.is_there(place):
        return  # tmpfiles.d(5): z is no error where nothing is
    user = known.user(node.user) if node.user else -1
    group = known.group(node.group) if node.group else -1
    link = stat.S_ISLNK(os.lstat(place).st_mode)
    _own(place, user, group, None if link else node.mode)
