"""What a start takes from the host and gives back, as calls: run state, lock, control groups, files for /etc."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime import cgroup, devices, hierarchy
from runtime.cgroup import Cgroup
from runtime.hierarchy import Group
from runtime.kernel import mount as m
from runtime.limits import Limit, Limits, device_policy
from runtime.program import Call, Expect, Failure, Out, Pointer, Slot, Struct
from runtime.steps import tried
from valuetypes import dataclass, replace

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_ANY = tuple(errno.errorcode)
_PROG_LOAD, _PROG_ATTACH, _CGROUP_DEVICE, _ATTACH_DEVICE, _ALLOW_MULTI = 5, 8, 15, 6, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """What is taken before a start and given back after the end; `claim` comes first, and leaves nothing behind."""

    claim: tuple[Call, ...] = ()
    take: tuple[Call, ...] = ()
    give_back: tuple[Call, ...] = ()


def folders(made: Iterable[tuple[Path, int]]) -> Loan:
    """Make folders that must be there, with their modes; they stay."""
    return Loan(take=tuple(_mkdir(path, mode, ignore=(errno.EEXIST,)) for path, mode in made))


def files(folder: Path) -> Loan:
    """Write the files that are bound into /etc, as they are in `folder` now."""
    texts = {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}
    take = [_mkdir(folder, 0o700, ignore=(errno.EEXIST,))]
    for name, text in texts.items():
        take += (
            _open(folder / name, _CREATE, "file", 0o644),
            Call(name="write", args=(Slot("file"), text, len(text))),
            Call(name="close", args=(Slot("file"),)),
        )
    return Loan(
        take=tuple(take),
        give_back=(
            *(Call(name="unlinkat", args=(m.AT_FDCWD, _c(folder / name), 0)) for name in texts),
            _rmdir(folder),
        ),
    )


def groups(group: Cgroup, limits: Limits, name: str) -> Loan:
    """Make the control groups of `group`, which exist now, with `limits`.

    A group that is there already is what a killed monitor left; one that cannot be removed is in use.
    """
    take: list[Call] = []
    for one in group.groups:
        folders = [Path(folder) for folder in hierarchy.above(one.path)]
        take += _made_below(folders[1:], Path(one.path))
        take += _handed_down(folders, one)
        take += _cpuset(Path(one.path), one, failure=Failure("E_CGROUP", one.path))
    for path, limit in _limits(group, limits):
        failure = Failure("E_CGROUP", limit.file, repr(limit.value))
        take += _put(path, limit.value, ignore=() if limit.asked else _ANY, failure=failure)
    take += _device_filter(group, limits)
    for one in group.groups:
        if one.inner:
            failure = Failure("E_CGROUP", one.innermost)
            take.append(_mkdir(Path(one.innermost), 0o755, failure=failure))
            take += _cpuset(Path(one.innermost), one, failure=failure)
    return Loan(
        claim=tuple(
            call for one in group.groups for path in _own(one) for call in _free(path, name)
        ),
        take=tuple(take),
        give_back=tuple(
            _rmdir(path)
            for one in group.groups
            for path in (
                *_own(one),
                *([Path(one.path).parent] if hierarchy.has_own_parent(one) else []),
            )
        ),
    )


def _own(group: Group) -> list[Path]:
    """Return the folders that are the container's alone, innermost first."""
    return [*([Path(group.innermost)] if group.inner else []), Path(group.path)]


def delegation(group: Cgroup, ids: tuple[int, int]) -> Loan:
    """Let the container's root, `ids` to the host, make groups below these; their limits stay ours."""
    return Loan(
        take=tuple(
            Call(
                name="fchownat",
                args=(m.AT_FDCWD, os.fsencode(path) + b"\0", *ids, 0),
                failure=Failure("E_CGROUP", path),
            )
            for path in group.delegated()
        )
    )


def _free(path: Path, name: str) -> tuple[Call, ...]:
    """Remove an empty group; one that stays is in use."""
    here = (m.AT_FDCWD, _c(path), 0, 0, Out(256))
    return (
        replace(_rmdir(path), ignore=_ANY),
        Call(
            name="statx",
            args=here,
            ignore=(errno.ENOENT,),
            expect=(Expect(4, 4, 0),),  # stx_blksize: whatever is there has one
            unexpected=Failure("E_RUNNING", name, "is running already"),
        ),
    )


