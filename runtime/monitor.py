"""The one process that stays with a running container: init's parent.

It attaches the network, keeps the log, waits, records the exit status, and gives back what the host lent. It stays
in the host's namespaces; when it is killed the container dies with it, and the next command reclaims the rest.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import traceback
from _socket import socket, socketpair
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NoReturn

from runtime import bundle, errors, relay, state
from runtime.birth import FAILURE, Born, Pipe, bear, failure
from runtime.errors import ContainerError, LaunchError
from runtime.hooks import NONE, Hooks
from runtime.kernel import process
from runtime.log import Log, keep
from runtime.program import Program
from runtime.sockets import NO_SOCKETS, Sockets
from runtime.state import Identity, RunState
from valuetypes import dataclass, field, replace

_NAMESPACES = ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time")  # in LXC's order
_ABOVE = 10  # descriptors that become 0, 1, 2 must not be those already


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Where a container can be reached, and what its network had to change."""

    ips: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nameserver: str = ""  # besides the host's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a monitor is told before it is forked; it reads no file."""

    program: Program
    run: RunState
    log: Path
    stop_signal: int
    root_ids: tuple[int, int]  # the container's root, as the host numbers it
    attach: Callable[
        [int, int], Reached
    ]  # with a descriptor of init's network namespace, and init's pid
    release: Callable[[], None]  # gives back network, cgroup and files
    stdio: tuple[int, int, int] | None = None  # the caller's, in the foreground
    console: bool = False  # init has one, whose master it hands over
    shared: Mapping[str, int] = field(default_factory=dict)  # namespaces of others, by slot
    hooks: Hooks = NONE
    sockets: Sockets = NO_SOCKETS  # for init
    after: Callable[[bool], None] = lambda _: None  # when all is given back; is it supervised?


def start(order: Order) -> tuple[int, RunState]:
    """Fork a monitor for `order`; return its pid and what it says once init has been executed.

    In the foreground it is our child and dies with us; else nobody's. Raises what made the start fail.
    """
    result = Pipe.open()
    pid = os.fork()
    if pid == 0:
        try:
            result.close_read()
            if order.stdio is None:
                os.setsid()
                if os.fork():
                    os._exit(0)
            else:
                process.prctl(process.PR_SET_PDEATHSIG, signal.SIGTERM)
            _monitor(order, result.write)
        finally:
            os._exit(70)
    result.close_write()
    if order.stdio is None:
        os.waitpid(pid, 0)
    with os.fdopen(result.read, "rb") as file:
        monitor = _identify(file.readline())
        try:
            answer = file.read()
        except BaseException:  # Ctrl-C while it starts: init dies with its monitor
            monitor.send(signal.SIGKILL)
            raise
    return pid, _answered(answer, order)


def _identify(line: bytes) -> Identity:
    """Return who wrote its pid as `line`; nobody where it is gone already."""
    try:
        return Identity.of(int(line)) if line else state.NOBODY
    except (FileNotFoundError, ProcessLookupError):
        return state.NOBODY


def _answered(answer: bytes, order: Order) -> RunState:
    if not answer:
        raise LaunchError("E_INIT_DIED", order.run.name, "the monitor was killed while it started")
    value = json.loads(answer)
    if "trace" in value:
        raise RuntimeError(f"in the monitor of {order.run.name}:\n{value['trace']}")
    if "code" in value:
        kind = getattr(errors, value["kind"])
        error = kind(value["code"], value["subject"], value["detail"], hints=tuple(value["hints"]))
        if isinstance(error, LaunchError):
            error.status = value["status"]
        raise error
    run = state.load(Path(order.run.path), order.run.name)
    return run if run is not None else order.run


def _monitor(order: Order, result: int) -> NoReturn:
    """Be the monitor; never return."""
    status = 125
    run = replace(order.run, monitor=Identity.of(os.getpid()))
    try:
        os.write(result, b"%d\n" % os.getpid())
        state.save(run)
        status, run = _live(order, run, result)
    except ContainerError as error:
        status = error.status if isinstance(error, LaunchError) else 125
        _end(order, run, status)
        _tell(
            result,
            code=error.code,
            subject=error.subject,
            detail=error.detail,
            hints=error.hints,
            kind=type(error).__name__,
            status=status,
        )
    except BaseException:  # noqa: BLE001  # a bug of ours: the starter must hear of it
        _tell(result, trace=traceback.format_exc())
        _end(order, run, status)
    else:
        _end(order, run, status)
        order.after(order.stdio is not None)
    os._exit(status if order.stdio else 0)


def _live(order: Order, run: RunState, result: int) -> tuple[int, RunState]:
    """Start init, tell the starter, wait; return init's status."""
    with ExitStack() as stack:
        output = Pipe.open()
        stack.callback(output.close)
        stdio = _streams(order, output)
        output.close_write()
        lent = {*stdio, *order.shared.values(), *order.sockets.numbers}
        _let_go(order, {result, output.read, *lent} - {-1})
        console, theirs = socketpair()
        stack.callback(console.close)
        born, reached = _bear(order, stdio, theirs, stack)
        namespaces = _namespaces(order, born, stack)
        report = born.heard()
        if report:
            raise failure(born.program, report, run.name)
        run = replace(
            run,
            phase="RUNNING",
            init=Identity.of(born.pid),
            ips=reached.ips,
            notes=(*run.notes, *reached.notes),
            started=bundle.now(),
        )
        state.save(run)
        _tell(result)
        os.close(result)
        keep(born.pidfd, _sink(order), console if order.console else output.read)
        _stop_hooks(order, namespaces)
        return _status(born), run


