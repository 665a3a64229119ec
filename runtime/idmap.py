"""Ranges of host ids: who owns them (subuid(5)), which container has which, and the map a user namespace gets."""

from __future__ import annotations

import fcntl
import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from runtime.errors import HostError, ResourceError
from valuetypes import dataclass

COUNT = 65536
FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
_ROOT_RANGE = (
    1_000_000,
    1_000_000_000,
)  # first and count, as Debian's lxc and incus packages write it
_FIRST_OF_USERS = 100_000  # SUB_UID_MIN of login.defs(5)
_END = 2**32 - 1  # no id: (uid_t) -1
_RESERVED = ".store/ids"  # one link per range that is taken: its first id → the container's name
_LOCK = "/etc/.pwd.lock"  # lckpwdf(3)
_NONE = frozenset(("E_SUBUID_MISSING", "E_NEWUIDMAP"))  # no subordinate ids, or no way to them
_ALONE = "or --single-id: a container with no other user than root, who is you"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Extent:
    """`count` ids: `inside` and up are `outside` and up on the host."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """The maps of one user namespace (user_namespaces(7))."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]

    def maps_group(self, number: int) -> bool:
        """Whether the group `number` exists inside."""
        return any(each.inside <= number < each.inside + each.count for each in self.gids)

    def root(self) -> tuple[int, int]:
        """Return the host's uid and gid of the root inside."""
        return _outside(self.uids), _outside(self.gids)


def single_range(first: int, count: int = COUNT) -> IdMap:
    """Map the ids from 0 on to those from `first` on."""
    extents = (Extent(0, first, count),)
    return IdMap(uids=extents, gids=extents)


def alone() -> IdMap:
    """Map root inside to the caller, and nobody else: what a user without subordinate ids can have."""
    return IdMap(uids=(Extent(0, os.geteuid(), 1),), gids=(Extent(0, os.getegid(), 1),))


def is_alone(ids: IdMap | None) -> bool:
    """Whether `ids` are the caller's own, a normal user's: mapped without a helper, and no group can be given up."""
    return ids is not None and os.geteuid() != 0 and ids == alone()


class _Line(Protocol):
    """An `lxc.idmap` line."""

    @property
    def kind(self) -> str: ...
    @property
    def inside(self) -> int: ...
    @property
    def outside(self) -> int: ...
    @property
    def count(self) -> int: ...


def from_config(lines: Iterable[_Line]) -> IdMap | None:
    """Return what `lxc.idmap` lines say; None where there are none: no user namespace, as in LXC."""
    found = [(line.kind, Extent(line.inside, line.outside, line.count)) for line in lines]
    if not found:
        return None
    return IdMap(
        uids=tuple(extent for kind, extent in found if kind == "u"),
        gids=tuple(extent for kind, extent in found if kind == "g"),
    )


def text(extents: tuple[Extent, ...]) -> bytes:
    """Return what is written to /proc/PID/uid_map or gid_map."""
    return b"".join(b"%d %d %d\n" % (e.inside, e.outside, e.count) for e in extents)


