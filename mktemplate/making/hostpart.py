"""What of this host stands in a container's files: where its root is, its ids, its address, its volumes.

`create` appends it to the rendered texts, once; `start` and lxc-start then read everything from the files.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import resource
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mktemplate.cli.arguments import Volume
from mktemplate.errors import CommandError, escape
from mktemplate.template.facts import Network
from runtime import capabilities, ipv6, lease, state
from runtime import config as configs
from runtime import network as networks
from runtime.fstab import MountEntry
from runtime.idmap import is_nested
from valuetypes import dataclass

_REFUSED_BELOW = ("/proc", "/sys", "/dev", "/run/mktemplate")  # F-5
_UNNAMED = frozenset((":", ",", "\\", *map(chr, range(0x20))))  # beside blanks, in a PATH
_PRLIMIT = re.compile(r"lxc\.prlimit\.([a-z]+) = ([0-9]+|unlimited):([0-9]+|unlimited)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one container lies, and what was allotted to it."""

    path: Path  # PATH/NAME
    layers: tuple[Path, ...] = ()  # bottom first; none with --flat
    no_new_privs: bool = True
    flat: bool = False
    idmap: tuple[tuple[str, str], ...] = ()
    network: tuple[tuple[str, str], ...] = ()


def lines(place: Place) -> str:
    """Return the last section of the configuration."""
    options = ["nodev"] + (["nosuid"] if place.no_new_privs else [])
    if place.flat:
        root = f"dir:{place.path}/rootfs"
        options += ["idmap=container"] if place.idmap and may_map() else []
    else:
        top_first = [str(layer) for layer in reversed(place.layers)]
        root = ":".join(("overlay", *top_first, f"{place.path}/upper"))
    pairs = [
        ("lxc.rootfs.path", root),
        ("lxc.rootfs.options", ",".join(options)),
        ("lxc.mount.fstab", f"{place.path}/fstab"),
        ("lxc.seccomp.profile", f"{place.path}/seccomp"),
        *place.idmap,
        *place.network,
    ]
    return "\n# this host\n" + configs.render(pairs)


def may_map() -> bool:
    """Whether mounts can be id-mapped; what a normal user makes has the container's owners on disk already."""
    return os.geteuid() == 0 and not is_nested()


def check_path(path: Path) -> None:
    """Raise E_PARAM for a PATH that the texts could not name: `:` parts layers, a comma parts overlay's options."""
    if any(char in _UNNAMED or char.isspace() for char in str(path)):
        raise CommandError(
            "E_PARAM",
            f"--path {escape(str(path))}",
            "may not hold a colon, comma, backslash or blank",
        )


