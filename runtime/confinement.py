"""How a process inside gives up its rights and becomes its program: the same for init and for who joins later."""

from __future__ import annotations

import errno
import os
import resource
import signal

from runtime import capabilities, consolepty, idmap, steps, way
from runtime.config import ContainerConfig
from runtime.kernel import mount as m
from runtime.kernel import process
from runtime.program import Call, Failure, Pointer, Slot, Struct
from runtime.settings import UNLIMITED, Rlimit
from runtime.sockets import NO_SOCKETS, Sockets
from runtime.steps import c
from valuetypes import dataclass

# fmt: off
_RLIMITS = (  # in the order of their numbers, asm-generic/resource.h
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
    "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)
# fmt: on
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INFINITY = 2**64 - 1
_TIOCSCTTY = 0x540E
_READS_NAMES = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)


def resource_limits(limits: tuple[Rlimit, ...]) -> tuple[tuple[Call, ...], tuple[str, ...]]:
    """Return the limits, no higher than our own hard ones where we may not raise those, and what was cut."""
    calls, notes = [], []
    may_raise = capabilities.has("sys_resource")
    for limit in limits:
        number = int(limit.name) if limit.name.isdigit() else _RLIMITS.index(limit.name)
        soft, hard = (
            _INFINITY if value == UNLIMITED else value for value in (limit.soft, limit.hard)
        )
        own = resource.getrlimit(number)[1]
        own = _INFINITY if own == resource.RLIM_INFINITY else own
        if hard > own and not may_raise:
            notes.append(f"lxc.prlimit.{limit.name}: {own} instead of {hard}, our own hard limit")
            soft, hard = min(soft, own), own
        calls.append(
            Call(
                name="prlimit64",
                args=(0, number, Struct("=QQ", (soft, hard)), None),
                why=f"lxc.prlimit.{limit.name}",
                failure=Failure("E_LIMIT", f"lxc.prlimit.{limit.name}"),
            )
        )
    return tuple(calls), tuple(notes)


def death_signal(config: ContainerConfig) -> int:
    """Return what init gets when its monitor dies: lxc.monitor.signal.pdeath, SIGKILL where it is not said."""
    return signal.SIGKILL if config.monitor_pdeath is None else config.monitor_pdeath


def kept_capabilities(config: ContainerConfig, last: int) -> frozenset[str]:
    """Return the capabilities that lxc.cap.drop or lxc.cap.keep leave of those the kernel knows.

    Without a user namespace of its own a container has no more than we have; with one it has all of them there.
    """
    known = frozenset(capabilities.NAMES[: last + 1])
    if not config.idmap:
        permitted = process.capget()[1]
        known = frozenset(name for name in known if permitted >> capabilities.NUMBERS[name] & 1)
    if config.cap_keep is not None:
        return known & frozenset(config.cap_keep)
    return known - frozenset(config.cap_drop)