def _bear(
    order: Order, stdio: tuple[int, int, int], theirs: socket, given: ExitStack
) -> tuple[Born, Reached]:
    """Let init come to life with its streams and `theirs` for its console, and attach its network."""
    born_pipe, net = Pipe.open(), Pipe.open()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    slots = {
        **dict(zip(("stdin", "stdout", "stderr", "null"), (*stdio, null), strict=True)),
        "born": born_pipe.write,
        "net_go": net.read,
        "console_out": theirs.fileno(),
        **order.shared,
    }
    born = bear(order.program, order.run.name, lambda *_: os._exit(125), slots)
    given.callback(born.close)
    given.callback(_reap, born)
    theirs.close()
    for descriptor in {*stdio, null, *order.shared.values(), *order.sockets.numbers} - {-1}:
        os.close(descriptor)
    born_pipe.close_write()
    net.close_read()
    _forward(order, born)
    with closing(born_pipe), closing(net):
        reached = _network(order, born, born_pipe.read, net.write)
        _start_host(order, born, born_pipe.read, net.write)
    return born, reached


def _reap(born: Born) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        born.kill()
        born.wait()


def _streams(order: Order, output: Pipe) -> tuple[int, int, int]:
    """Return the descriptors that become init's 0, 1 and 2."""
    if order.console and order.stdio is None:
        return -1, -1, -1  # the console
    if order.stdio is not None:
        return tuple(_high(descriptor) for descriptor in order.stdio)  # type: ignore[return-value]  # three in, three out
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    relay.give(output.write, order.root_ids)  # so that /dev/stdout can be opened inside
    try:
        return _high(null), _high(output.write), _high(output.write)
    finally:
        os.close(null)


def _high(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE)


def _let_go(order: Order, keep: set[int]) -> None:
    """Keep none of the caller's descriptors: a pipe that we hold would never end."""
    if order.stdio is None:
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in range(3):
            os.dup2(null, number)
    first = 3
    for number in sorted(keep):
        if number > first:
            process.close_range(first, number - 1)
        first = max(first, number + 1)
    process.close_range(first, 0xFFFFFFFF)


def _forward(order: Order, born: Born) -> None:
    """Whoever ends the monitor politely, ends the container politely."""

    def ask(_number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(born.pidfd, order.stop_signal)

    signal.signal(signal.SIGTERM, ask)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _network(order: Order, born: Born, arrived: int, go: int) -> Reached:
    """Attach the network once init has a namespace for it, and let init go on."""
    if os.read(arrived, 1) != b"b":
        return Reached()  # it failed: its report tells
    try:
        namespace = os.open(f"/proc/{born.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Reached()  # it failed since
    try:
        reached = order.attach(namespace, born.pid)
    finally:
        os.close(namespace)
    with suppress(BrokenPipeError):
        os.write(go, b"g")
    return reached


def _start_host(order: Order, born: Born, arrived: int, go: int) -> None:
    """Run lxc.hook.start-host while init waits to be executed."""
    if order.hooks.at("start-host") and os.read(arrived, 1) == b"r":
        order.hooks.run("start-host", (), (("LXC_PID", str(born.pid)),))
        with suppress(BrokenPipeError):
            os.write(go, b"s")


def _namespaces(order: Order, born: Born, given: ExitStack) -> list[tuple[str, int]]:
    """Keep the container's namespaces open for lxc.hook.stop, which comes when no process of it is left."""
    kept = []
    for name in _NAMESPACES if order.hooks.at("stop") else ():
        with suppress(FileNotFoundError):
            theirs = os.open(f"/proc/{born.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            given.callback(os.close, theirs)
            if not os.path.samestat(os.fstat(theirs), os.stat(f"/proc/self/ns/{name}")):
                kept.append((name, theirs))
    return kept


def _stop_hooks(order: Order, namespaces: list[tuple[str, int]]) -> None:
    """Tell lxc.hook.stop where they are: as variables, and with version 0 as arguments, too."""
    here = f"/proc/{os.getpid()}/fd"
    words = [f"{name}:{here}/{number}" for name, number in namespaces]
    variables = [(f"LXC_{name.upper()}_NS", f"{here}/{number}") for name, number in namespaces]
    more = (("LXC_TARGET", "stop"), *variables)
    order.hooks.tell("stop", () if order.hooks.version else words, more)


def _sink(order: Order) -> Log | None:
    """Return where to what init writes goes: the log; in the foreground our output has what the console has."""
    if order.stdio is None:
        return Log.open(order.log)
    return Log(None, 1, 0) if order.console else None


def _status(born: Born) -> int:
    code = os.waitstatus_to_exitcode(born.wait())
    return code if code >= 0 else 128 - code


def _end(order: Order, run: RunState, status: int) -> None:
    """Give everything back, then say that the container has stopped."""
    try:
        order.release()
    finally:
        state.save(
            replace(run, phase="STOPPED", exit_status=status, init=state.NOBODY, ips=(), cgroup={})
        )


def _tell(result: int, **fields: object) -> None:
    with suppress(OSError):  # the starter may be gone
        os.write(result, json.dumps(fields).encode())


__all__ = ["FAILURE", "Order", "start"]
