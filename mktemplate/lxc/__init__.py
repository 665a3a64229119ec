"""python3-lxc's API on our containers: `import mktemplate.lxc as lxc` runs scripts that were written for `import lxc`.

Names, arguments and answers are those of python3-lxc 5 to 7; docs/library.md says what differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from mktemplate.lxc.container import Container
from mktemplate.lxc.inside import attach_run_command, attach_run_shell
from mktemplate.lxc.network import ContainerNetwork, ContainerNetworkList
from mktemplate.places import resolve
from runtime import container as runtime
from runtime.kernel.namespace import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "LXC_ATTACH_CLEAR_ENV",
    "LXC_ATTACH_DEFAULT",
    "LXC_ATTACH_DROP_CAPABILITIES",
    "LXC_ATTACH_KEEP_ENV",
    "LXC_ATTACH_LSM_EXEC",
    "LXC_ATTACH_LSM_NOW",
    "LXC_ATTACH_MOVE_TO_CGROUP",
    "LXC_ATTACH_REMOUNT_PROC_SYS",
    "LXC_ATTACH_SET_PERSONALITY",
    "LXC_CLONE_KEEPBDEVTYPE",
    "LXC_CLONE_KEEPMACADDR",
    "LXC_CLONE_KEEPNAME",
    "LXC_CLONE_MAYBE_SNAPSHOT",
    "LXC_CLONE_SNAPSHOT",
    "LXC_CREATE_QUIET",
    "Container",
    "ContainerNetwork",
    "ContainerNetworkList",
    "arch_to_personality",
    "attach_run_command",
    "attach_run_shell",
    "default_config_path",
    "get_global_config_item",
    "list_containers",
    "version",
]


def __dir__() -> list[str]:
    return __all__


version = "6.0.4"  # of the liblxc whose keys and answers these are
default_config_path = str(resolve())

# attach_options.h, lxccontainer.h
LXC_ATTACH_KEEP_ENV, LXC_ATTACH_CLEAR_ENV = 0, 1
LXC_ATTACH_MOVE_TO_CGROUP = 0x1
LXC_ATTACH_DROP_CAPABILITIES = 0x2
LXC_ATTACH_SET_PERSONALITY = 0x4
LXC_ATTACH_LSM_EXEC = 0x8
LXC_ATTACH_REMOUNT_PROC_SYS = 0x10000
LXC_ATTACH_LSM_NOW = 0x20000
LXC_ATTACH_DEFAULT = 0xFFFF
LXC_CLONE_KEEPNAME = 0x1
LXC_CLONE_KEEPMACADDR = 0x2
LXC_CLONE_SNAPSHOT = 0x4
LXC_CLONE_KEEPBDEVTYPE = 0x8
LXC_CLONE_MAYBE_SNAPSHOT = 0x10
LXC_CREATE_QUIET = 0x1

_PER_LINUX, _PER_LINUX32 = 0, 8  # personality(2)
_PERSONALITIES = {
    **dict.fromkeys(("amd64", "linux64", "x86_64"), _PER_LINUX),
    **dict.fromkeys(("athlon", "i386", "i486", "i586", "i686", "linux32", "x86"), _PER_LINUX32),
}


def get_global_config_item(key: str) -> str:
    """Return where containers live for lxc.lxcpath. KeyError for anything else: there is no lxc.conf of ours."""
    if key != "lxc.lxcpath":
        raise KeyError("Invalid configuration key")
    return default_config_path


@overload
def list_containers(
    active: bool = ...,
    defined: bool = ...,
    as_object: Literal[False] = ...,
    config_path: str | None = ...,
) -> tuple[str, ...]: ...


@overload
def list_containers(
    active: bool = ...,
    defined: bool = ...,
    *,
    as_object: Literal[True],
    config_path: str | None = ...,
) -> tuple[Container, ...]: ...


def list_containers(
    active: bool = True,
    defined: bool = True,
    as_object: bool = False,
    config_path: str | None = None,
) -> tuple[str, ...] | tuple[Container, ...]:
    """Return the names of the containers that are `defined`, or only of those that run; or a Container for each."""
    place = Path(config_path) if config_path else resolve()
    found = runtime.containers(place) if active or defined else ()
    names = tuple(one.name for one in found if defined or one.pid is not None)
    return tuple(Container(name, config_path) for name in names) if as_object else names


def arch_to_personality(arch: str | bytes) -> int:
    """Return the personality(2) of an architecture's name; KeyError for one that is none of x86's."""
    name = arch.decode() if isinstance(arch, bytes) else arch
    if name not in _PERSONALITIES:
        raise KeyError("Failed to lookup architecture.")
    return _PERSONALITIES[name]
