"""python3-lxc's attach: a function of the caller's, run by a process that has joined the container."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn, TypedDict

from runtime.birth import failure
from runtime.container import Container
from runtime.enter import born, inside
from runtime.kernel.netlink import Netlink
from runtime.passwd import Account
from valuetypes import dataclass

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINK = 0x20  # scope of an address that is good on its link only
FAILED = 255  # exit status of a function that raised, or returned no number: -1


class Options(TypedDict, total=False):
    """The keywords of attach and attach_wait."""

    attach_flags: int
    namespaces: int
    personality: int
    initial_cwd: str | None
    uid: int
    gid: int
    env_policy: int
    extra_env_vars: Sequence[str] | None
    extra_keep_env: Sequence[str] | None
    stdin: IO[Any] | int | None
    stdout: IO[Any] | int | None
    stderr: IO[Any] | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What attach and attach_wait are asked for.

    Whatever joins is confined as the container's own processes are: attach_flags and personality change nothing.
    """

    attach_flags: int = -1
    namespaces: int = -1
    personality: int = -1
    initial_cwd: str | None = None
    uid: int = -1
    gid: int = -1
    env_policy: int = 0
    extra_env_vars: Sequence[str] | None = None
    extra_keep_env: Sequence[str] | None = None
    stdin: IO[Any] | int | None = None
    stdout: IO[Any] | int | None = None
    stderr: IO[Any] | int | None = None

    def streams(self) -> tuple[int, int, int]:
        """Return the descriptors that become the process's standard streams, ours where nothing is said."""
        given = (self.stdin, self.stdout, self.stderr)
        first, second, third = (
            number if stream is None else stream if isinstance(stream, int) else stream.fileno()
            for number, stream in enumerate(given)
        )
        return first, second, third

    def account(self) -> Account:
        """Return who the process is inside."""
        return Account(uid=max(self.uid, 0), gid=max(self.gid, 0))

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the process's environment: ours, or with LXC_ATTACH_CLEAR_ENV only what is to be kept."""
        kept = set(self.extra_keep_env or ())
        pairs = {k: v for k, v in own.items() if not self.env_policy or k in kept}
        pairs.setdefault("PATH", _PATH)
        pairs["container"] = "lxc"
        return pairs | dict(text.split("=", 1) for text in self.extra_env_vars or ())


def attach(
    container: Container, function: Callable[..., object], payload: object, how: Attachment
) -> int:
    """Have `function` called inside with `payload`, if there is one; return the pid of who does it, our child."""
    words = () if payload is None else (payload,)
    environment = how.environment(os.environ)
    sys.stdout.flush()
    sys.stderr.flush()

    def body(report: int) -> NoReturn:
        os.close(report)
        os._exit(_status(function, words, environment))

    with born(
        container,
        body,
        how.streams(),
        account=how.account(),
        cwd=how.initial_cwd or "",
        namespaces=how.namespaces,
    ) as process:
        try:
            if report := process.heard():
                os.waitpid(process.pid, 0)
                raise failure(process.program, report, container.name)
        finally:
            process.close()
    return process.pid


def _status(function: Callable[..., object], words: tuple[object, ...], env: dict[str, str]) -> int:
    """Call `function` in this environment; return the exit status that it means."""
    try:
        os.environ.clear()
        os.environ.update(env)
        done = function(*words)
        sys.stdout.flush()
        return done & 0xFF if isinstance(done, int) else FAILED
    except BaseException:  # noqa: BLE001  # there is nobody above us
        traceback.print_exc()
        return FAILED


def attach_run_command(cmd: str | Sequence[str] | tuple[str, Sequence[str]]) -> int:
    """Become `cmd`, in a process that attached: a program, its argv, or a pair of both. -1 where it cannot."""
    program, argv = _words(cmd)
    try:
        os.execvp(program, argv)  # noqa: S606  # its caller's own words
    except OSError as error:
        sys.stderr.write(f"{program}: {error.strerror}\n")
    return -1


def _words(cmd: str | Sequence[str] | tuple[str, Sequence[str]]) -> tuple[str, list[str]]:
    if isinstance(cmd, str):
        return cmd, [cmd]
    if isinstance(cmd, tuple):
        program, argv = cmd
        return str(program), list(argv)
    return cmd[0], list(cmd)


def attach_run_shell() -> int:
    """Become the shell of whoever we are inside, in a process that attached; /bin/sh where it has none."""
    with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
        rows = [line.rstrip("\n").split(":") for line in file]
    shell = next((row[6] for row in rows if len(row) > 6 and row[2] == str(os.getuid())), "")
    return attach_run_command(shell or "/bin/sh")


def interfaces(container: Container) -> tuple[str, ...]:
    """Return the names of the network interfaces inside."""
    pid = container.pid
    if pid is None:
        return ()
    with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
        return tuple(line.partition(":")[0].strip() for line in file.read().split("\n")[2:] if line)


@contextmanager
def network(container: Container) -> Iterator[int]:
    """Hold the network namespace of a running container open. StateError (E_NOTRUNNING) for another."""
    pid = container.running().init.pid
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def addresses(
    container: Container, interface: str | None, family: str | None, scope: int | None
) -> tuple[str, ...]:
    """Return the addresses inside; of one interface, family (inet, inet6) and IPv6 scope where these are said."""

    def look() -> bytes:
        with Netlink() as own:
            names = {link.index: link.name for link in own.links()}
            found = [(names.get(index, ""), ip) for index, ip, _ in own.addresses()]
        return json.dumps(found).encode()

    found = [] if family == "inet6" else json.loads(inside(container, look))
    if family != "inet":
        found += _sixes(container, scope)
    return tuple(ip for name, ip in found if name != "lo" and interface in (None, name))


def _sixes(container: Container, scope: int | None) -> list[tuple[str, str]]:
    """Return (interface, IPv6 address) of each; without a scope none of a link's (proc_pid_net(5), if_inet6)."""
    rows = []
    with suppress(OSError), open(f"/proc/{container.pid}/net/if_inet6", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return [
        (row[5], str(ipaddress.IPv6Address(bytes.fromhex(row[0]))))
        for row in rows
        if (int(row[3], 16) != _LINK if scope is None else int(row[3], 16) == scope)
    ]
