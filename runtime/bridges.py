"""Our bridges: made when a container first needs one, known to the firewall, taken down when nothing is on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime import firewall, ipv6, lease
from runtime.errors import HostError
from runtime.kernel.netlink import AF_INET6, Link, Netlink
from runtime.kernel.nftables import Change
from valuetypes import replace

BRIDGE, INTERNAL = OURS = ("mkt0", "mkti0")  # the second one leads nowhere
_MAC = "02:6d:6b:74:00:{:02x}"
_SYSCTL = "/proc/sys/net/ipv4"


def choose(
    host: Netlink, book: lease.Ledger, bridge: str, link: Link | None, wanted: str, *, six: bool
) -> str:
    """Return the network of `bridge`, there as `link` if at all, and write it down; so is one of IPv6 if `six`.

    It is the one that its leases are of, unless the host has a route there that is not the bridge's; else a new one.
    """
    known = book.book.networks.get(bridge, "")
    if not known or link is None:
        routed = [f"{net}/{prefix}" for net, prefix in host.routes() if prefix]
        taken = [network for name, network in book.book.networks.items() if name != bridge]
        network = lease.choose_network(routed, taken, known.partition("/")[0] or wanted)
        if network != known:
            book.save(replace(book.book, networks={**book.book.networks, bridge: network}))
        known = network
    if six and bridge not in book.book.networks6:
        chosen = ipv6.choose_network(int(bridge == INTERNAL))
        book.save(replace(book.book, networks6={**book.book.networks6, bridge: chosen}))
    return known


def ensure(
    host: Netlink, book: lease.Ledger, name: str, wanted: str, *, six: bool
) -> tuple[str, ...]:
    """Make the bridge, forwarding and the rules where they are missing; return what was changed on the host."""
    notes: tuple[str, ...] = ()
    link = host.link(name)
    network = choose(host, book, name, link, wanted, six=six)
    if link is None:
        host.add_bridge(name, _MAC.format(name == INTERNAL))
        link = host.link(name)
    if link is None or link.kind != "bridge":
        raise HostError("E_KERNEL_FEATURE", name, "is an interface of somebody else's")
    own6 = ipv6.address(book.book.networks6[name], gateway(network)) if six else ""
    lacks6 = six and own6 not in [ip for _, ip, _ in host.addresses(AF_INET6)]
    if not link.up:
        host.without_ipv6(link.index)
        host.add_address(link.index, gateway(network), lease.PREFIX)
        host.change(link.index, up=True)
        _sysctl(
            f"conf/{name}/route_localnet", "1"
        )  # on this one interface: 127.0.0.1 is published through it
        notes = _forwarding()
    there = firewall.is_there()
    if not there or not link.up or lacks6:
        firewall.commit([*(() if there else firewall.tables()), *_all_of(host, book.book)])
    if lacks6:
        near = ipv6.link_local(gateway(network))
        notes += ipv6.turn_on(host, link.index, name, (near, own6))
    return notes


def _all_of(host: Netlink, book: lease.Book) -> Iterator[Change]:
    """Yield what makes the table know our bridges, and again what running containers had where it was flushed."""
    for bridge, network in book.networks.items():
        networks = filter(None, (network, book.networks6.get(bridge, "")))
        yield from firewall.bridge(bridge, networks, internal=bridge == INTERNAL)
    for one in book.leases.values():
        yield from firewall.publish(one.ports, one.ip, one.ip6)
        if one.host_name and host.link(one.host_name):
            yield from firewall.unguard(one.host_name)
            yield from firewall.guard(one.host_name, one.mac, (one.ip, *one.others))


def _forwarding() -> tuple[str, ...]:
    with open(f"{_SYSCTL}/ip_forward", encoding="ascii") as file:
        if file.read().strip() == "1":
            return ()
    _sysctl("ip_forward", "1")
    return ("net.ipv4.ip_forward was turned on for the bridge",)


def _sysctl(name: str, value: str) -> None:
    with open(f"{_SYSCTL}/{name}", "w", encoding="ascii") as file:
        file.write(value)


def gateway(network: str) -> str:
    """Return the bridge's own address."""
    return network.rpartition(".")[0] + ".1"


def remove_if_unused(folder: Path = lease.FOLDER) -> bool:
    """Take down our bridges and rules when nothing is on them; return whether there was anything.

    A network of which somebody holds an address stays known: what is stopped finds its address again.
    """
    if not folder.is_dir():
        return False
    with lease.ledger(folder) as book, Netlink() as host:
        links = host.links()
        ours = [link for link in links if link.name in OURS and link.kind == "bridge"]
        if any(link.master in {bridge.index for bridge in ours} for link in links):
            return False
        for bridge in ours:
            host.delete(bridge.name)
        if ours:
            firewall.remove()
        held = {one.bridge for one in book.book.leases.values()}
        kept = {name: network for name, network in book.book.networks.items() if name in held}
        book.save(replace(book.book, networks=kept, networks6={}))
    return bool(ours)
