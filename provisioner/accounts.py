"""System users and groups of a tree in a rootfs' own passwd, group, shadow and gshadow, as sysusers.d(5) has it.

Pure text: files in, files out. What exists stays as it is; free ids are taken from 999 downwards, one that is free as
user and as group; all four files agree afterwards. Running it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioner.errors import ProvisionError
from provisioner.tree import Group, Member, User
from valuetypes import dataclass

FILES = ("passwd", "group", "shadow", "gshadow")
_FREE = range(999, 99, -1)  # Debian Policy 9.2.2: system accounts that are made dynamically


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Names → ids of a rootfs."""

    users: Mapping[str, int]
    groups: Mapping[str, int]

    def user(self, name: str) -> int:
        """Return the uid of `name`, itself where it is a number; raises ProvisionError E_USER."""
        return _number(name, self.users, "user")

    def group(self, name: str) -> int:
        """Return the gid of `name`, itself where it is a number; raises ProvisionError E_USER."""
        return _number(name, self.groups, "group")


def _number(name: str, known: Mapping[str, int], what: str) -> int:
    if name.isdigit():
        return int(name)
    if name not in known:
        hint = f"add `{what[0]} {name}` to the tree, or name the package that brings it"
        raise ProvisionError("E_USER", name, f"no such {what} in the rootfs", hints=(hint,))
    return known[name]


def numbers(files: Mapping[str, str]) -> Numbers:
    """Return the ids that passwd and group of `files` give."""
    return Numbers(users=_ids(files["passwd"]), groups=_ids(files["group"]))


def _ids(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdigit():
            found.setdefault(fields[0], int(fields[2]))
    return found


def extend(
    files: Mapping[str, str], wanted: Sequence[User | Group | Member], day: int
) -> dict[str, str]:
    """Return the four `files` (missing ones are "") with `wanted` in them; `day`: days since 1970, for shadow(5).

    Raises ProvisionError E_USER where an id that was asked for is taken.
    """
    accounts = _Accounts(files, day)
    for node in wanted:  # groups first: a user may name one that comes later
        if isinstance(node, Group):
            accounts.add_group(node.name, node.gid)
    for node in wanted:
        if isinstance(node, User):
            accounts.add_user(node)
    for node in wanted:
        if isinstance(node, Member):
            accounts.add_member(node)
    return accounts.texts


def alone(files: Mapping[str, str]) -> dict[str, str]:
    """Return `files` with every user and group root by another name: ids are 0, names and homes stay."""
    numbers_at = {"passwd": (2, 3), "group": (2,)}
    return {
        name: "\n".join(_as_root(line, numbers_at.get(name, ())) for line in text.split("\n"))
        for name, text in files.items()
    }


def _as_root(line: str, places: tuple[int, ...]) -> str:
    fields = line.split(":")
    return ":".join("0" if number in places else field for number, field in enumerate(fields))


class _Accounts:
    """The four files while they grow."""

    def __init__(self, files: Mapping[str, str], day: int) -> None:
        self.texts = {name: files.get(name, "") for name in FILES}
        for name, text in self.texts.items():
            if text and not text.endswith("\n"):
                self.texts[name] = text + "\n"
        self._day = day
        self._users = _ids(self.texts["passwd"])
        self._groups = _ids(self.texts["group"])

    def add_group(self, name: str, gid: int | None) -> int:
        """Have the group `name`; return its gid."""
        if name in self._groups:
            return self._groups[name]
        if gid is None:
            gid = self._free()
        elif gid in self._groups.values():
            raise self._taken("group", name, gid, self._groups)
        self._groups[name] = gid
        self._append("group", f"{name}:x:{gid}:")
        self._append("gshadow", f"{name}:!*::")
        return gid

    def add_user(self, user: User) -> None:
        """Have the user, with a group of the same name where no other is named."""
        if user.name in self._users:
            return
        if user.uid is not None and user.uid in self._users.values():
            raise self._taken("user", user.name, user.uid, self._users)
        gid = self._primary_group(user)
        uid = user.uid
        if (
            uid is None
        ):  # the group's number where it is free: one number for both is easier to read
            uid = self._free() if gid in self._users.values() else gid
        self._users[user.name] = uid
        self._append("passwd", f"{user.name}:x:{uid}:{gid}:{user.gecos}:{user.home}:{user.shell}")
        self._append("shadow", f"{user.name}:!*:{self._day}::::::")

    def _primary_group(self, user: User) -> int:
        if user.gid is not None:
            return user.gid
        wanted = user.uid
        if user.name not in self._groups and wanted in self._groups.values():
            wanted = None  # the number is another group's
        return self.add_group(user.name, wanted)

    def add_member(self, member: Member) -> None:
        """Have `member.user` in `member.group`, in group and gshadow; sysusers makes both where they are missing."""
        self.add_group(member.group, None)
        self.add_user(User(name=member.user))
        for name in ("group", "gshadow"):
            lines = self.texts[name].split("\n")
            self.texts[name] = "\n".join(_with_member(line, member) for line in lines)

    def _free(self) -> int:
        taken = {*self._users.values(), *self._groups.values()}
        for number in _FREE:
            if number not in taken:
                return number
        raise ProvisionError("E_USER", "passwd", "no system id from 999 down to 100 is free")

    def _append(self, name: str, line: str) -> None:
        first = line.partition(":")[0] + ":"
        if not any(old.startswith(first) for old in self.texts[name].split("\n")):
            self.texts[name] += line + "\n"

    def _taken(self, what: str, name: str, number: int, known: Mapping[str, int]) -> ProvisionError:
        other = next(key for key, value in known.items() if value == number)
        return ProvisionError("E_USER", name, f"{what} id {number} is {other}'s already")


def _with_member(line: str, member: Member) -> str:
    group, _, rest = line.partition(":")
    if group != member.group or not rest:
        return line
    front, _, members = line.rpartition(":")
    names = [name for name in members.split(",") if name]
    return line if member.user in names else f"{front}:{','.join([*names, member.user])}"
