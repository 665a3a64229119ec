"""One archive member made real, for code that runs inside the root it goes into (see `inside`).

What is the same whoever brought the archive, a package or an image: ids, times, extended attributes, contents.
"""

from __future__ import annotations

import errno
import os

from provisioner.errors import BadArchive
from provisioner.inside import write_all
from provisioner.tar import Member, printable

IDS = 65_536  # how many ids a container has
_LATEST = 1 << 33  # seconds; ext4 cannot keep later times
_KEPT = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
Attributes = list[tuple[str, bytes]]


def check_ids(member: Member, subject: str) -> None:
    """Raise BadArchive E_IDMAP where no container has the owner of `member` (T-27)."""
    if member.uid >= IDS or member.gid >= IDS:
        who = f"uid {member.uid}" if member.uid >= IDS else f"gid {member.gid}"
        detail = f'"{printable(member.name)}" {who} is outside the container\'s range'
        raise BadArchive("E_IDMAP", subject, detail)


def attributes(member: Member) -> tuple[Attributes, list[str]]:
    """Return the extended attributes that an archive may bring, and the names of those that are dropped (T-27)."""
    kept: Attributes = []
    dropped: list[str] = []
    for name, value in member.xattrs:
        user = name.startswith("user.") and not name.startswith("user.overlay.")
        if user or name in _KEPT:
            kept.append((name, value))
        else:
            dropped.append(name)
    return kept, dropped


def write(place: bytes, member: Member, data: memoryview, xattrs: Attributes) -> None:
    """Make the regular file `place`, where nothing may be."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(place, flags, member.mode & 0o777)
    try:
        write_all(fd, data)
        if member.uid or member.gid:
            own(fd, member)
        os.fchmod(fd, member.mode)  # after own, which clears setuid
        for name, value in xattrs:
            os.setxattr(fd, name, value)
        os.utime(fd, (mtime(member), mtime(member)))
    finally:
        os.close(fd)


def own(place: bytes | int, member: Member) -> None:
    """Give what was made to the owner of `member`; BadArchive (E_SUBUID_MISSING) where he has no number here."""
    try:
        os.chown(place, member.uid, member.gid, follow_symlinks=isinstance(place, int))
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        raise BadArchive(
            "E_SUBUID_MISSING",
            os.fsdecode(member.name),
            f"belongs to user {member.uid} and group {member.gid}, and here are not both",
            hints=("mktemplate doctor tells how to get ids",),
        ) from None


def symlink(place: bytes, member: Member) -> None:
    """Make the symlink `place`, where nothing may be; its target is kept as it stands and never resolved."""
    os.symlink(member.link, place)
    if member.uid or member.gid:
        own(place, member)
    os.utime(place, (mtime(member), mtime(member)), follow_symlinks=False)


def mtime(member: Member) -> int:
    """Return the time that the member gets, in seconds."""
    return min(member.mtime, _LATEST)
