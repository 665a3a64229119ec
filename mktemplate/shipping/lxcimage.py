"""An LXC container's config that came with a root file system: what of it is inert is taken, the rest is named (T-63).

Its hooks, mounts, devices, networks and rights are its old host's affair; here the container gets ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from mktemplate.errors import CommandError
from provisioner.image.config import ImageConfig, environment
from provisioner.image.files import Rootfs
from provisioner.image.manifest import Platform
from provisioner.member import IDS
from runtime import config as configs
from runtime.errors import ConfigError
from runtime.settings import ContainerConfig
from valuetypes import dataclass

_TAKEN = frozenset(
    (
        *("lxc.init.cmd", "lxc.init.cwd", "lxc.init.uid", "lxc.init.gid", "lxc.environment"),
        *("lxc.signal.halt", "lxc.idmap", "lxc.arch", "lxc.uts.name"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """A root file system with what was said of it."""

    image: ImageConfig
    first_id: int = 0  # owners on disk from here on are 0, 1, … inside


def understood(found: Rootfs, platform: Platform, told: Callable[[str], None]) -> Understood:
    """Return what the config beside a root file system says, if there is one; CommandError for one that is none."""
    if found.lxc_config is None:
        return Understood(image=ImageConfig(platform=platform))
    text = found.lxc_config.decode("utf-8", "surrogateescape")
    lines = [line for line in configs.read(text, "config")[0] if line.key in _TAKEN]
    every = {line.key for line in configs.read(text, "config")[0]}
    ignored = sorted(every - _TAKEN)
    if ignored:
        told(
            f"{found.subject}: its config is not its new host's: {', '.join(ignored[:20])} ignored"
        )
    try:
        # An environment line without a value would hand on a variable of ours (T-34).
        environment(
            tuple(each.value for each in lines if each.key == "lxc.environment"), found.subject
        )
        config = configs.parse(configs.render([(each.key, each.value) for each in lines]), "config")
    except ConfigError as error:
        raise CommandError(error.code, f"{found.subject}: config", error.detail) from None
    return Understood(image=_image(config, platform), first_id=_first_id(config))


def _image(config: ContainerConfig, platform: Platform) -> ImageConfig:
    owner = (config.init_uid, config.init_gid)
    return ImageConfig(
        platform=platform,
        entrypoint=tuple(shlex.split(config.init_cmd)),
        env=config.environment,
        user=f"{owner[0]}:{owner[1]}" if any(owner) else "",
        workdir=config.init_cwd,
        stop_signal=str(config.signal_halt) if config.signal_halt else "",
    )


def _first_id(config: ContainerConfig) -> int:
    """Return the host's id of the container's root, where its files may have been shifted on disk."""
    for each in config.idmap:
        if each.kind == "u" and each.inside == 0 and each.outside >= IDS:
            return each.outside
    return 0
