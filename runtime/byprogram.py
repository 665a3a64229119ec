"""Have a start program start its container, and hear from it how that went."""

from __future__ import annotations

import _socket
import fcntl
import json
import os
import re
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from runtime.errors import ContainerError, HostError, LaunchError, StateError
from runtime.startentry import ABOVE, BORN, GO, GROUP, LOCK, RESULT

_ERROR = re.compile(r"mktemplate: error\[(E_[A-Z_]+)\]: (.*?): (.*)")
_HINT = "mktemplate: hint: "
_KINDS: dict[str, type[ContainerError]] = {
    **dict.fromkeys(("E_KERNEL_FEATURE", "E_USERNS_DISABLED", "E_CGROUP", "E_SECCOMP"), HostError),
    **dict.fromkeys(("E_FS_UNSUITABLE", "E_OVERLAY_RO", "E_NEWUIDMAP"), HostError),
    **dict.fromkeys(("E_RUNNING", "E_LOCKED"), StateError),
}
_CREDENTIALS = struct.Struct("=3i")

_MOST = 4000  # bytes of what goes into the state
Attach = Callable[[int, int], dict[str, object]]


def start(
    program: Path,
    lock: int,
    attach: Attach | None = None,
    stdio: tuple[int, int, int] | None = None,
    group: int | None = None,
    **more: object,
) -> int:
    """Execute `program`; return once the container's init has been executed. `more` goes into the run state.

    With `stdio` init has these three, and the monitor, whose pid is returned, is our child and dies with us.
    `lock` holds the container's lock, which the program shares until init runs, whatever becomes of us.
    `attach` is called with a descriptor of init's network namespace, and init's pid, while init waits for its network;
    what it returns goes into the run state, too. `group` is the cgroup.procs that init joins, where it is ours to give.
    Raises what the program says, and what `attach` raises.
    """
    with ExitStack() as given:
        report, report_end = _pipe(given)
        null = _above(given, os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        inherited = {0: null, 1: null, 2: report_end, LOCK: _above(given, os.dup(lock))}
        words = [str(program), "detach", _added(more)]
        if stdio:
            inherited |= {number: _above(given, os.dup(own)) for number, own in enumerate(stdio)}
            inherited[RESULT] = report_end
            words = [*words, "wait"]
        if group is not None:
            inherited[GROUP] = _above(given, os.dup(group))
        network = _Network(given, inherited) if attach else None
        actions = [(os.POSIX_SPAWN_DUP2, high, low) for low, high in inherited.items()]
        pid = os.posix_spawn(_executable(program, given), words, {}, file_actions=actions)
    try:
        with os.fdopen(report, "rb") as file:
            if network and attach:
                network.hand_over(lambda *there: more | attach(*there))
            said = file.read().decode(errors="replace")
    except BaseException:
        os.waitpid(pid, 0)
        raise
    if stdio and said == "+":
        return pid
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise meant(said, status, program)
    return 0


def meant(said: str, status: int, program: Path) -> ContainerError:
    """Return the error that a start program told as `said`."""
    first, *more = said.split("\n")
    if not (match := _ERROR.fullmatch(first)):
        detail = said.strip() or f"it ended with {status} and said nothing"
        return LaunchError("E_INIT_DIED", str(program), detail)
    hints = tuple(line.removeprefix(_HINT) for line in more if line.startswith(_HINT))
    code, subject, detail = match.groups()
    error = _KINDS.get(code, LaunchError)(code, subject, detail, hints=hints)
    if isinstance(error, LaunchError) and status in {126, 127}:
        error.status = status
    return error


def _executable(program: Path, given: ExitStack) -> str:
    """Return a path to execute `program` by: a copy in memory where its file system lets nothing be executed."""
    if os.access(program, os.X_OK):
        return str(program)
    copy = os.memfd_create(program.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    given.callback(os.close, copy)
    with open(program, "rb") as file:
        os.write(copy, file.read())
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return f"/proc/self/fd/{copy}"


def _added(more: dict[str, object]) -> str:
    """Return what continues a JSON object; what is too long for a start program is left out, longest first."""
    for key in sorted(more, key=lambda key: -len(json.dumps(more[key]))):
        text = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in more.items())
        if len(text) <= _MOST:
            return text
        more = {name: value for name, value in more.items() if name != key}
    return ""


class _Network:
    """Our ends of what init says "b" to, and waits for "g" from."""

    def __init__(self, given: ExitStack, inherited: dict[int, int]) -> None:
        self.born, theirs = _socket.socketpair()
        self.born.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)  # it tells init's pid
        inherited[BORN] = _above(given, theirs.detach())
        go, self.go = os.pipe2(os.O_CLOEXEC)
        inherited[GO] = _above(given, go)

    def hand_over(self, attach: Attach) -> None:
        """Have the network attached once init has a namespace for it; let init go on."""
        try:
            word, credentials, _, _ = self.born.recvmsg(1, _socket.CMSG_SPACE(_CREDENTIALS.size))
            if word == b"b":
                pid, _, _ = _CREDENTIALS.unpack(credentials[0][2])
                try:
                    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:  # init was killed: what the monitor says tells
                    return
                try:
                    reached = attach(namespace, pid)
                finally:
                    os.close(namespace)
                with suppress(BrokenPipeError):  # the monitor was killed: what it said tells
                    os.write(self.go, b"g" + _added(reached).encode())
        finally:
            os.close(self.go)
            self.born.close()


def _pipe(given: ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    return read, _above(given, write)


def _above(given: ExitStack, descriptor: int) -> int:
    """Return `descriptor` under a number that is none of a program's first ones, until `given` closes it."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    os.close(descriptor)
    given.callback(os.close, high)
    return high
