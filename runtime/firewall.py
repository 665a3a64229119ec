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
_YOUNGEST = "everywhere6"  # what a table of an earlier version does not have
_PROTOCOLS = {"tcp": 6, "udp": 17}
EVERYWHERE = frozenset(("0.0.0.0", "::", ""))  # the user's words for every address  # noqa: S104

_DROP, _ACCEPT = nft.verdict(nft.DROPS), nft.verdict(nft.ACCEPTS)
_ETHER = nft.meta(nft.IIFTYPE) + nft.equal(b"\1\0")  # ARPHRD_ETHER
_ARP = _ETHER + nft.payload(nft.LINK, 12, 2) + nft.equal(b"\x08\x06")
_IP = nft.meta(nft.PROTOCOL) + nft.equal(b"\x08\x00")
_IP6 = nft.meta(nft.PROTOCOL) + nft.equal(b"\x86\xdd")
_UDP = nft.meta(nft.L4PROTO) + nft.equal(b"\x11")
_ICMP6 = nft.meta(nft.L4PROTO) + nft.equal(b"\x3a")
_FROM_DHCP = nft.payload(nft.TRANSPORT, 0, 2) + nft.equal(b"\0\x43")
_TO_DHCP6 = nft.payload(nft.TRANSPORT, 2, 2) + nft.equal(b"\x02\x22")


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


def bridge(name: str, networks: Iterable[str], *, internal: bool) -> Iterator[Change]:
    """Make the table know a bridge and its networks; doing it again changes nothing."""
    key = nft.name(name)
    yield _TABLE.element("bridges", key)
    yield _TABLE.element("inside", key + key)
    if internal:
        yield _TABLE.element("internal", key)
    for network in networks:
        address, _, prefix = network.partition("/")
        _, first = packed(address)
        behind = int.from_bytes(first, "big") + (1 << 8 * len(first) - int(prefix))
        kind = "networks6" if ":" in network else "networks"
        yield _TABLE.interval(kind, first, behind.to_bytes(len(first), "big"))


def guard(interface: str, mac: str, addresses: Iterable[str]) -> Iterator[Change]:
    """Let through only what `mac` and `addresses` may send (T-56)."""
    own = mac_bytes(mac)
    yield _PORTS.made()
    yield _PORTS.chain(interface, "filter", nft.INGRESS, -500, nft.DROPS, interface)
    yield _PORTS.rule(interface, _ETHER, nft.payload(nft.LINK, 6, 6), nft.other(own), _DROP)
    six = []
    for address in addresses:
        _, raw = packed(address)
        if len(raw) == 16:
            six.append(raw)
            continue
        source = _IP + nft.payload(nft.NETWORK, 12, 4) + nft.equal(raw)
        said = nft.payload(nft.NETWORK, 8, 10) + nft.equal(own + raw)
        yield _PORTS.rule(interface, _ARP, said, _ACCEPT)
        yield _PORTS.rule(interface, source, _UDP, _FROM_DHCP, _DROP)
        yield _PORTS.rule(interface, source, _ACCEPT)
    if six:
        yield from _guard6(interface, own, six)


def _guard6(interface: str, mac: bytes, addresses: Sequence[bytes]) -> Iterator[Change]:
    """Let `addresses` ask for neighbours and answer for themselves, with their `mac`; nothing as a router."""
    for raw in addresses:
        source = nft.payload(nft.NETWORK, 8, 16) + nft.equal(raw)
        # RFC 4861: type and code; reserved or flags; the target; an option of a length of 8: kind, 1, the address
        asks = _message(32) + source + _kind(135)
        asks += nft.payload(nft.TRANSPORT, 24, 8) + nft.equal(b"\1\1" + mac)
        tells = source + _kind(136) + nft.payload(nft.TRANSPORT, 8, 16) + nft.equal(raw)
        with_mac = nft.payload(nft.TRANSPORT, 24, 8) + nft.equal(b"\2\1" + mac)
        yield _PORTS.rule(interface, asks, _ACCEPT)
        yield _PORTS.rule(interface, _message(32), tells, with_mac, _ACCEPT)
        yield _PORTS.rule(interface, _message(24), tells, _ACCEPT)
    any_kind = nft.payload(nft.TRANSPORT, 0, 1) + nft.between(bytes([133]), bytes([137]))
    yield _PORTS.rule(interface, _ICMP6, any_kind, _DROP)  # also of routers, and redirects
    yield _PORTS.rule(interface, _IP6, _UDP, _TO_DHCP6, _DROP)
    for raw in addresses:
        source = nft.payload(nft.NETWORK, 8, 16) + nft.equal(raw)
        yield _PORTS.rule(interface, _IP6, source, _ACCEPT)


def _message(length: int) -> bytes:
    """Match ICMPv6 right behind the IPv6 header, with a message of `length` bytes."""
    return _IP6 + nft.payload(nft.NETWORK, 4, 3) + nft.equal(bytes((0, length, 58)))


def _kind(number: int) -> bytes:
    return nft.payload(nft.TRANSPORT, 0, 2) + nft.equal(bytes((number, 0)))


def unguard(interface: str) -> Iterator[Change]:
    """Take away the guard of an interface, whether there is one or not."""
    yield _PORTS.made()
    yield from _PORTS.without(interface)


def publish(ports: Iterable[Port], ip: str, ip6: str = "") -> Iterator[Change]:
    """Lead `ports` of the host to `ip`, those of its IPv6 addresses to `ip6`."""
    for port in ports:
        yield _TABLE.element(*_mapping(port, ip, ip6))


def unpublish(ports: Iterable[Port], ip: str, ip6: str = "") -> Iterator[Change]:
    """No longer do so, whether it was done or not."""
    for port in ports:
        yield from _TABLE.without_element(*_mapping(port, ip, ip6))


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


def _mapping(port: Port, ip: str, ip6: str) -> tuple[str, bytes, bytes]:
    """Return the map, the key and the data of a published port."""
    if port.proto not in _PROTOCOLS:
        raise HostError("E_KERNEL_FEATURE", port.proto, "cannot be published (tcp, udp)")
    protocol = bytes([_PROTOCOLS[port.proto], 0, 0, 0])  # each part fills whole words
    six = "6" if ":" in port.address else ""
    target = packed(ip6 if six else ip)[1] + _service(port.container)
    if port.address in EVERYWHERE:
        return f"everywhere{six}", protocol + _service(port.host), target
    return f"bound{six}", protocol + packed(port.address)[1] + _service(port.host), target


def _service(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"
