"""A start program that needs no Python: what Container.start would do, written down while it is possible to do it.

A network is attached by whoever executes it, and taken back by a Python that it runs at its end; a normal user's
control group is made by whoever executes it, too. All else it does itself. The control
groups of root's exist when it is written, so what the host's controllers take is known.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from runtime import (
    apparmor,
    aside,
    bundle,
    byprogram,
    cgroupfs,
    ending,
    image,
    loans,
    prepare,
    startfile,
    startprogram,
    state,
    steps,
    stopprogram,
    usergroup,
    usernet,
)
from runtime.bundle import Bundle, Port
from runtime.cgroup import Cgroup
from runtime.config import ContainerConfig
from runtime.duties import Duties
from runtime.kernel.libc import MACHINE
from runtime.limits import Limits, limits
from runtime.monitor import Order
from runtime.network import shares_host
from runtime.prepare import Place
from runtime.program import Call, Failure, Slot, Step
from runtime.startentry import GROUP
from runtime.startfile import StartFile
from runtime.state import NOBODY, RunState
from runtime.swap import STOP
from valuetypes import asdict, dataclass, replace

Look = tuple[Callable[[], ContainerConfig], Callable[[], Bundle]]
Stdio = tuple[int, int, int] | None
_JOIN = (Path(f"/proc/self/fd/{GROUP}"),)  # where a descriptor of cgroup.procs was handed over
_NO_GROUP = Cgroup(key="", groups=())
_FAILED = 125  # exit status of whoever executes it himself, when the start fails
_AF_INET, _SOCK_DGRAM_CLOEXEC, _SIOCSIFFLAGS, _IFF_UP = 2, 0o2000002, 0x8914, 1
_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def suffices(settings: ContainerConfig, config: Path) -> bool:
    """Whether a start of `settings`, which stand in the file `config`, can be written down.

    It cannot where processes could outlive init, where an unknown file or a program has its say, where a namespace
    is somebody else's or a profile must be loaded first, on other machines.
    """
    return (
        MACHINE == "x86_64"
        and "pid" not in settings.namespace_keep
        and (not settings.namespace_clone or "pid" in settings.namespace_clone)
        and not settings.hooks
        and not settings.namespace_share
        and not apparmor.profile(settings)
        and b"lxc.include" not in config.read_bytes()
    )


def is_wired(settings: ContainerConfig, ports: tuple[Port, ...]) -> bool:
    """Whether its network is more than a loopback device."""
    return bool(ports) or any(nic.kind not in {"empty", "none"} for nic in settings.nics)


def write(place: Place, look: Look, path: Path) -> StartFile | None:
    """Write the start program of a container that is stopped to `path`: takes all for a start, and gives it back.

    `look` returns its configuration and its record, each; its files are looked at before they are read. None, and
    nothing is written, where only Python can start it.
    """
    own = [str(path.with_name(name)) for name in ("config", "state.json")]
    seen = startfile.settled([*own, *_RESOLVERS, *startfile.code()])
    settings, found = look[0](), look[1]()
    if not suffices(settings, found.config):
        return None
    seen += startfile.settled(filter(None, (settings.mount_fstab, settings.seccomp_profile)))
    seen += startfile.settled(path for path in settings.rootfs_layers if image.is_image(Path(path)))
    wired = is_wired(settings, found.record.ports)
    if carried := wired and os.geteuid() != 0:
        if usernet.check() != usernet.PASTA:
            return None
        seen += startfile.settled([usernet.PASTA])
    grouped = os.geteuid() != 0 and not usergroup.lacking()
    unread = _code_but_one()
    with ExitStack() as undo:
        order = prepare.order(place, settings, found, undo, join=_JOIN if grouped else ())
        if grouped:  # each start has a group of its own
            order = replace(order, run=replace(order.run, cgroup={}))
        parts = Parts(
            order=order,
            group=Cgroup.from_json(order.run.cgroup) if order.run.cgroup else _NO_GROUP,
            grouped=grouped,
            limits=limits(settings.cgroup2, settings.cgroup1, defaults=found.record.defaults),
            state=state.directory(place.path) / f"{place.name}.json",
            folders=_overlay_folders(settings),
            etc=place.etc if place.etc.is_dir() else None,
            foreign=bool(settings.idmap) and os.geteuid() == 0,
            loopback=any(nic.up for nic in settings.nics) and not shares_host(settings),
            network=state.key(place.path, place.name) if wired else "",
            carrier=usernet.record_of(place.path, place.name) if carried else None,
            seen=tuple(one for one in seen if one[0] not in unread),
            delegated=cgroupfs.delegates(settings) and not grouped,
            deed=prepare.deed(settings, found),
            lent=found.record.lent,
        )
        program = compose(parts, lambda _: _FAILED)
        order.release()  # while the run state still says what there is to reclaim
    told = (*own, startprogram.__file__)
    _write_stop(path.with_name(STOP), parts, settings, [one for one in seen if one[0] in told])
    startfile.write(path, program, seen, order.run, wired=wired, grouped=grouped)
    return startfile.current(path)


def _write_stop(path: Path, parts: Parts, settings: ContainerConfig, seen: startfile.Looks) -> None:
    """Write the program that stops it, from files as they were when they were `seen`; none where that is Python's."""
    if parts.deed or not settings.signal_halt:
        path.unlink(missing_ok=True)
        return
    duties = Duties(
        name=parts.order.run.name,
        log=parts.order.log,
        stop_signal=settings.signal_halt,
        state=parts.state,
        running=state_texts(parts.order.run)[0],
        basis=tuple(seen),
        boot=state.boot_id(),
    )
    bundle.replace_file(path, stopprogram.write(duties), 0o755, durable=False)