def _outside(extents: tuple[Extent, ...]) -> int:
    return next(extent.outside - extent.inside for extent in extents if extent.inside == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A range that is now one container's."""

    first: int
    count: int
    notes: tuple[str, ...] = ()
    idmap: IdMap

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """The `lxc.idmap` lines of its configuration."""
        return tuple(
            ("lxc.idmap", f"{kind} {e.inside} {e.outside} {e.count}")
            for kind, extents in (("u", self.idmap.uids), ("g", self.idmap.gids))
            for e in extents
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of subuid(5) or subgid(5)."""

    owner: str
    first: int
    count: int


def allocate(
    path: Path, name: str, files: tuple[Path, Path] = FILES, *, single: bool = False
) -> Allocation:
    """Reserve ids for the container `name` below `path`: 65536 of root's own, no other container's (T-44).

    Where root has none it is given some, and a note says so. A normal user may ask for a `single` one. HostError:
    E_SUBUID_MISSING, E_SUBUID_SMALL, E_SUBUID_OVERLAP. ResourceError: E_LIMIT where all are taken.
    """
    if os.geteuid() != 0:
        if single:
            return Allocation(first=os.geteuid(), count=1, idmap=alone())
        idmap = of_user(files)
        return Allocation(first=os.geteuid(), count=COUNT, idmap=idmap)
    own = [_own(file) for file in files]
    notes: tuple[str, ...] = ()
    if None in own:
        notes = _give_root_a_range(files)
        own = [_own(file) for file in files]
    first, count = _common(own, files)
    ranges = count // COUNT
    start = int.from_bytes(hashlib.sha256(os.fsencode(path / name)).digest()[:8], "big") % ranges
    folder = path / _RESERVED
    os.makedirs(folder, 0o700, exist_ok=True)
    for step in range(ranges):
        mine = first + (start + step) % ranges * COUNT
        with suppress(FileExistsError):
            os.symlink(name, folder / str(mine))  # a file would be there before it says whose it is
            return Allocation(first=mine, count=COUNT, notes=notes, idmap=single_range(mine))
    raise ResourceError("E_LIMIT", str(files[0]), f"all {ranges} ranges of root's ids are taken")


def for_build(files: tuple[Path, Path] = FILES) -> IdMap:
    """Return the map that builds use: the last range of root's, or of what root would be given.

    The root of another user namespace has nothing but the ids that this maps: builds have the same. A normal user
    without subordinate ids has itself: `allocate` says that, before anything is built that takes more.
    """
    if os.geteuid() != 0:
        try:
            return of_user(files)
        except HostError as error:
            if error.code not in _NONE:
                raise
            return alone()
    if is_nested():
        return single_range(0)
    try:
        first, count = _common([_own(file) for file in files], files)
    except HostError:
        usual = usual_range(files)
        first, count = usual.first, usual.count
    return single_range(first + (count // COUNT - 1) * COUNT)


def is_nested() -> bool:
    """Whether our user namespace is not the host's: then its root can id-map no mount of the host's."""
    with open("/proc/self/uid_map", "rb") as file:
        return [int(word) for word in file.read().split()] != [0, 0, _END]


def read(file: Path) -> tuple[Line, ...]:
    """Return the lines of subuid(5) `file` that can be understood; shadow ignores the others too."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    found = []
    for line in text.split("\n"):
        words = line.split(":")
        if len(words) == 3 and all(_NUMBER.fullmatch(word) for word in words[1:]):
            found.append(Line(owner=words[0], first=int(words[1]), count=int(words[2])))
    return tuple(found)


def _own(file: Path) -> Line | None:
    """Return the largest range of ours in `file`, which overlaps nobody's."""
    mine = {"root", "0"} if os.geteuid() == 0 else {str(os.geteuid()), user()}
    lines = (line for line in read(file) if line.owner in mine)
    own = max(lines, key=lambda line: line.count, default=None)
    for line in _others(file, range(own.first, own.first + own.count)) if own else ():
        if own and line.owner not in mine and _overlap(own, line):
            raise HostError(
                "E_SUBUID_OVERLAP",
                str(file),
                f"the ids of {own.owner} ({own.first}:{own.count}) and of {line.owner} "
                f"({line.first}:{line.count}) overlap",
                hints=(f"give {own.owner} another range in {file}",),
            )
    return own


def _common(lines: list[Line | None], files: tuple[Path, Path]) -> tuple[int, int]:
    """Return the part that the uids and the gids have in common."""
    found = [line for line in lines if line is not None]
    if len(found) < len(files):
        raise HostError("E_SUBUID_MISSING", str(files[0]), "root has no range of ids")
    first = max(line.first for line in found)
    count = min(line.first + line.count for line in found) - first
    if count < COUNT:
        raise HostError(
            "E_SUBUID_SMALL",
            str(files[0]),
            f"root has {max(count, 0)} ids that are in both files, a container needs {COUNT}",
            hints=(
                f"echo root:{_ROOT_RANGE[0]}:{_ROOT_RANGE[1]} >>{files[0]}, the same in {files[1]}",
            ),
        )
    return first, count


def _give_root_a_range(files: tuple[Path, Path]) -> tuple[str, ...]:
    """Add root's line where it is missing; return a note of it."""
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        wanted = usual_range(files)
        for file in files:
            if _own(file) is None:
                _append(file, f"{wanted.owner}:{wanted.first}:{wanted.count}\n")
    finally:
        os.close(lock)
    return (
        f"root had no range of ids: added root:{wanted.first}:{wanted.count} to {files[0]} and {files[1]}",
    )


def usual_range(files: tuple[Path, Path] = FILES) -> Line:
    """Return the line that root is given: the usual one, or the next that overlaps no line, user or group."""
    count = _ROOT_RANGE[1]
    first = next((own.first for own in map(_own, files) if own is not None), _ROOT_RANGE[0])
    taken = sorted(
        (line for file in files for line in _others(file) if line.owner not in {"root", "0"}),
        key=lambda line: line.first,
    )
    for line in taken:
        if _overlap(Line(owner="root", first=first, count=count), line):
            first = line.first + line.count
    if first + count > _END:
        raise HostError(
            "E_SUBUID_OVERLAP",
            str(files[0]),
            f"no {count} ids in a row are free for root",
            hints=(f"give root a range of at least {COUNT} in {files[0]} and {files[1]}",),
        )
    return Line(owner="root", first=first, count=count)


def _others(file: Path, within: range = range(_END)) -> tuple[Line, ...]:
    """Return the lines of `file`, and the ids `within` a range that users or groups have."""
    if file.name == "subgid":
        accounts = [(group.gr_name, group.gr_gid) for group in grp.getgrall()]
    else:
        accounts = [(user.pw_name, user.pw_uid) for user in pwd.getpwall()]
    ids = (Line(owner=name, first=number, count=1) for name, number in accounts if number in within)
    return (*read(file), *ids)


def _append(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    with open(descriptor, "r+b") as stream:
        stream.seek(0)
        before = stream.read()
        stream.write((b"" if not before or before.endswith(b"\n") else b"\n") + text.encode())
        stream.flush()
        os.fsync(descriptor)


def _overlap(one: Line, other: Line) -> bool:
    return one.first < other.first + other.count and other.first < one.first + one.count


def user() -> str:
    """Return the name of whoever calls."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def of_user(files: tuple[Path, Path] = FILES) -> IdMap:
    """Return a normal user's map: itself as root, its subordinate ids above; HostError with what mends it."""
    maps = []
    for file, own_id in zip(files, (os.geteuid(), os.getegid()), strict=True):
        own = _own(file)
        if own is None or own.count < COUNT - 1:
            raise HostError(
                "E_SUBUID_MISSING" if own is None else "E_SUBUID_SMALL",
                str(file),
                f"{user()} has {'no range' if own is None else f'only {own.count} ids'}, "
                f"a container needs {COUNT - 1}",
                hints=(f"as root: {_grant(files)}", _ALONE),
            )
        maps.append((Extent(0, own_id, 1), Extent(1, own.first, COUNT - 1)))
    for program in ("/usr/bin/newuidmap", "/usr/bin/newgidmap"):
        _check_helper(program)
    return IdMap(uids=maps[0], gids=maps[1])


def _grant(files: tuple[Path, Path]) -> str:
    """Return the command that gives the caller a range in both files that is free."""
    first = _FIRST_OF_USERS
    for line in sorted((x for file in files for x in read(file)), key=lambda line: line.first):
        if _overlap(Line(owner="", first=first, count=COUNT), line):
            first = line.first + line.count
    span = f"{first}-{first + COUNT - 1}"
    return f"usermod --add-subuids {span} --add-subgids {span} {user()}"


def _check_helper(program: str) -> None:
    """Raise HostError (E_NEWUIDMAP) where a helper of shadow is missing, or may not map (newuidmap(1))."""
    if not os.access(program, os.X_OK):
        raise HostError(
            "E_NEWUIDMAP",
            program,
            "is not installed",
            hints=("as root: apt install uidmap", _ALONE),
        )
    status = os.stat(program)
    if not status.st_mode & stat.S_ISUID and "security.capability" not in os.listxattr(program):
        raise HostError(
            "E_NEWUIDMAP",
            program,
            "is neither setuid nor has file capabilities",
            hints=(f"as root: chmod u+s {program}", _ALONE),
        )


def reserved(path: Path) -> dict[int, str]:
    """Return what is reserved below `path`: first id → name of the container."""
    try:
        names = os.listdir(path / _RESERVED)
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        with suppress(OSError):  # given back meanwhile
            found[int(name)] = os.readlink(path / _RESERVED / name)
    return found


def release_all(path: Path, name: str) -> None:
    """Give back what is reserved for the container `name`."""
    for first, owner in reserved(path).items():
        if owner == name:
            release(path, first)


def release(path: Path, first: int) -> None:
    """Give back the range that starts at `first`."""
    with suppress(FileNotFoundError):
        os.unlink(path / _RESERVED / str(first))
