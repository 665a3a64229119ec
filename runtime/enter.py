"""Joining a running container: the same confinement as its init's, one more process.

The stage joins all its namespaces and clones the process into its pid namespace; the process is ours to wait for.
Until it has been executed it cannot be looked at from inside (PR_SET_DUMPABLE 0, CVE-2016-9962).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from runtime import apparmor, capabilities, cgroupfs, confinement, console, idmap, passwd, way
from runtime.birth import FAILURE, Born, bear, failure
from runtime.cgroup import Cgroup
from runtime.config import ContainerConfig
from runtime.container import Container
from runtime.errors import LaunchError, StateError
from runtime.kernel import namespace as ns
from runtime.kernel import process
from runtime.passwd import Account
from runtime.prepare import compiled_filter
from runtime.program import Call, Expect, Failure, Out, Program, Slot, Text
from runtime.state import RunState
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is to run inside: `user` is NAME[:GROUP] or UID[:GID], by default init's."""

    argv: tuple[str, ...]
    user: str = ""
    cwd: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    terminal: bool = False  # it has a pty of its own


def execute(
    container: Container,
    argv: Sequence[str],
    *,
    user: str = "",
    cwd: str = "",
    env: Mapping[str, str] | None = None,
    tty: bool = False,
) -> int:
    """Run `argv` in the container with our standard streams; return its status, 128+N for signal N.

    StateError: E_NOTRUNNING. LaunchError: why it could not be executed, with `status` 125, 126 or 127.
    """
    environment = tuple((env or {}).items())
    command = Command(argv=tuple(argv), user=user, cwd=cwd, environment=environment, terminal=tty)
    return run(container, command)


def run(
    container: Container,
    command: Command,
    kept: tuple[int, int, int] | None = None,
    timeout: float | None = None,
) -> int:
    """Run `command`, between the descriptors `kept` where they are given; return its status, 128+N for signal N.

    LaunchError (E_LIMIT) after `timeout` seconds: then it is killed.
    """
    with joined(container) as target:
        account = target.account(command.user)
        program = target.program(command, account)
        owner = target.owner(account.uid)
        with console.attached(target.root, owner, terminal=command.terminal, kept=kept) as streams:
            born = bear(program, container.name, _never, {**target.slots, **streams.slots})
            try:
                streams.born()
                report = born.heard()
                if report:
                    raise failure(program, report, container.name)
                if not streams.pump(born.pidfd, timeout):
                    raise LaunchError(
                        "E_LIMIT", container.name, f"{command.argv[0]} did not end in {timeout:g} s"
                    )
                return _ended(born)
            finally:
                _reap(born)


def login_shell(container: Container, user: str = "") -> tuple[str, ...]:
    """Return the shell of `user` in the container, as a login shell's argv."""
    with joined(container) as target:
        return (target.account(user).shell, "-l")


@dataclass(slots=True)
class Target:
    """A running container, held open."""

    name: str
    config: ContainerConfig
    namespaces: int  # the flags of those that are not ours
    root: int  # O_PATH of its root
    slots: dict[str, int]  # target (a pidfd), join0…, proc where a profile is taken on

    def account(self, user: str) -> Account:
        """Return `user` as the container's own files know it."""
        default = f"{self.config.init_uid}:{self.config.init_gid}"
        if not user and self.config.init_uid == 0:
            return passwd.find(self.root, "0")
        return passwd.find(self.root, user or default)

    def variables(self, account: Account) -> dict[str, str]:
        """Return the environment of a process of `account`, but for a terminal's."""
        return {
            **dict(confinement.environment(self.config)),
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": account.shell,
        }

    def owner(self, uid: int) -> int:
        """Return the host's number of the inner `uid`."""
        for line in self.config.idmap:
            if line.kind == "u" and line.inside <= uid < line.inside + line.count:
                return line.outside + uid - line.inside
        return uid

    def program(self, command: Command, account: Account) -> Program:
        """Return the calls that lead from here to the command."""
        variables = {
            **self.variables(account),
            **({"TERM": os.environ.get("TERM", "xterm")} if command.terminal else {}),
            **dict(command.environment),
        }
        return self.join(
            account,
            (
                *confinement.session(terminal=command.terminal),
                *confinement.stand_in(command.cwd or self.config.init_cwd or "/"),
            ),
            confinement.execute(command.argv, tuple(variables.items())),
        )

    def join(
        self,
        account: Account,
        before: tuple[Call, ...],
        last: tuple[Call, ...],
        namespaces: int = -1,
    ) -> Program:
        """Return a Program that joins `namespaces`, does `before`, gives up its rights, and does `last`."""
        bpf = compiled_filter(self.config.seccomp_profile)
        ids = idmap.from_config(self.config.idmap)
        groups = () if idmap.is_alone(ids) else account.groups
        user = confinement.User(uid=account.uid, gid=account.gid, groups=groups)
        limits, _ = confinement.resource_limits(self.config.rlimits)
        return Program(
            stage=(
                *limits,
                Call(name="prctl", args=(process.PR_SET_DUMPABLE, 0, 0, 0, 0)),
                Call(
                    name="setns",
                    args=(Slot("target"), self.namespaces & namespaces),
                    failure=Failure(
                        "E_KERNEL_FEATURE", self.name, "its namespaces cannot be joined"
                    ),
                ),
                *way.become_root(ids),
                Call(
                    name="clone",
                    args=(ns.CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0),
                    result="init",
                ),
            ),
            host=(
                *(
                    Call(
                        name="write",
                        args=(Slot(slot), Text("%d       ", (Slot("init"),)), 8),
                        failure=Failure("E_CGROUP", self.name),
                    )
                    for slot in self.slots
                    if slot.startswith("join")
                ),
                Call(name="write", args=(Slot("go_write"), b"g", 1)),
            ),
            init=(
                Call(name="prctl", args=(process.PR_SET_DUMPABLE, 0, 0, 0, 0)),
                *apparmor.prepare(self.config, Slot("proc")),
                *before,
                Call(
                    name="read",
                    args=(Slot("go_read"), Out(1), 1),
                    why="until we are in its cgroups",
                    expect=(Expect(0, 1, ord("g")),),
                    unexpected=Failure("E_INIT_DIED", self.name, "the stage ended before its time"),
                ),
                *confinement.keyring(self.config),
                *confinement.confine(self.config, user, bpf, capabilities.last()),
                *apparmor.take_on(self.config),
                *last,
            ),
        )