def start(
    place: Place, program: StartFile, lock: int, look: Look, stdio: Stdio
) -> tuple[int, RunState]:
    """Start a container by its `program`, with its lock held by the descriptor `lock`; return its run state.

    With `stdio` in the foreground; then the monitor is our child, whose pid is returned, too.
    `look` is asked only where there is a network to attach, or a control group to make.
    """
    run = replace(program.run, monitor=state.Identity.of(os.getpid()))

    def wire(namespace: int, init: int) -> dict[str, object]:
        done = prepare.wired(look[0](), place, look[1]().record.ports).reach(namespace, init)
        return {"ips": done.ips, "notes": (*run.notes, *done.notes)}

    now = bundle.now()
    state.save(run)
    attaching = wire if program.wired else None
    with ExitStack() as given:
        more: dict[str, object] = {"started": now}
        procs = None
        if program.grouped:
            group = prepare.make_group(place, look[0](), look[1]())
            more["cgroup"] = group.as_json()
            state.save(replace(run, cgroup=group.as_json()))
            [path] = group.join_files()
            procs = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            given.callback(os.close, procs)
        monitor = byprogram.start(program.path, lock, attaching, stdio, procs, **more)
    return monitor, state.load(place.path, place.name) or run


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What Container.start has decided, while what it took from the host is there."""

    order: Order
    group: Cgroup  # what it makes itself
    limits: Limits
    state: Path  # the file of the run state
    folders: tuple[tuple[Path, int], ...] = ()  # that must be there, with their modes
    etc: Path | None = None  # the folder of what is bound into /etc
    foreign: bool = True  # who is root inside is nobody whom the file belongs to
    loopback: bool = True  # its lo is up
    network: str = ""  # the key of a network that is more than that
    carrier: Path | None = None  # the file that names who carries a user's
    grouped: bool = False  # its control group is made by whoever starts it
    seen: tuple[tuple[str, tuple[int, ...]], ...] = ()  # what it is written from
    delegated: bool = False  # it may make control groups below its own
    deed: str = ""  # what becomes of it at its end
    lent: bool = False  # its owner gives its network back


def compose(parts: Parts, status: Callable[[str], int]) -> bytes:
    """Return the start program that does the same; `status` is the exit status of an error's code."""
    order = parts.order
    taken = [
        loans.folders(parts.folders),
        *([loans.groups(parts.group, parts.limits, order.run.name)] if parts.group.groups else []),
        *([loans.delegation(parts.group, order.root_ids)] if parts.delegated else []),
    ]
    if parts.etc is not None:
        taken.append(loans.files(parts.etc))
    running, stopped = state_texts(order.run)
    duties = Duties(
        name=order.run.name,
        log=order.log,
        stop_signal=order.stop_signal,
        root_ids=order.root_ids,
        claim=tuple(call for loan in taken for call in loan.claim),
        prepare=tuple(call for loan in taken for call in loan.take),
        release=tuple(call for loan in reversed(taken) for call in loan.give_back),
        state=parts.state,
        running=running,
        stopped=stopped,
        basis=parts.seen,
        boot=state.boot_id(),
        instead=_instead(order.run),
        network=bool(parts.network),
        group=parts.grouped,
        carrier=parts.carrier,
        environment=_environment(),
        finish=ending.command(
            order.run,
            network="" if parts.lent or parts.carrier else parts.network,
            delegated=parts.delegated,
            deed=parts.deed,
        ),
        console=order.console,
        sealed=not parts.foreign,
    )
    program = order.program
    if parts.loopback and not parts.network and os.geteuid() == 0:  # a user's init does it itself
        program = replace(program, init=_with_loopback(program.init))
    return startprogram.write(program, duties, status)