def keeps(config: ContainerConfig, name: str) -> bool:
    """Whether init keeps the capability `name`."""
    return name in kept_capabilities(config, len(capabilities.NAMES) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom a program runs as, as numbered inside."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


def confine(config: ContainerConfig, user: User, bpf: bytes, last: int) -> tuple[Call, ...]:
    """Give up rights, in the order in which each step is still allowed (I-7)."""
    keep = kept_capabilities(config, last)
    groups = Struct(f"={len(user.groups)}I", user.groups) if user.groups else None
    failure = Failure("E_IDMAP", f"user {user.uid}", "this id is not mapped into the container")
    kept = idmap.is_alone(idmap.from_config(config.idmap)) and not user.groups
    filter_ = seccomp(bpf)
    return (
        *(() if config.no_new_privs else filter_),
        *capabilities.bound(keep, last),
        *(
            ()
            if kept  # the kernel lets nobody give up groups there
            else (Call(name="setgroups", args=(len(user.groups), groups), failure=failure),)
        ),
        Call(name="setresgid", args=(user.gid,) * 3, failure=failure),
        Call(name="setresuid", args=(user.uid,) * 3, failure=failure),
        *(() if user.uid else capabilities.limit(keep)),
        *way.die_with_parent(death_signal(config)),
        *(
            (
                Call(
                    name="prctl",
                    args=(process.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                    why="no program gives rights any more; and a filter may be loaded without any",
                ),
                *filter_,
            )
            if config.no_new_privs
            else ()
        ),
    )


def seccomp(bpf: bytes) -> tuple[Call, ...]:
    """Load the compiled filter `bpf`, if there is one (seccomp(2))."""
    if not bpf:
        return ()
    program = Struct("@HP", (len(bpf) // 8, Pointer(bpf)))
    flags = process.SECCOMP_FILTER_FLAG_TSYNC | process.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    return (
        Call(
            name="seccomp",
            args=(process.SECCOMP_SET_MODE_FILTER, flags, program),
            why="as late as possible: what follows must pass it",
            failure=Failure("E_SECCOMP", "filter", "the kernel refuses it"),
        ),
    )


def environment(config: ContainerConfig) -> tuple[tuple[str, str], ...]:
    """Return init's environment: made from nothing, then what the configuration says (I-23)."""
    pairs = {
        "PATH": _PATH,
        "HOME": "/root",
        "USER": "root",
        "LANG": "C.UTF-8",
        "container": "mktemplate",
        **dict(config.environment),
        **dict(config.environment_runtime),
    }
    return tuple(pairs.items())


def execute(
    argv: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    given: Sockets = NO_SOCKETS,
) -> tuple[Call, ...]:
    """Become `argv`, found in the PATH of `pairs`, with that environment and no descriptor but 0, 1, 2 and `given`."""
    pairs = (*pairs, *given.variables())
    words = [c(word) for word in argv]
    variables = [c(f"{key}={value}") for key, value in pairs]
    vectors = tuple(
        Struct(f"@{len(strings) + 1}P", (*map(Pointer, strings), 0))
        for strings in (words, variables)
    )
    paths = [argv[0]]
    if "/" not in argv[0]:
        paths = [f"{part}/{argv[0]}" for part in dict(pairs).get("PATH", _PATH).split(":")]
    return (
        Call(
            name="close_range",
            args=(3, 0xFFFFFFFF, process.CLOSE_RANGE_CLOEXEC),
            why="init has 0, 1 and 2 and nothing else (CVE-2024-21626)",
        ),
        *given.passed(),
        *(
            Call(
                name="execve",
                args=(c(path), *vectors),
                ignore=() if path == paths[-1] else _READS_NAMES,
                failure=Failure("E_INIT_DIED", argv[0]),
            )
            for path in paths
        ),
    )


def keyring(config: ContainerConfig) -> tuple[Call, ...]:
    """Leave the caller's session keyring for one of our own, unless lxc.keyring.session says no."""
    if config.keyring_disabled:
        return ()
    return (
        Call(
            name="keyctl",
            args=(process.KEYCTL_JOIN_SESSION_KEYRING, c("mktemplate"), 0, 0, 0),
            why="keyrings know no namespace (CVE-2016-0728); before the filter forbids keyctl",
            ignore=(errno.ENOSYS, errno.EPERM, errno.EDQUOT),
        ),
    )


def stand_in(directory: str) -> tuple[Call, ...]:
    """Make `directory` the working directory; a magic link of /proc is refused (CVE-2024-21626)."""
    failure = Failure("E_CONFIG_VALUE", directory, "cannot be the working directory")
    return (
        Call(
            name="openat2",
            args=(
                m.AT_FDCWD,
                c(directory),
                *steps.how(os.O_PATH | os.O_DIRECTORY, m.RESOLVE_NO_MAGICLINKS),
            ),
            result="cwd",
            failure=failure,
        ),
        Call(name="fchdir", args=(Slot("cwd"),), failure=failure),
    )


def session(*, terminal: bool = False, console: bool = False) -> tuple[Call, ...]:
    """Lead a session of one's own, with the standard streams of the slots stdin, stdout and stderr.

    With `terminal` the first is its terminal; with `console` that is the container's, and what is not given is it, too.
    """
    streams = (
        consolepty.session()
        if console
        else tuple(
            Call(name="dup3", args=(Slot(slot), number, 0))
            for number, slot in enumerate(("stdin", "stdout", "stderr"))
        )
    )
    return (
        Call(name="umask", args=(0o022,), why="under a user's 0002 sshd refuses /run/sshd"),
        Call(name="setsid", why="no terminal of the host's"),
        *streams,
        *((Call(name="ioctl", args=(0, _TIOCSCTTY, 0)),) if terminal else ()),
    )
