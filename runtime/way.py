"""The way from the host into a container's namespaces: id maps, who waits for whom, and who becomes root there.

The stage, in the host's, makes and maps what init, cloned into its user namespace, waits for; a normal user's init
does itself what the host's root does for another's.
"""

from __future__ import annotations

import errno
import os
import signal

from runtime import steps
from runtime.idmap import IdMap, is_alone, text
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.program import Call, Expect, Failure, Out, Slot, Step, Text
from runtime.steps import c
from valuetypes import dataclass

_NUMBERS = "numbers inside, numbers outside, how many"
_WHY = {
    "uid_map": f"uid map: {_NUMBERS}",
    "gid_map": f"gid map: {_NUMBERS}",
    "setgroups": "no group of the caller's may be given up: it may be one that denies",
}


def private() -> tuple[Call, ...]:
    """Enter a mount namespace whose changes nobody else sees (I-17), with a procfs for id maps (I-3)."""
    return (
        Call(
            name="unshare",
            args=(ns.CLONE_NEWNS,),
            why="the host's mounts never change",
            failure=Failure("E_KERNEL_FEATURE", "mount namespace"),
        ),
        *unseen(),
        *steps.filesystem(
            "proc",
            "host_proc",
            steps.PLAIN,
            ("source=proc",),
            why="one that nobody can have mounted over (CVE-2025-52881)",
        ),
    )


def unseen() -> tuple[Call, ...]:
    """Let nobody see what is mounted from here on."""
    attributes = m.mount_attributes(0, 0, m.MS_PRIVATE)
    return (
        Call(
            name="mount_setattr",
            args=(m.AT_FDCWD, c("/"), m.AT_RECURSIVE, attributes, len(attributes)),
            why="what is mounted from here on is seen by nobody outside",
            failure=Failure("E_KERNEL_FEATURE", "mount_setattr"),
        ),
    )


def map_ids(idmap: IdMap) -> tuple[Call, ...]:
    """Map the ids of init's user namespace, and keep a descriptor of it in slot `userns`."""
    failure = Failure("E_IDMAP", "id map", "the kernel refuses it")
    calls: list[Call] = []
    files = [("uid_map", text(idmap.uids)), ("gid_map", text(idmap.gids))]
    if is_alone(idmap):
        files.insert(0, ("setgroups", b"deny"))  # else a user may map no group (user_namespaces(7))
    for name, data in files:
        calls += steps.map_ids(Slot("init"), name, data, failure, why=_WHY[name])
    return (
        *calls,
        Call(
            name="openat",
            args=(
                Slot("host_proc"),
                Text("%d/ns/user", (Slot("init"),)),
                os.O_RDONLY | os.O_CLOEXEC,
            ),
            result="userns",
            why="what the layers are mapped by",
        ),
    )


def _proc() -> Call:
    """Open the procfs that is there: the root of another user namespace may mount none for its pid namespace."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    return Call(name="openat", args=(m.AT_FDCWD, c("/proc"), flags), result="host_proc")


def wait_for_go(ids: IdMap | None) -> tuple[Call, ...]:
    """Wait until the stage has mapped our `ids` and attached the layers; then be the container's root."""
    gone = Failure("E_INIT_DIED", "stage", "it ended before its time")
    return (
        Call(
            name="read",
            args=(Slot("go_read"), Out(1), 1),
            why="until our ids are mapped and the layers attached",
            expect=(Expect(0, 1, ord("g")),),
            unexpected=gone,
        ),
        *become_root(ids),
    )


def become_root(ids: IdMap | None) -> tuple[Call, ...]:
    """Be the root of a user namespace with `ids`, in none of the caller's groups; in a single one they stay."""
    groups = Call(name="setgroups", args=(0, None), why="no group of the caller's may help or deny")
    return (
        Call(name="setresgid", args=(0, 0, 0), why="root, of our own user namespace"),
        *(() if is_alone(ids) else (groups,)),
        Call(name="setresuid", args=(0, 0, 0)),
    )


def die_with_parent(number: int = signal.SIGKILL) -> tuple[Call, ...]:
    """Die when our parent dies, and at once if it is dead already: its end of `lifeline` is then closed."""
    return (
        Call(
            name="prctl",
            args=(process.PR_SET_PDEATHSIG, number, 0, 0, 0),
            why="after the ids: changing them cleared it",
        ),
        Call(
            name="read",
            args=(Slot("lifeline"), Out(1), 1),
            ignore=(errno.EAGAIN,),
            why="nothing to read: the parent lives",
            expect=(Expect(0, 1, ord("g")),),
            unexpected=Failure("E_INIT_DIED", "parent", "it ended before its time"),
        ),
    )


def map_commands(idmap: IdMap | None) -> tuple[tuple[str, ...], ...]:
    """Return the commands that map init's ids for a normal user; root needs none, nor does a single id."""
    if idmap is None or os.geteuid() == 0 or is_alone(idmap):
        return ()
    return tuple(
        (
            program,
            "%d",
            *(str(number) for e in extents for number in (e.inside, e.outside, e.count)),
        )
        for program, extents in (
            ("/usr/bin/newuidmap", idmap.uids),
            ("/usr/bin/newgidmap", idmap.gids),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way from the host into the namespaces, as what each list has of it; `stage` is before the clone."""

    stage: tuple[Step, ...]
    maps: tuple[tuple[str, ...], ...]
    host: tuple[Call, ...]
    init: tuple[Step, ...]


def way(
    ids: IdMap | None,
    flags: int,
    sources: tuple[Step, ...],
    attach: tuple[Call, ...],
    maps: tuple[tuple[str, ...], ...],
    *,
    rootless: bool,
) -> Way:
    """Return the way: `sources` are cloned and `attach`ed by the host's root; a normal user's init does it itself.

    So does that of another user namespace's root, who needs no commands `maps` to map its ids.
    """
    go = Call(name="write", args=(Slot("go_write"), b"g", 1))
    stand, *leave = enter(flags)
    if rootless:
        return Way(
            stage=(),
            maps=maps,
            host=(*((_proc(), *map_ids(ids)) if ids and not maps else ()), go),
            init=(*leave, *unseen(), *sources, *attach, stand),
        )
    return Way(
        stage=(*private(), *sources),
        maps=(),
        host=(*(map_ids(ids) if ids else ()), *attach, go),
        init=(stand, *leave),
    )


def enter(flags: int) -> tuple[Call, ...]:
    """Take the remaining namespaces, standing on the desk of layers."""
    failure = Failure("E_KERNEL_FEATURE", "namespaces")
    return (
        Call(name="fchdir", args=(Slot("desk"),), why="the layers have relative names from here"),
        Call(name="unshare", args=(flags,), why="owned by our user namespace", failure=failure),
    )
