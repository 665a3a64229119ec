"""The start program of a container that is on its way to another machine: what it needs lies in its working directory.

    tree/rootfs   the root, owned by the container's ids
    etc/          hosts, hostname and resolv.conf, bound into its /etc
    ids           a program that maps the ids of the process that it is given

Who executes it attaches the network (startentry: four words, descriptors 3 to 6). It runs in the foreground, takes
nothing else of the host, and starts as root and as a normal user alike: all mounts are made in the user namespace.
"""

from __future__ import annotations

from pathlib import Path

from runtime import etcfiles, launch, startprogram, steps
from runtime.config import ContainerConfig
from runtime.duties import Duties
from runtime.fstab import MountEntry
from runtime.halt import SIGPWR
from runtime.kernel import process
from runtime.prepare import compiled_filter
from runtime.program import Call
from runtime.settings import IdMap
from valuetypes import replace

ROOT, ETC, MAPPER = "tree/rootfs", "etc", "./ids"
IDS = 65_536
_VISIBLE = Call(
    name="prctl",
    args=(process.PR_SET_DUMPABLE, 1, 0, 0, 0),
    why="its ids changed, and who attaches the network opens its namespaces below /proc",
)
_FAILED = 125  # exit status of a start that fails


def write(name: str, config: ContainerConfig, mounts: tuple[MountEntry, ...]) -> bytes:
    """Return the ELF (x86-64) that starts `config` with `mounts` in the place of its own; raises ConfigError."""
    host = launch.Host(
        name=name,
        bpf=compiled_filter(config.seccomp_profile),
        files=etcfiles.entries(Path(ETC)),
        rootless=True,
        mapper=(MAPPER, "%d"),
    )
    program = launch.decide(_elsewhere(config, mounts), host)
    program = replace(program, init=steps.before_born(program.init, _VISIBLE))
    duties = Duties(
        name=name,
        log=Path("/dev/null"),
        stop_signal=config.signal_halt or SIGPWR,
        network=True,
    )
    return startprogram.write(program, duties, lambda _: _FAILED)


def _elsewhere(config: ContainerConfig, mounts: tuple[MountEntry, ...]) -> ContainerConfig:
    """Return `config` without what only this host has; its resource limits are those of whoever starts it."""
    ids = (
        IdMap(kind="u", inside=0, outside=0, count=IDS),
        IdMap(kind="g", inside=0, outside=0, count=IDS),
    )
    return replace(
        config,
        rootfs_path=f"dir:{ROOT}",
        mount_fstab="",
        mount_entries=mounts,
        idmap=ids,
        rlimits=(),
        nics=(),
        hooks=(),
        namespace_clone=(),
        namespace_keep=(),
        namespace_share=(),
        console_path="none",
    )
