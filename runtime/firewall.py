"""What nftables does for our bridges: one inet table, and a netdev chain per port against spoofing.

Each function returns changes, which `commit` makes in one transaction; tests/kernel/test_firewall.py has them as text
of nft(8). No bridge-family rules: kernels without NFT_BRIDGE_META refuse them (feasibility A20).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from runtime.bundle import Port
from runtime.errors import HostError
from runtime.kernel import nftables as nft
from runtime.kernel.netlink import mac_bytes, packed
from runtime.kernel.nftables import Change, Table

_TABLE = Table(family=nft.INET, name="mktemplate")
_PORTS = Table(family=nft.NETDEV, name="mktemplate")
_YOUNGEST = "everywhere"  # what a table of an earlier version does not have
_PROTOCOLS = {"tcp": 6, "udp": 17}
_UDP, _ETHER = b"\x11", b"\1\0"

_DROP, _ACCEPT = nft.verdict(nft.DROPS), nft.verdict(nft.ACCEPTS)


def is_there() -> bool:
    """Whether our table is as we make it: somebody may have flushed it, an earlier version have made it."""
    try:
        return _TABLE.has_set(_YOUNGEST)
    except OSError as error:
        raise _refused(error) from None


def tables() -> Iterator[Change]:
    """Make the table anew, with nothing in its sets."""
    from runtime import basetable  # hardly ever: once in a boot

    return basetable.made(_TABLE)


def bridge(name: str, network: str, *, internal: bool) -> Iterator[Change]:
    """Make the table know a bridge; doing it again changes nothing."""
    key = nft.name(name)
    yield _TABLE.element("bridges", key)
    yield _TABLE.element("inside", key + key)
    if internal:
        yield _TABLE.element("internal", key)
    address, _, prefix = network.partition("/")
    _, first = packed(address)
    behind = int.from_bytes(first, "big") + (1 << 8 * len(first) - int(prefix))
    yield _TABLE.interval("networks", first, behind.to_bytes(len(first), "big"))


def guard(interface: str, mac: str, addresses: Sequence[str]) -> Iterator[Change]:
    """Let through only what `mac` and `addresses` may send (T-56)."""
    ether = nft.meta(8) + nft.equal(_ETHER)
    own = mac_bytes(mac)
    yield _PORTS.made()
    yield _PORTS.chain(interface, "filter", nft.INGRESS, -500, nft.DROPS, interface)
    yield _PORTS.rule(interface, ether, nft.payload(nft.LINK, 6, 6), nft.other(own), _DROP)
    for address in addresses:
        _, raw = packed(address)
        arp = ether + nft.payload(nft.LINK, 12, 2) + nft.equal(b"\x08\x06")
        source = nft.meta(nft.PROTOCOL) + nft.equal(b"\x08\x00")
        source += nft.payload(nft.NETWORK, 12, 4) + nft.equal(raw)
        dhcp = (
            nft.meta(nft.L4PROTO)
            + nft.equal(_UDP)
            + nft.payload(nft.TRANSPORT, 0, 2)
            + nft.equal(b"\0\x43")
        )
        yield _PORTS.rule(
            interface, arp, nft.payload(nft.NETWORK, 8, 10), nft.equal(own + raw), _ACCEPT
        )
        yield _PORTS.rule(interface, source, dhcp, _DROP)
        yield _PORTS.rule(interface, source, _ACCEPT)


def unguard(interface: str) -> Iterator[Change]:
    """Take away the guard of an interface, whether there is one or not."""
    yield _PORTS.made()
    yield from _PORTS.without(interface)


def publish(ports: Iterable[Port], ip: str) -> Iterator[Change]:
    """Lead `ports` of the host to `ip`."""
    for port in ports:
        yield _TABLE.element(*_mapping(port, ip))


def unpublish(ports: Iterable[Port], ip: str) -> Iterator[Change]:
    """No longer do so, whether it was done or not."""
    for port in ports:
        yield from _TABLE.without_element(*_mapping(port, ip))


def commit(changes: Iterable[Change]) -> None:
    """Make them in one transaction; HostError (E_KERNEL_FEATURE) where the kernel refuses one."""
    try:
        nft.commit(tuple(changes))
    except OSError as error:
        raise _refused(error) from None


def drop(changes: Iterable[Change]) -> None:
    """Take away what `changes` take away; where our table is gone, that is as well."""
    with suppress(FileNotFoundError):
        nft.commit(tuple(changes))


def remove() -> None:
    """Take everything of ours out of nftables."""
    for table in (_TABLE, _PORTS):
        commit((table.made(), table.gone()))


def _refused(error: OSError) -> HostError:
    hint = "run it as root"
    if error.errno not in {errno.EPERM, errno.EACCES}:
        hint = "a kernel with nf_tables, its nat, masq, ct, fib and reject, and netdev chains"
    return HostError("E_KERNEL_FEATURE", "nftables", f"{error.strerror}", hints=(hint,))


def _mapping(port: Port, ip: str) -> tuple[str, bytes, bytes]:
    """Return the map, the key and the data of a published port."""
    if port.proto not in _PROTOCOLS:
        raise HostError("E_KERNEL_FEATURE", port.proto, "cannot be published (tcp, udp)")
    protocol = bytes([_PROTOCOLS[port.proto], 0, 0, 0])  # each part fills whole words
    target = packed(ip)[1] + _service(port.container)
    if port.address in {"0.0.0.0", ""}:  # noqa: S104  the user's own word for every address
        return "everywhere", protocol + _service(port.host), target
    return "bound", protocol + packed(port.address)[1] + _service(port.host), target


def _service(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"
