"""lxc.hook.*: programs of whoever owns the configuration, run at the points of a container's life as LXC runs them.

    pre-start                    on the host, before anything is made
    pre-mount                    in the start's own mount namespace, before the root is there; what it mounts at the
                                 root's path is taken for it (in LXC the other namespaces are made already)
    mount, autodev               by the container's root, the host's files still in reach, all mounts done
    start-host                   on the host, when init only waits to be executed
    start                        inside, by what becomes init, with its rights
    stop, post-stop              on the host: init has ended; everything is given back
    clone, destroy               on the host: `copy` has copied; `destroy` has not yet removed

A hook is `/bin/sh -c "exec HOOK …"`. With lxc.hook.version 0 it has the arguments NAME, `lxc` and its point, and what
the point adds; with 1 it has LXC_HOOK_TYPE and LXC_HOOK_SECTION. All else is in LXC_* (lxc.container.conf(5)).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from runtime import idmap, image
from runtime.config import ContainerConfig, expand, read
from runtime.errors import ConfigError, HostError
from runtime.program import Failure, Run
from runtime.settings import Pairs
from valuetypes import dataclass

_PATIENCE = 60.0  # seconds for what is run when a container ends: it would hold up that end
_ENDING = frozenset(("stop", "post-stop"))
_TOLD = 512  # characters of what a failed hook said


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The hooks of one container."""

    name: str
    version: int = 0
    commands: Pairs = ()  # point, command; in the order of the file
    variables: Pairs = ()  # what every hook is told
    inside: Pairs = ()  # and those that run in the container's namespaces

    def at(self, point: str) -> tuple[str, ...]:
        """Return the commands of `point`."""
        return tuple(command for where, command in self.commands if where == point)

    def run(self, point: str, words: Iterable[str] = (), more: Pairs = ()) -> None:
        """Run the hooks of `point` on the host, with our environment. HostError: E_SCRIPT_FAILED."""
        for command in self.at(point):
            variables = {**os.environ, **dict(self._told(point, more))}
            self._host(point, self._argv(point, command, words), command, variables)

    def tell(self, point: str, words: Iterable[str] = (), more: Pairs = ()) -> None:
        """Run them where nothing depends on how they end."""
        with suppress(HostError):
            self.run(point, words, more)

    def calls(self, point: str) -> tuple[Run, ...]:
        """Return the hooks of `point` as parts of a Program."""
        variables = {**os.environ, **dict(self._told(point, self.inside))}
        return tuple(
            Run(
                argv=self._argv(point, command, ()),
                environment=tuple(variables.items()),
                why=f"lxc.hook.{point}",
                unexpected=Failure("E_SCRIPT_FAILED", f"lxc.hook.{point}", command),
            )
            for command in self.at(point)
        )

    def _told(self, point: str, more: Pairs) -> Pairs:
        kind = (("LXC_HOOK_TYPE", point), ("LXC_HOOK_SECTION", "lxc")) if self.version else ()
        return (*self.variables, *kind, *more)

    def _argv(self, point: str, command: str, words: Iterable[str]) -> tuple[str, ...]:
        fixed = () if self.version else (self.name, "lxc", point)
        return ("/bin/sh", "-c", f'cd /; exec {command} "$@"', "sh", *fixed, *words)

    def _host(
        self, point: str, argv: tuple[str, ...], command: str, variables: dict[str, str]
    ) -> None:
        import subprocess  # few containers have hooks

        timeout = _PATIENCE if point in _ENDING else None
        try:
            done = subprocess.run(
                argv,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise HostError(
                "E_SCRIPT_FAILED", f"lxc.hook.{point}", f"{command}: took longer than {timeout:g} s"
            ) from None
        if done.returncode:
            said = done.stdout.decode(errors="replace").strip()[-_TOLD:]
            detail = f"{command}: ended with {done.returncode}" + (f": {said}" if said else "")
            raise HostError("E_SCRIPT_FAILED", f"lxc.hook.{point}", detail)


NONE = Hooks(name="")


def of(config: ContainerConfig, name: str, file: Path) -> Hooks:
    """Return the hooks of the container `name`, whose configuration `file` is `config`."""
    variables = {
        "LXC_NAME": name,
        "LXC_CONFIG_FILE": str(file),
        "LXC_ROOTFS_MOUNT": mounted_at(config),
        "LXC_ROOTFS_PATH": config.rootfs_path.partition(":")[2] or config.rootfs_path,
        "LXC_CONSOLE": config.console_path,
        "LXC_CONSOLE_LOGPATH": config.console_logfile,
        "LXC_CGNS_AWARE": "1",
        "LXC_LOG_LEVEL": config.log_level or "ERROR",
        "LXC_HOOK_VERSION": str(config.hook_version),
    }
    return Hooks(
        name=name,
        version=config.hook_version,
        commands=tuple((hook.point, hook.command) for hook in config.hooks),
        variables=tuple((key, value) for key, value in variables.items() if value),
        inside=(*config.environment, *config.environment_hooks),
    )


def mounted_at(config: ContainerConfig) -> str:
    """Return where the root is while a start mounts it: below the folder of layers."""
    return str(image.desk(config) / "root") if config.rootfs_layers else ""


def before_destroy(config: ContainerConfig | None, name: str, file: Path) -> None:
    """Run lxc.hook.destroy; where one fails, nothing is to be removed. Without a readable `config` there is none."""
    if config is not None and (told := of(config, name, file)).at("destroy"):
        vouched(config, file)
        told.run("destroy")


def vouched(config: ContainerConfig, file: Path) -> None:
    """Raise ConfigError (E_CONFIG_GRANT) where somebody else could have written a hook that we are to run."""
    if not config.hooks:
        return
    lines, _ = expand(read(file.read_text(errors="surrogateescape"), str(file))[0])
    sources = {line.source for line in lines if line.key.startswith("lxc.hook")}
    ours = {0, os.geteuid()}
    ids = idmap.from_config(config.idmap)
    folders = ours if ids is None else ours | {ids.root()[0]}  # whose a `--flat` container's is
    for source in sorted({str(file), *sources}):
        _check(source, ours)
        _check(os.path.dirname(os.path.abspath(source)), folders)


def _check(path: str, owners: set[int]) -> None:
    status = os.stat(path)
    writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_mode & stat.S_ISVTX:  # a sticky folder, where nobody replaces another's file
        writers = 0
    if status.st_uid not in owners or writers:
        raise ConfigError(
            "E_CONFIG_GRANT",
            "lxc.hook",
            f"others than you may write {path}, and so what you would run",
            hints=(f"give {path} to yourself, and chmod go-w it",),
        )
