"""A container's config as LXC elsewhere reads it: rooted in /var/lib/lxc/NAME, with nothing of this host in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from mktemplate.shipping.shipment import Shipment
from runtime import config as configs
from runtime.config import Line

_FIRST_ID, _IDS = 100_000, 65_536  # lxc.container.conf(5), UID MAPPINGS: its own example
# What is this host's, or says where on it something lies.
_OWN = (
    "lxc.rootfs.", "lxc.mount.fstab", "lxc.seccomp.profile", "lxc.idmap", "lxc.hook.", "lxc.include", "lxc.log.",
    "lxc.console.logfile", "lxc.start.",
)  # fmt: skip
_LOW_PORTS = "net_bind_service"


def texts(shipped: Shipment) -> dict[str, bytes]:
    """Return the files that lie beside the rootfs, by their names below NAME/."""
    name = shipped.image.name
    text = shipped.bundle.config.read_text(encoding="utf-8", errors="surrogateescape")
    lines, _ = configs.read(text, str(shipped.bundle.config))
    pairs = [*_kept(lines, shipped), *_placed(name, shipped)]
    rendered = configs.render(pairs)
    configs.parse(rendered, f"{name}/config")  # it reads back, or is an error here and not there
    return {
        f"{name}/config": rendered.encode("utf-8", "surrogateescape"),
        f"{name}/seccomp": (shipped.bundle.path / "seccomp").read_bytes(),
    }


def _kept(lines: tuple[Line, ...], shipped: Shipment) -> Iterator[tuple[str, str]]:
    """Yield the lines that mean the same elsewhere."""
    routed = _is_bridged(shipped)
    for line in lines:
        if line.key.startswith(_OWN) or _is_ours(line):
            continue
        if routed and line.key.startswith(("lxc.net.", "lxc.sysctl.")):
            continue  # LXC writes sysctls after it has made /proc/sys read-only
        if routed and line.key == "lxc.cap.drop":
            rest = " ".join(word for word in line.value.split() if word != _LOW_PORTS)
            yield line.key, rest
            continue
        yield line.key, line.value


def _is_ours(line: Line) -> bool:
    """Whether a line mounts what only this host has."""
    source = line.value.split(" ", 1)[0]
    return line.key == "lxc.mount.entry" and source.startswith("/") and source not in {"/dev/null"}


def _is_bridged(shipped: Shipment) -> bool:
    """Whether it is on a bridge that only mktemplate makes: elsewhere it gets a routed address of its own."""
    return any(nic.kind == "veth" for nic in shipped.config.nics)


def _placed(name: str, shipped: Shipment) -> Iterator[tuple[str, str]]:
    """Yield what says where it lies, which ids it has and how it is reached."""
    config, place = shipped.config, f"/var/lib/lxc/{name}"
    options = [option for option in config.rootfs_options if not option.startswith("idmap=")]
    if config.idmap:
        yield "lxc.idmap", f"u 0 {_FIRST_ID} {_IDS}"
        yield "lxc.idmap", f"g 0 {_FIRST_ID} {_IDS}"
        options.append("idmap=container")
    yield "lxc.rootfs.path", f"dir:{place}/rootfs"
    if options:
        yield "lxc.rootfs.options", ",".join(options)
    yield "lxc.seccomp.profile", f"{place}/seccomp"
    if _is_bridged(shipped):
        yield "lxc.net.0.type", "veth"
        yield "lxc.net.0.veth.mode", "router"
        yield "lxc.net.0.name", "eth0"
        yield "lxc.net.0.flags", "up"
        yield "lxc.net.0.ipv4.address", f"{address(name)}/32"
        yield "lxc.net.0.ipv4.gateway", "dev"


def address(name: str) -> str:
    """Return an address in 10/8 that follows from the name: the host routes it to the container alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return f"10.{digest[0]}.{digest[1]}.{digest[2] % 254 + 1}"
