"""IPv6 on our bridges, for containers that ask for it (docs/decisions/0018): addresses, and what the host needs.

The prefix is this machine's own (RFC 4193). An address below it ends in the IPv4 address, which is leased.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from runtime import lease
from runtime.errors import HostError
from runtime.kernel.netlink import Netlink, packed, unpacked

PREFIX = 64
_SYSCTL = Path("/proc/sys/net/ipv6/conf")


def choose_network(subnet: int) -> str:
    """Return a network of unique local addresses that follows from this machine: fd, 40 bits of its own, `subnet`."""
    machine = lease.machine() or os.urandom(16)
    own = hashlib.sha256(b"mktemplate " + machine).digest()[:5]
    raw = b"\xfd" + own + subnet.to_bytes(2, "big") + bytes(8)
    return f"{unpacked(raw)}/{PREFIX}"


def address(network: str, ip: str) -> str:
    """Return the address in `network` of whoever has `ip`."""
    return unpacked(packed(network.partition("/")[0])[1][:12] + packed(ip)[1])


def link_local(ip: str) -> str:
    """Return the address on the link of whoever has `ip`."""
    return unpacked(b"\xfe\x80" + bytes(10) + packed(ip)[1])


def turn_on(host: Netlink, index: int, bridge: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Let the host forward IPv6, and give the bridge its addresses; return what was changed on the host.

    HostError (E_KERNEL_FEATURE) where the kernel has no IPv6.
    """
    if not _SYSCTL.is_dir():
        raise HostError(
            "E_KERNEL_FEATURE", "IPv6", "this host has none", hints=("use --network bridge",)
        )
    _write(bridge, "disable_ipv6", "0")
    _write(bridge, "accept_ra", "0")  # a container is no router of ours
    notes = _forward()
    for one in addresses:
        host.add_address(index, one, PREFIX)
    return notes


def _forward() -> tuple[str, ...]:
    """Turn forwarding on where it is off: a router takes no routes from others, but where accept_ra is 2."""
    if _read("all", "forwarding") == "1":
        return ()
    for interface in _learning():
        _write(interface, "accept_ra", "2")
    _write("all", "forwarding", "1")
    return ("net.ipv6.conf.all.forwarding was turned on for the bridge, and accept_ra=1 made 2",)


def _learning() -> Iterator[str]:
    """Yield the interfaces that learn routes while they are no router's, and `default`: those that are yet to come."""
    for interface in sorted(os.listdir(_SYSCTL)):
        if interface not in {"all", "lo"} and _read(interface, "accept_ra") == "1":
            yield interface


def _read(interface: str, name: str) -> str:
    return (_SYSCTL / interface / name).read_text(encoding="ascii").strip()


def _write(interface: str, name: str, value: str) -> None:
    (_SYSCTL / interface / name).write_text(value, encoding="ascii")
