"""A start program that needs no Python: what Container.start would do, written down while it is possible to do it.

It does all but attach a network. The control groups exist when it is written, so what the host's controllers take is
known.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtime import loans, prepare, startfile, startprogram, state
from runtime.bundle import Bundle
from runtime.cgroup import Cgroup
from runtime.config import ContainerConfig
from runtime.duties import Duties
from runtime.kernel.libc import MACHINE
from runtime.limits import Limits, limits
from runtime.monitor import Order
from runtime.prepare import Place
from runtime.state import NOBODY, RunState

_FAILED = 125  # exit status of whoever executes it himself, when the start fails
_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def suffices(settings: ContainerConfig, config: Path) -> bool:
    """Whether a start of `settings`, which stand in the file `config`, needs no Python.

    It does where a network is to be attached, where processes could outlive init, where an unknown file has its say.
    """
    return (
        MACHINE == "x86_64"
        and os.geteuid() == 0
        and all(nic.kind in {"empty", "none"} for nic in settings.nics)
        and "pid" not in settings.namespace_keep
        and (not settings.namespace_clone or "pid" in settings.namespace_clone)
        and b"lxc.include" not in config.read_bytes()
    )


def write(place: Place, settings: ContainerConfig, found: Bundle, path: Path) -> None:
    """Write the start program of a container that is stopped to `path`: takes all for a start, and gives it back."""
    files = [*_RESOLVERS, str(found.config), str(found.path / "state.json")]
    files += [settings.mount_fstab, settings.seccomp_profile]
    with ExitStack() as undo:
        order = prepare.order(place, settings, found, undo)
        parts = Parts(
            order=order,
            group=Cgroup.from_json(order.run.cgroup),
            limits=limits(settings.cgroup2, settings.cgroup1),
            state=state.directory(place.path) / f"{place.name}.json",
            folders=_overlay_folders(settings),
            etc=place.etc if place.etc.is_dir() else None,
            mapped=bool(settings.idmap),
        )
        startfile.write(path, compose(parts, lambda _: _FAILED), filter(None, files))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What Container.start has decided, while what it took from the host is there."""

    order: Order
    group: Cgroup
    limits: Limits
    state: Path  # the file of the run state
    folders: tuple[tuple[Path, int], ...] = ()  # that must be there, with their modes
    etc: Path | None = None  # the folder of what is bound into /etc
    mapped: bool = True  # the container has a user namespace


def compose(parts: Parts, status: Callable[[str], int]) -> bytes:
    """Return the start program that does the same; `status` is the exit status of an error's code."""
    order = parts.order
    taken = [
        loans.folders(parts.state, parts.folders),
        loans.groups(parts.group, parts.limits, order.run.name),
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
        sealed=not parts.mapped,
    )
    return startprogram.write(order.program, duties, status)


def state_texts(run: RunState) -> tuple[str, str]:
    """Return the run state while it runs, with %s for monitor and init, and stopped, with %d for the exit status."""
    value = asdict(run)
    names = ("monitor", "init", "exit_status")
    running = value | {"phase": "RUNNING", "monitor": "<monitor>", "init": "<init>"}
    stopped = asdict(replace(run, phase="STOPPED", monitor=NOBODY, init=NOBODY, ips=(), cgroup={}))
    texts = [
        json.dumps(text).replace("%", "%%")
        for text in (running, stopped | {"exit_status": "<exit_status>"})
    ]
    for name, form in zip(names, ("%s", "%s", "%d"), strict=True):
        texts = [text.replace(f'"<{name}>"', form) for text in texts]
    return texts[0], texts[1]


def _overlay_folders(settings: ContainerConfig) -> tuple[tuple[Path, int], ...]:
    """Return upper and work folder, which are made where they are missing, as LXC does."""
    if settings.rootfs_kind != "overlay":
        return ()
    upper = Path(settings.rootfs_layers[-1])
    return (upper, 0o755), (upper.with_name("work"), 0o700)
