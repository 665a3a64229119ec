"""Whose a volume or a device is inside, said by two options of a mount entry that liblxc has no word for.

    idmap=owner:UID:GID:USER:GROUP   the host's UID:GID is USER:GROUP inside; files of others belong to nobody there
    idmap=device:GROUP               a node of the same device whose group is GROUP inside; the host's keeps its own

A volume's map is that of a user namespace, and a namespace needs a process: the stage makes a child in one for as long
as it takes to open it. Nothing on disk changes its owner.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
from pathlib import Path

from runtime import steps
from runtime.errors import ConfigError
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.program import Call, Failure, Slot, Struct, Text
from runtime.settings import IdMap
from runtime.steps import c

_OWNER = re.compile(r"owner:([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
_DEVICE = re.compile(r"device:([0-9]{1,10})", re.ASCII)
_F_DUPFD_CLOEXEC, _ABOVE, _F_GETFD = 1030, 10, 1
_PATIENCE = (10).to_bytes(8, "little") + bytes(
    8
)  # struct timespec: no child of a killed stage stays
_WAYS_OUT = ("use ext4, xfs, btrfs or tmpfs for it, or drop :owner=",)


def is_ours(idmap: str) -> bool:
    """Whether an entry's `idmap=` is one of the two."""
    return idmap.startswith(("owner:", "device:"))


def owned(slot: str, source: str, idmap: str, ids: tuple[IdMap, ...]) -> tuple[Call, ...]:
    """Let the detached mount in `slot` show its one owner as a user of the container. ConfigError: E_IDMAP."""
    found = _OWNER.fullmatch(idmap)
    if found is None:
        raise ConfigError("E_IDMAP", source, f"idmap={idmap} is not owner:UID:GID:USER:GROUP")
    uid, gid, user, group = map(int, found.groups())
    maps = (
        ("uid_map", b"%d %d 1" % (uid, outside(ids, "u", user, source))),
        ("gid_map", b"%d %d 1" % (gid, outside(ids, "g", group, source))),
    )
    failure = Failure("E_IDMAP", source, "the owner cannot be mapped")
    namespace = f"{slot}_ids"
    work: list[Call] = []
    for name, data in maps:
        work += steps.map_ids(Slot("helper"), name, data, failure)
    work += (
        Call(
            name="openat",
            args=(
                Slot("host_proc"),
                Text("%d/ns/user", (Slot("helper"),)),
                os.O_RDONLY | os.O_CLOEXEC,
            ),
            result=namespace,
            failure=failure,
        ),
        Call(name="kill", args=(Slot("helper"), signal.SIGKILL)),
        Call(name="wait4", args=(Slot("helper"), None, 0, None)),
        steps.close("token"),
    )
    return (
        Call(name="fcntl", args=(Slot("host_proc"), _F_DUPFD_CLOEXEC, _ABOVE), result="token"),
        Call(
            name="clone",
            args=(ns.CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
            result="helper",
            why=f"a user namespace whose map is the owner of {source}",
            failure=Failure("E_USERNS_DISABLED", "user namespace"),
        ),
        Call(
            name="pidfd_open",
            args=(Slot("helper"), 0),
            result="helper_pidfd",
            ignore=(errno.EINVAL,),
            skip=len(work) + 1,
            why="the child has no helper, and leaves out what is its parent's",
        ),
        *work,
        steps.close("helper_pidfd"),
        Call(
            name="fcntl",
            args=(Slot("token"), _F_GETFD, 0),
            ignore=(errno.EBADF,),
            skip=3,
            why="the parent has closed it, and leaves out what is its child's",
        ),
        Call(name="prctl", args=(process.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)),
        Call(name="ppoll", args=(None, 0, _PATIENCE, None, 0), why="until the parent is done"),
        Call(name="exit_group", args=(0,)),
        Call(
            name="mount_setattr",
            args=(
                Slot(slot),
                c(""),
                m.AT_EMPTY_PATH,
                Struct("=QQQQ", (m.MOUNT_ATTR_IDMAP, 0, 0, Slot(namespace))),
                32,
            ),
            why="its owner is a user of the container; nothing on disk is changed",
            failure=Failure(
                "E_IDMAP", source, "its file system cannot map owners", hints=_WAYS_OUT
            ),
        ),
        steps.close(namespace),
    )


def device(slot: str, source: str, idmap: str, ids: tuple[IdMap, ...]) -> tuple[Call, ...]:
    """Put a node like the device `source`, with a group of the container's, into `slot`, attached nowhere."""
    found = _DEVICE.fullmatch(idmap)
    if found is None:
        raise ConfigError("E_IDMAP", source, f"idmap={idmap} is not device:GROUP")
    status = os.stat(source)
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise ConfigError("E_MOUNT_SOURCE", source, "is no device")
    owner = outside(ids, "u", 0, source), outside(ids, "g", int(found[1]), source)
    name, failure = Path(source).name, Failure("E_MOUNT_SOURCE", source)
    folder = str(Path(source).parent)
    mode = stat.S_IFMT(status.st_mode) | 0o660
    return (
        *steps.filesystem(
            "tmpfs",
            "devices",
            m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC,
            ("source=device", "mode=0755", "size=16k"),
            failure=failure,
            why=f"a place for a node like {source}",
        ),
        Call(
            name="mknodat",
            args=(Slot("devices"), c(name), mode, status.st_rdev),
            failure=failure,
        ),
        Call(name="fchownat", args=(Slot("devices"), c(name), *owner, 0), failure=failure),
        Call(name="fchmodat", args=(Slot("devices"), c(name), 0o660), failure=failure),
        Call(
            name="move_mount",
            args=(Slot("devices"), c(""), m.AT_FDCWD, c(folder), m.MOVE_MOUNT_F_EMPTY_PATH),
            why="for a moment, and in this mount namespace: Linux < 6.15 clones from no mount that is attached nowhere",
            failure=failure,
        ),
        Call(
            name="open_tree",
            args=(Slot("devices"), c(name), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC),
            result=slot,
            failure=failure,
        ),
        Call(name="umount2", args=(c(folder), m.MNT_DETACH), failure=failure),
        steps.close("devices"),
    )


def outside(ids: tuple[IdMap, ...], kind: str, inside: int, subject: str) -> int:
    """Return the host's number of an id of the container; without a user namespace they are the same."""
    if not ids:
        return inside
    for line in ids:
        if line.kind == kind and line.inside <= inside < line.inside + line.count:
            return line.outside + inside - line.inside
    raise ConfigError("E_IDMAP", subject, f"{inside} is no id of the container")