@contextmanager
def joined(container: Container) -> Iterator[Target]:
    """Hold a running container open; StateError (E_NOTRUNNING) where it does not run, or is frozen."""
    run = container.running()
    if run.phase == "FROZEN":
        raise StateError(
            "E_NOTRUNNING",
            container.name,
            "is frozen",
            hints=(f"mktemplate unfreeze {container.name}",),
        )
    with ExitStack() as held:
        try:
            target = _target(container, run, held)
        except (FileNotFoundError, ProcessLookupError):
            raise StateError("E_NOTRUNNING", container.name, "has just ended") from None
        yield target


def _target(container: Container, run: RunState, held: ExitStack) -> Target:
    """Open init and where it is, until `held` is closed. FileNotFoundError, ProcessLookupError: it has ended."""

    def kept(descriptor: int) -> int:
        held.callback(os.close, descriptor)
        return descriptor

    pidfd = run.init.open()
    if pidfd is None:
        raise ProcessLookupError
    slots = {"target": kept(pidfd)}
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    root = kept(os.open(f"/proc/{run.init.pid}/root", flags))
    config = container.config
    joined = _cgroups(container.cgroup(run), run.init.pid, config) if run.cgroup else ()
    if joined and os.geteuid() != 0:
        from runtime import usergroup

        usergroup.stand_beside(joined[0])
    for number, path in enumerate(joined):
        slots[f"join{number}"] = kept(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    if apparmor.profile(config):
        slots["proc"] = kept(os.open("/proc", flags))
    namespaces = _differing(run.init.pid)
    return Target(container.name, config, namespaces, root, slots)


def _cgroups(group: Cgroup, pid: int, config: ContainerConfig) -> tuple[Path, ...]:
    return group.join_files_of(pid) if cgroupfs.delegates(config) else group.join_files()


def _differing(pid: int) -> int:
    """Return the flags of the namespaces of `pid` that are not ours."""
    return sum(
        flag
        for name, flag in ns.FLAGS.items()
        if name != "time"
        and os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    )


def _never(*_: object) -> NoReturn:
    os._exit(125)


def _ended(born: Born) -> int:
    code = os.waitstatus_to_exitcode(born.wait())
    return code if code >= 0 else 128 - code


def _reap(born: Born) -> None:
    try:
        born.kill()
        born.wait()
    except (ProcessLookupError, ChildProcessError):
        pass
    born.close()


def inside(container: Container, function: Callable[[], bytes]) -> bytes:
    """Return what `function` answers in a process of the container with init's rights. It must import nothing."""

    def body(report: int) -> NoReturn:
        os.write(report, b"=" + function())
        os._exit(0)

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        with born(container, body, (null, null, null)) as process_:
            try:
                report = process_.heard()
            finally:
                _reap(process_)
    finally:
        os.close(null)
    if report[:1] == FAILURE:
        raise failure(process_.program, report, container.name)
    if report[:1] != b"=":
        raise LaunchError("E_INIT_DIED", container.name, report[1:].decode(errors="replace"))
    return report[1:]


@contextmanager
def born(
    container: Container,
    body: Callable[[int], NoReturn],
    streams: tuple[int, int, int],
    *,
    account: Account | None = None,
    cwd: str = "",
    namespaces: int = -1,
) -> Iterator[Born]:
    """Give a process of ours that has joined the container's `namespaces` and does `body`, which must import nothing.

    It has the rights of `account`, by default of root inside, and stands in `cwd`. Whoever asks for it reaps it.
    LaunchError: why it could not be.
    """
    with joined(container) as target:
        before = (*confinement.session(), *(confinement.stand_in(cwd) if cwd else ()))
        program = target.join(account or Account(), before, (), namespaces)
        for slot, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            target.slots[slot] = console.high(stream)  # dup3(2) refuses a descriptor for itself
        yield bear(program, container.name, lambda report, _: body(report), target.slots)
