"""/sys/fs/cgroup of a container: its own control groups and nothing above them (lxc.mount.auto = cgroup).

Made after the cgroup namespace: what is mounted then has the container's groups as its root. On pure v2 that is one
file system; else a tmpfs with one folder for each hierarchy that the container has a group in, as systemd wants them.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.config import ContainerConfig
from runtime.confinement import keeps
from runtime.hierarchy import Hierarchy, is_pure
from runtime.kernel import mount as m
from runtime.program import Call, Failure, Slot
from runtime.steps import PLAIN, attach, c, close, filesystem, open_directory

_FAILURE = Failure("E_CGROUP", "sys/fs/cgroup", "the container's control groups cannot be mounted")
_WORDS = ("cgroup", "cgroup2", "cgroup-full")


def wanted(config: ContainerConfig) -> str:
    """Return how /sys/fs/cgroup is asked for: rw, ro, or not at all; the last word counts."""
    words = [word.split(":") for word in config.mount_auto if word.split(":")[0] in _WORDS]
    return "" if not words else "ro" if "ro" in words[-1] else "rw"


def delegates(config: ContainerConfig) -> bool:
    """Whether the container may make groups below its own."""
    return wanted(config) == "rw"


def mounts(config: ContainerConfig, hierarchies: Iterable[Hierarchy]) -> tuple[Call, ...]:
    """Mount them as lxc.mount.auto asks; nothing where init does that itself, as in LXC: it keeps CAP_SYS_ADMIN."""
    forced = any(word.endswith(":force") for word in config.mount_auto)
    way = wanted(config)
    attributes = m.MOUNT_ATTR_RDONLY if way == "ro" else 0
    trees = tuple(hierarchies)
    if not way:
        return ()
    if is_pure():
        return _pure(attributes)
    if not trees or (keeps(config, "sys_admin") and not forced):
        return ()
    return _hybrid(trees, attributes)


def _pure(attributes: int) -> tuple[Call, ...]:
    return (
        open_directory(Slot("root"), "sys/fs/cgroup", "target", _FAILURE),
        *_v2(attributes),
        attach("cgroup", Slot("target")),
        close("cgroup"),
        close("target"),
    )


def _hybrid(trees: tuple[Hierarchy, ...], attributes: int) -> tuple[Call, ...]:
    calls: list[Call] = []
    for tree in trees:
        name = tree.path.rpartition("/")[2]
        calls += (
            Call(name="mkdirat", args=(Slot("cgroups"), c(name), 0o755)),
            *(_v2(attributes) if tree.version == 2 else _v1(tree.controllers, attributes)),
            attach("cgroup", Slot("cgroups"), name),
            close("cgroup"),
            *(
                Call(name="symlinkat", args=(c(name), Slot("cgroups"), c(controller)))
                for controller in (tree.controllers if "," in name else ())
            ),
        )
    sealed = m.mount_attributes(PLAIN | m.MOUNT_ATTR_RDONLY)
    return (
        open_directory(Slot("root"), "sys/fs/cgroup", "target", _FAILURE),
        *filesystem(
            "tmpfs",
            "cgroups",
            PLAIN,
            ("source=cgroup_root", "mode=0755", "size=64k"),
            why="a folder for each hierarchy",
        ),
        attach("cgroups", Slot("target")),
        close("target"),
        *calls,
        Call(
            name="mount_setattr",
            args=(Slot("cgroups"), c(""), m.AT_EMPTY_PATH, sealed, len(sealed)),
            why="the folders stay what they are",
        ),
        close("cgroups"),
    )


def _v2(attributes: int) -> tuple[Call, ...]:
    return filesystem(
        "cgroup2", "cgroup", PLAIN | attributes, ("source=cgroup2",), failure=_FAILURE
    )


def _v1(controllers: tuple[str, ...], attributes: int) -> tuple[Call, ...]:
    """Mount one hierarchy of v1; one without controllers has a name and says `none` (cgroups(7))."""
    named = any(controller.startswith("name=") for controller in controllers)
    options = ("source=cgroup", *(("none",) if named else ()), *controllers)
    return filesystem("cgroup", "cgroup", PLAIN | attributes, options, failure=_FAILURE)