def _made_below(above: list[Path], path: Path) -> tuple[Call, ...]:
    """Make the folder `path` of a group, and those `above` it.

    Until the group keeps them, the end of another container may take an empty folder away: then all is made again.
    """
    folders = [_mkdir(folder, 0o755, ignore=(errno.EEXIST,)) for folder in above]
    made = _mkdir(path, 0o755, failure=Failure("E_CGROUP", str(path)))
    return tried(folders, made, errno.ENOENT)


def _handed_down(folders: list[Path], group: Group) -> Iterator[Call]:
    """Give what the group needs from the root of its hierarchy down; what is refused shows in a limit."""
    for folder in folders[1:]:
        yield from _cpuset(folder, group, ignore=_ANY)
    for folder in folders if group.version == 2 else ():
        for controller in group.controllers:
            yield from _put(folder / "cgroup.subtree_control", f"+{controller}", ignore=_ANY)


def _cpuset(
    path: Path, group: Group, *, ignore: tuple[int, ...] = (), failure: Failure | None = None
) -> tuple[Call, ...]:
    """Copy the processors that v1 leaves empty, as `path` has them now (cpuset(7))."""
    calls: list[Call] = []
    for name in ("cpuset.cpus", "cpuset.mems") if hierarchy.has_old_cpuset(group) else ():
        value = (path / name).read_text(encoding="ascii").strip()
        calls += _put(path / name, value, ignore=ignore, failure=failure)
    return tuple(calls)


def _limits(group: Cgroup, limits: Limits) -> Iterator[tuple[Path, Limit]]:
    """Yield each control file that the host has, and what to write there."""
    for limit in cgroup._spread(group, limits)[0]:
        one = group._with(limit.file.partition(".")[0])
        if one is not None:
            yield Path(one.path) / limit.file, limit


def _device_filter(group: Cgroup, limits: Limits) -> tuple[Call, ...]:
    """Attach the device filter where no v1 controller holds the list, as Cgroup.make does."""
    policy = device_policy(limits.v2)
    if policy is None or any(
        "devices" in one.controllers for one in group.groups if one.version == 1
    ):
        return ()
    [path] = [Path(one.path) for one in group.groups if one.version == 2]
    instructions = devices.program(policy)
    failure = Failure("E_CGROUP", "devices", "the kernel does not take the filter")
    load = (
        *(_CGROUP_DEVICE, len(instructions) // 8, Pointer(instructions), Pointer(b"GPL\0")),
        *(0, 0, 0, 0, 0, 0, 0),
    )
    attach = (Slot("group"), Slot("filter"), _ATTACH_DEVICE, _ALLOW_MULTI)
    return (
        _open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, "group", failure=failure),
        Call(
            name="bpf",
            args=(_PROG_LOAD, Struct("=IIQQIIQIIQQ", load), 64),
            result="filter",
            failure=failure,
        ),
        Call(name="bpf", args=(_PROG_ATTACH, Struct("=IIII", attach), 16), failure=failure),
        Call(name="close", args=(Slot("filter"),)),
        Call(name="close", args=(Slot("group"),)),
    )


def _c(path: Path) -> bytes:
    return os.fsencode(path) + b"\0"


def _mkdir(
    path: Path, mode: int, *, ignore: Iterable[int] = (), failure: Failure | None = None
) -> Call:
    return Call(
        name="mkdirat",
        args=(m.AT_FDCWD, _c(path), mode),
        ignore=tuple(ignore),
        failure=failure or Failure("E_IO", str(path)),
    )


def _rmdir(path: Path) -> Call:
    return Call(name="unlinkat", args=(m.AT_FDCWD, _c(path), m.AT_REMOVEDIR))


def _open(
    path: Path, flags: int, result: str, mode: int = 0, failure: Failure | None = None
) -> Call:
    return Call(
        name="openat",
        args=(m.AT_FDCWD, _c(path), flags, mode),
        result=result,
        failure=failure or Failure("E_IO", str(path)),
    )


def _put(
    path: Path, value: str, *, ignore: tuple[int, ...] = (), failure: Failure | None = None
) -> tuple[Call, ...]:
    """Write a control file in one call, as the kernel wants it."""
    data = value.encode()
    return (
        replace(
            _open(path, os.O_WRONLY | os.O_CLOEXEC, "file", failure=failure), ignore=ignore, skip=2
        ),
        Call(
            name="write",
            args=(Slot("file"), data, len(data)),
            ignore=ignore,
            failure=failure,
        ),
        Call(name="close", args=(Slot("file"),)),
    )
