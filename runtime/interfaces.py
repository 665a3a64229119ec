"""One nic's interface: made on the host, moved into a network namespace, configured there in LXC's order."""

from __future__ import annotations

from runtime import firewall, ipv6, vlans
from runtime.errors import HostError
from runtime.kernel import netlink
from runtime.kernel.netlink import Netlink
from runtime.settings import Nic
from valuetypes import dataclass

_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_ISOLATION = {"bridge": 0, "private": 1, "vepa": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A nic that can be attached: its name and addresses are settled."""

    key: str
    nic: Nic
    gateway: str = ""  # of IPv4: an address, "dev" or nothing
    host_name: str = ""  # the host's end of a veth
    guarded: tuple[str, ...] = ()  # it is on a bridge of ours, and may send from these
    link_local: str = ""  # its IPv6 address on the link, where that is not the kernel's choice
    notes: tuple[str, ...] = ()


def attach_veth(host: Netlink, prepared: Prepared, netns: int) -> None:
    """Make a pair with one end in `netns`; what guards the other comes before it can carry a frame."""
    nic = prepared.nic
    master = index_of(host, nic.link) if nic.link and nic.veth_mode == "bridge" else 0
    queues = netlink.queues(nic.veth_rxqueues, nic.veth_txqueues)
    end = netlink.peer(nic.name, nic.mac, netns, nic.mtu) + queues
    host.add_veth(prepared.host_name, end, master=master, mtu=nic.mtu, queues=queues)
    index = index_of(host, prepared.host_name)
    host.without_ipv6(index)
    if master:
        host.set_hairpin(index)
        vlans.give(host, nic, index)
    if prepared.guarded:
        firewall.commit(firewall.guard(prepared.host_name, nic.mac, prepared.guarded))
    host.change(index, up=True)


def attach_other(host: Netlink, nic: Nic, netns: int) -> None:
    """Make a macvlan, ipvlan or vlan upon an interface of the host's, or hand that interface over."""
    lower = index_of(host, nic.link)
    end = netlink.peer(nic.name, nic.mac, netns, nic.mtu)
    if nic.kind == "phys":
        host.change(lower, end)
        return
    data = {
        "macvlan": netlink.number(1, _MACVLAN_MODES[nic.macvlan_mode]),
        "ipvlan": netlink.short(1, _IPVLAN_MODES[nic.ipvlan_mode])
        + netlink.short(2, _IPVLAN_ISOLATION[nic.ipvlan_isolation]),
        "vlan": netlink.short(1, nic.vlan_id),
    }[nic.kind]
    try:
        host.add_upon(nic.kind, lower, end, data)
    except OSError as error:
        raise HostError(
            "E_KERNEL_FEATURE",
            f"lxc.net.{nic.index}",
            f"{nic.kind} upon {nic.link}: {error.strerror}",
        ) from None


def configure(inside: Netlink, prepared: Prepared) -> None:
    """Give the nic its addresses inside, bring it up, set its routes: in LXC's order."""
    nic = prepared.nic
    index = index_of(inside, nic.name)
    if prepared.link_local:
        inside.without_ipv6(index)
        inside.add_address(index, prepared.link_local, ipv6.PREFIX)
    for address in (*nic.ipv4, *nic.ipv6):
        inside.add_address(index, address.ip, address.prefix, address.broadcast)
    if not nic.up:
        return
    inside.change(index, up=True)
    if prepared.gateway:
        via = "" if prepared.gateway == "dev" else prepared.gateway
        inside.add_route("0.0.0.0", 0, index, via)  # noqa: S104  the default route
    if nic.ipv6_gateway:
        inside.add_route("::", 0, index, "" if nic.ipv6_gateway == "dev" else nic.ipv6_gateway)


def route_to(host: Netlink, prepared: Prepared) -> None:
    """Lead the host to what lies behind a veth: its addresses where it is on no bridge, and `veth.ipv4.route`s."""
    nic = prepared.nic
    own = (*nic.ipv4, *nic.ipv6) if nic.veth_mode == "router" else ()
    wanted = [(address.ip, 128 if ":" in address.ip else 32) for address in own]
    for route in (*nic.veth_ipv4_routes, *nic.veth_ipv6_routes):
        destination, _, prefix = route.partition("/")
        wanted.append((destination, int(prefix)))
    if not wanted:
        return
    index = index_of(host, prepared.host_name)
    for destination, length in wanted:
        host.add_route(destination, length, index)


def gateway_of(host: Netlink, nic: Nic, *, six: bool = False) -> str:
    """Return the gateway of IPv4, or of IPv6; `auto` is the first address of the link, one of its own link the last."""
    told = nic.ipv6_gateway if six else nic.ipv4_gateway
    if told != "auto":
        return told
    index = index_of(host, nic.link)
    family = netlink.AF_INET6 if six else netlink.AF_INET
    found = [ip for link, ip, _ in host.addresses(family) if link == index]
    if not found:
        raise HostError("E_KERNEL_FEATURE", nic.link, "has no address that could be the gateway")
    return min(found, key=lambda ip: ip.startswith("fe80:"))


def index_of(net: Netlink, name: str) -> int:
    """Return the number of an interface; HostError where there is none of that name."""
    link = net.link(name) if name else None
    if link is None:
        raise HostError(
            "E_KERNEL_FEATURE", name or "lxc.net link", "there is no such network interface"
        )
    return link.index
