"""Users of a container, from its own passwd(5) and group(5): read from the host through a descriptor of its root.

No library of the host's or of the container's takes part (CVE-2019-14271), and no name of a user is ever a number.
"""

from __future__ import annotations

import os
import re
import stat

from runtime.errors import LaunchError
from runtime.kernel import mount as m
from valuetypes import dataclass

WHERE = m.RESOLVE_IN_ROOT | m.RESOLVE_NO_MAGICLINKS
_MAX_BYTES = 1 << 20
_MAX_ID = 4_294_967_294
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,9}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user inside."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    name: str = "root"
    home: str = "/root"
    shell: str = "/bin/sh"


def find(root: int, text: str) -> Account:
    """Return the user `text` (NAME[:GROUP] or UID[:GID]) of the rootfs `root`. LaunchError: E_USER."""
    user, colon, group = text.partition(":")
    entries = _lines(root, "etc/passwd", 7)
    groups = _lines(root, "etc/group", 4)
    number = _number(user)
    if number is None and not _WORD.fullmatch(user):
        raise _refused(text, "is neither a name nor a number of a user")
    wanted = user.encode()
    entry = next(
        (
            line
            for line in entries
            if (line[0] == wanted if number is None else _number_of(line[2]) == number)
        ),
        None,
    )
    if entry is None:
        if number is None:
            raise _refused(text, "is no user of this container")
        entry = [wanted, b"", wanted, wanted, b"", b"/", b"/bin/sh"]
    uid, gid = _number_of(entry[2]), _number_of(entry[3])
    if uid is None or gid is None:
        raise _refused(text, "its entry in /etc/passwd is damaged")
    if colon:
        gid = _group(groups, group, text)
    return Account(
        uid=uid,
        gid=gid,
        groups=() if number is not None else _member_of(groups, entry[0], gid),
        name=entry[0].decode(errors="replace"),
        home=entry[5].decode(errors="surrogateescape") or "/",
        shell=entry[6].decode(errors="surrogateescape") or "/bin/sh",
    )


def read(root: int, name: str) -> bytes:
    """Return the regular file `name` below `root`, of at most 1 MiB. LaunchError: E_ROOTFS_FILE."""
    try:
        descriptor = m.openat2(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=WHERE)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LaunchError("E_ROOTFS_FILE", name, str(error.strerror)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise LaunchError("E_ROOTFS_FILE", name, "not a regular file of at most 1 MiB")
        return os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)


def _lines(root: int, name: str, fields: int) -> list[list[bytes]]:
    lines = [line.split(b":") for line in read(root, name).split(b"\n")]
    return [line for line in lines if len(line) == fields and line[0]]


def _group(groups: list[list[bytes]], group: str, text: str) -> int:
    number = _number(group)
    if number is not None:
        return number
    for line in groups:
        found = _number_of(line[2])
        if line[0] == group.encode() and found is not None:
            return found
    raise _refused(text, f'"{group}" is no group of this container')


def _member_of(groups: list[list[bytes]], name: bytes, gid: int) -> tuple[int, ...]:
    found = {_number_of(line[2]) for line in groups if name in line[3].split(b",")}
    return tuple(sorted(number for number in found if number is not None and number != gid))


def _number(text: str) -> int | None:
    return _number_of(text.encode()) if text.isascii() else None


def _number_of(text: bytes) -> int | None:
    number = int(text) if _NUMBER.fullmatch(text) else None
    return number if number is not None and number <= _MAX_ID else None


def _refused(text: str, detail: str) -> LaunchError:
    return LaunchError("E_USER", f'"{text}"', detail)