def _with_loopback(init: tuple[Step, ...]) -> tuple[Step, ...]:
    """Let init bring lo up as soon as its network namespace is there (netdevice(7))."""
    failure = Failure("E_KERNEL_FEATURE", "lo", "cannot be brought up")
    return steps.before_born(
        init,
        Call(
            name="socket",
            args=(_AF_INET, _SOCK_DGRAM_CLOEXEC, 0),
            result="socket",
            failure=failure,
        ),
        Call(
            name="ioctl",
            args=(Slot("socket"), _SIOCSIFFLAGS, struct.pack("=16sh22x", b"lo", _IFF_UP)),
            failure=failure,
        ),
        Call(name="close", args=(Slot("socket"),)),
    )


def _code_but_one() -> set[str]:
    """Return the code's files but for one: an installation replaces them all, and the program has to look at each."""
    return set(startfile.code()) - {startprogram.__file__}


def _environment() -> tuple[str, ...]:
    """Return what a normal user's programs must know, to find the run state where it is."""
    return () if os.geteuid() == 0 else (f"XDG_RUNTIME_DIR={state.user_directory()}",)


def _instead(run: RunState) -> tuple[str, ...]:
    """Return the command that starts the container from Python."""
    return aside.command("runtime.byhand", "main", run.path, run.name, site=True)


def state_texts(run: RunState) -> tuple[str, str]:
    """Return the run state while it runs, as Duties.running wants it, and stopped, as Duties.stopped does."""
    running = asdict(run) | {"phase": "RUNNING", "monitor": "<monitor>", "init": "<init>"}
    stopped = asdict(replace(run, phase="STOPPED", monitor=NOBODY, init=NOBODY, ips=(), cgroup={}))
    stopped["exit_status"] = "<exit_status>"
    while_running, at_the_end = (json.dumps(text).replace("%", "%%") for text in (running, stopped))
    for name in ("monitor", "init"):
        while_running = while_running.replace(f'"<{name}>"', "%s")
    return while_running.removesuffix("}") + "%s}", at_the_end.replace('"<exit_status>"', "%d")


def _overlay_folders(settings: ContainerConfig) -> tuple[tuple[Path, int], ...]:
    """Return upper and work folder, which are made where they are missing, as LXC does."""
    if settings.rootfs_kind != "overlay":
        return ()
    upper = Path(settings.rootfs_layers[-1])
    return (upper, 0o755), (upper.with_name("work"), 0o700)