def clamp_limits(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the configuration with each default limit that this process may not give lowered, and notes of it."""
    if _may_raise():
        return text, ()
    notes: list[str] = []

    def lowered(match: re.Match[str]) -> str:
        name, soft, hard = match.groups()
        own = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        if own == resource.RLIM_INFINITY or (hard != "unlimited" and int(hard) <= own):
            return match[0]
        notes.append(f"limit {name}: {own} instead of {hard}, as this process has no more")
        low = own if soft == "unlimited" else min(int(soft), own)
        return f"lxc.prlimit.{name} = {low}:{own}"

    return _PRLIMIT.sub(lowered, text), tuple(notes)


def _may_raise() -> bool:
    return capabilities.has("sys_resource") and not is_nested()


def volumes(
    wanted: Sequence[Volume], store: Path, grants: Sequence[str], *, userns: bool
) -> tuple[MountEntry, ...]:
    """Return the entries of --volume: SRC resolved once, here; refused where it would open the host (F-5)."""
    return tuple(_volume(volume, store, grants, userns=userns) for volume in wanted)


def _volume(volume: Volume, store: Path, grants: Sequence[str], *, userns: bool) -> MountEntry:
    shown = f"--volume {escape(volume.source)}"
    try:
        source = Path(volume.source).resolve(strict=True)
        kind = source.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise CommandError(
            "E_MOUNT_SOURCE", shown, getattr(error, "strerror", "") or "a loop"
        ) from None
    if str(source) == "/" or _below(source, _REFUSED_BELOW) or _near(source, store):
        raise CommandError("E_MOUNT_SOURCE", shown, f"{source} may not be given to a container")
    if stat.S_ISSOCK(kind) and f"socket:{source}" not in grants:
        raise CommandError(
            "E_MOUNT_SOURCE", shown, "is a socket", hints=(f"--grant socket:{source}",)
        )
    target = volume.target.strip("/")
    if not target or ".." in target.split("/"):
        raise CommandError("E_PARAM", shown, f'"{escape(volume.target)}" is no place inside')
    options = ["bind", "ro" if volume.read_only else "rw", "nosuid", "nodev"]
    return MountEntry(
        source=str(source),
        target=target,
        kind="none",
        options=(*options, "idmap=container") if userns and may_map() else tuple(options),
        create="dir" if stat.S_ISDIR(kind) else "file",
    )


def _below(path: Path, tops: Sequence[str]) -> bool:
    return any(path == Path(top) or Path(top) in path.parents for top in tops)


def _near(path: Path, store: Path) -> bool:
    """Whether `path` is the store, in it, or above it."""
    store = Path(os.path.abspath(store))
    return path == store or store in path.parents or path in store.parents


@contextmanager
def address(path: Path, name: str, network: Network) -> Iterator[tuple[tuple[str, str], ...]]:
    """Give the lines of the container's address; what was reserved for it is given back where the block fails."""
    if os.geteuid() != 0:  # pasta gives it one whenever it starts
        yield ()
        return
    if network.kind == "router":
        yield router_lines(path, name)
        return
    if network.kind != "bridge":
        yield ()
        return
    key = state.key(path, name)
    leased = networks.reserve(key, network.link, six=network.ipv6)
    six = (("lxc.net.0.ipv6.address", f"{leased.ip6}/{ipv6.PREFIX}"),) if network.ipv6 else ()
    try:
        yield (
            ("lxc.net.0.hwaddr", leased.mac),
            ("lxc.net.0.ipv4.address", f"{leased.ip}/{lease.PREFIX}"),
            *six,
        )
    except BaseException:
        networks.forget(key)
        raise


def router_lines(path: Path, name: str) -> tuple[tuple[str, str], ...]:
    """Return the address of a `--flat` container: one of its own in 10/8 that the host routes nowhere (A6).

    It follows from PATH and NAME, so it is the same whenever the same container is made anew.
    """
    digest = hashlib.sha256(os.fsencode(path / name)).digest()
    routed = _routed()
    for attempt in range(256):
        address = f"10.{digest[0]}.{(digest[1] + attempt) % 256}.{digest[2] % 254 + 1}"
        if not any(ipaddress.ip_address(address) in network for network in routed):
            return (
                ("lxc.net.0.ipv4.address", f"{address}/32"),
                ("lxc.net.0.ipv4.gateway", "dev"),
            )
    raise CommandError("E_LIMIT", name, "no address below 10/8 is free on this host")


def _routed() -> list[ipaddress.IPv4Network]:
    """Return the networks that this host has a route to, but for the default (proc_net_route(5))."""
    with open("/proc/net/route", encoding="ascii") as file:
        rows = [line.split() for line in file.read().split("\n")[1:] if line]
    found = []
    for row in rows:
        destination, mask = (
            int.from_bytes(bytes.fromhex(row[index]), sys.byteorder) for index in (1, 7)
        )
        if mask:
            address = str(ipaddress.ip_address(destination & mask))
            found.append(ipaddress.ip_network(f"{address}/{ipaddress.ip_address(mask)}"))
    return [network for network in found if isinstance(network, ipaddress.IPv4Network)]


def closed_parent(path: Path) -> str:
    """Return the first directory on the way to PATH that a container's root may not walk through, "" for none.

    We need no such way; liblxc does, for it looks for the rootfs as the mapped root.
    """
    for parent in (*reversed(path.parents), path):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return str(parent)
    return ""
