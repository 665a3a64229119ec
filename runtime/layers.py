"""What lxc.rootfs.path and lxc.rootfs.options ask for: a folder, an image, or an overlay of them."""

from __future__ import annotations

from pathlib import Path

from runtime import fstab, image, rootfs
from runtime.config import ContainerConfig
from runtime.idmap import IdMap
from runtime.kernel import mount as m
from runtime.program import Call
from valuetypes import replace


def layers(
    config: ContainerConfig, name: str, ids: IdMap | None, *, rootless: bool
) -> rootfs.Layers:
    """Return how the root of the container `name` is made; raise ConfigError or HostError for what cannot be one."""
    options = fstab.flags(config.rootfs_options)
    attributes = options.set | m.MOUNT_ATTR_NODEV
    attributes |= m.MOUNT_ATTR_NOSUID if config.no_new_privs else 0
    *lowers, upper = map(Path, config.rootfs_layers)
    found = image.images(config, rootless=rootless)
    written = rootfs.Written(upper=upper)
    volatile = "volatile" in options.data
    mapped = options.idmap == "container"
    if config.rootfs_kind == "overlay":
        mapped = True
        written = rootfs.Written(upper=upper, work=upper.with_name("work"), volatile=volatile)
    elif found:
        written = replace(written, desk=image.desk(config))
        if volatile:
            lowers, folder = [upper], upper.with_name("upper")
            written = replace(written, upper=folder, work=folder.with_name("work"), volatile=True)

    sealed = bool(options.set & m.MOUNT_ATTR_RDONLY)
    images = {
        path: replace(one, read_only=one.read_only or sealed or path in lowers)
        for path, one in found.items()
    }

    def source(path: Path, slot: str) -> tuple[Call, ...]:
        if path in images:
            return image.mount(images[path], slot, options)
        return rootfs.cloned(path, slot)

    made = rootfs.stage(
        tuple(lowers),
        written,
        name,
        attributes,
        mapped=mapped and ids is not None and not rootless,
        source=source,
    )
    return replace(made, opened=tuple(map(image.opened, images.values())))
