"""When a started container is ready: a port listens, a command succeeds, or a file exists.

Whether a port listens the kernel says, or the container's /proc/PID/net/tcp: no connection is made, so no service
logs one, and it works for every kind of network. A service that listens before it can serve is asked (`answer`).
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from runtime.bundle import Ready
from runtime.errors import LaunchError, StateError
from runtime.kernel import mount as m
from runtime.kernel import sockdiag

_LISTEN = b"0A"  # TCP_LISTEN, include/net/tcp_states.h
_FIRST, _LONGEST = 0.002, 0.02  # seconds between two looks, growing
_LONGEST_FOR_COMMANDS = 0.25  # each of them takes processor time from what is waited for

Run = Callable[[Sequence[str]], bool]  # runs a command inside; whether it succeeded


def listening(pid: int, port: int) -> bool:
    """Whether a socket in the network namespace of process `pid` listens on TCP `port` (proc_net(5))."""
    try:
        return port in sockdiag.listening(pid)
    except OSError:  # a normal user may not look there, some kernels have no tcp_diag
        return _in_tables(pid, port)


def _in_tables(pid: int, port: int) -> bool:
    wanted = b":%04X" % port
    for table in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/{pid}/net/{table}", "rb") as rows:
            for row in rows:
                fields = row.split(None, 4)
                if fields[3] == _LISTEN and fields[1].endswith(wanted):
                    return True
    return False


def exists(pid: int, path: str) -> bool:
    """Whether `path` exists in the root of process `pid`; no link leads out of it. PermissionError on a closed way."""
    resolve = m.RESOLVE_IN_ROOT | m.RESOLVE_NO_MAGICLINKS
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(m.openat2(root, path, os.O_PATH, resolve=resolve))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    finally:
        os.close(root)
    return True


def is_ready(check: Ready, pid: int, run: Run) -> bool:
    """Whether the check holds now for the container whose first process is `pid`."""
    if check.kind == "port":
        return listening(pid, int(check.value)) and (not check.expect or _answers(check, pid))
    if check.kind == "file":
        try:
            return exists(pid, check.value)
        except PermissionError:  # a folder of a user inside, which the normal user outside is not
            return run(("test", "-e", check.value))
    if check.kind == "command":
        return run(shlex.split(check.value))
    return True


def _answers(check: Ready, pid: int) -> bool:
    from runtime.answer import answers  # few services are asked

    return answers(
        pid, int(check.value), check.send.encode("latin-1"), check.expect.encode("latin-1")
    )


def wait_ready(
    check: Ready, pid: int, timeout: float | None, run: Run, ports: Sequence[int] = ()
) -> float:
    """Wait until the check holds; return the seconds that took.

    `ports` are TCP ports that the service should come to listen on: before it does no command is tried, for a while.
    Raises StateError E_NOTRUNNING when the container ends first, LaunchError E_LIMIT after `timeout` seconds (the
    template's where None).
    """
    begun = time.monotonic()
    limit = check.timeout if timeout is None else timeout
    pause = _FIRST
    longest = _LONGEST_FOR_COMMANDS if check.kind == "command" else _LONGEST
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise _ended(check) from None
    try:
        life = select.poll()
        life.register(pidfd, select.POLLIN)
        if ports and check.kind == "command":
            _await_any(ports, pid, life)
        while not is_ready(check, pid, run):
            if time.monotonic() - begun > limit:
                raise LaunchError(
                    "E_LIMIT",
                    "readiness",
                    f"{_words(check)} did not come about in {limit:g} s",
                    hints=_hints(check),
                )
            if life.poll(pause * 1000):
                raise _ended(check)
            pause = min(pause * 1.5, longest)
    finally:
        os.close(pidfd)
    return time.monotonic() - begun


def _await_any(ports: Sequence[int], pid: int, life: select.poll) -> None:
    """Wait until one of `ports` is listened on, the process has ended, or a second is over: looking costs little."""
    end, pause = time.monotonic() + 1, _FIRST
    while not any(listening(pid, port) for port in ports) and time.monotonic() < end:
        if life.poll(pause * 1000):
            return
        pause = min(pause * 1.5, _LONGEST)


def _ended(check: Ready) -> StateError:
    return StateError(
        "E_NOTRUNNING",
        "readiness",
        f"the container ended before {_words(check)}",
        hints=("mktemplate logs NAME shows what the service said",),
    )


def _hints(check: Ready) -> tuple[str, ...]:
    told = "mktemplate logs NAME shows what the service said"
    if check.kind == "command":
        return (f"mktemplate exec NAME -- {check.value} shows why", told)
    return (told,)


def _words(check: Ready) -> str:
    if check.kind == "port":
        return f"listening on port {check.value}"
    return f"{check.kind} {check.value}" if check.kind else "running"
