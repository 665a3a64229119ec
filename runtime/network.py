"""A container's network interfaces: made, moved into its namespace, given addresses; rules and ports with them.

    plan(config)            → the nics to make, named
    prepare(nics, key)      → Prepared: bridge, table and leases exist, addresses are settled
    attach(prepared, netns) → Attached: the nic is inside and up
    publish(key, ports)     → ports of the host lead to it
    release(key)            → nothing of a run is left; safe at any time, again and again

The address of a container on our own bridge is leased, and stays its own until `forget`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import bridges, firewall, ipv6, lease, names, netscripts
from runtime.bundle import Port
from runtime.errors import ConfigError, HostError, ResourceError
from runtime.interfaces import Prepared, attach_other, attach_veth, configure, gateway_of, route_to
from runtime.kernel.netlink import Netlink
from runtime.lease import Lease
from runtime.ready import listening
from runtime.settings import Address, ContainerConfig, Nic
from valuetypes import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A nic that is in its container."""

    host_name: str
    ips: tuple[str, ...]
    notes: tuple[str, ...] = ()


def plan(config: ContainerConfig) -> tuple[Nic, ...]:
    """Return the nics of `config` that have to be made, each with its name inside."""
    nics = []
    for number, nic in enumerate(config.nics):
        if not nic.kind:
            key = f"lxc.net.{nic.index}.type"
            raise ConfigError(
                "E_CONFIG_VALUE", key, "is missing: LXC would take the nic for a loopback device"
            )
        if nic.kind != "none":
            nics.append(
                replace(nic, name=nic.name or f"eth{number}") if nic.kind != "empty" else nic
            )
    return tuple(nics)


def shares_host(config: ContainerConfig) -> bool:
    """Whether the container has no network namespace of its own: nics are named, and every one is `none`."""
    return bool(config.nics) and all(nic.kind == "none" for nic in config.nics)


def reserve(
    key: str, bridge: str = bridges.BRIDGE, folder: Path = lease.FOLDER, *, six: bool = False
) -> Lease:
    """Return the address that `key` will have on our bridge, `six`: IPv6, too; nothing is made yet."""
    with Netlink() as host, lease.ledger(folder) as book:
        bridges.choose(host, book, bridge, host.link(bridge), "", six=six)
        new, leased = lease.take(book.book, key, bridge)
        book.save(new)
    return leased._replace(ip6=ipv6.address(new.networks6[bridge], leased.ip)) if six else leased


def prepare(nics: Sequence[Nic], key: str, folder: Path = lease.FOLDER) -> tuple[Prepared, ...]:
    """Make what `nics` need on the host: our bridge, forwarding, rules, a lease."""
    return tuple(_prepare(nic, key, folder) for nic in nics)


def attach(prepared: Prepared, netns: int) -> Attached:
    """Make the nic, put it into the namespace open as `netns`, bring it up there; rules come before frames can."""
    nic = prepared.nic
    with Netlink() as host, Netlink.inside(netns) as inside:
        if nic.kind == "veth":
            attach_veth(host, prepared, netns)
        elif nic.kind != "empty":
            attach_other(host, nic, netns)
        if nic.up:
            inside.change(1, up=True)  # lo, as LXC does with any nic that is up
        if nic.kind == "empty":
            return Attached(host_name="", ips=())
        configure(inside, prepared)
        if nic.kind == "veth":
            route_to(host, prepared)
    ips = tuple(address.ip for address in (*nic.ipv4, *nic.ipv6))
    return Attached(host_name=prepared.host_name, ips=ips, notes=prepared.notes)


def connect(
    config: ContainerConfig,
    key: str,
    netns: int,
    ports: Sequence[Port] = (),
    folder: Path = lease.FOLDER,
) -> Attached:
    """Do all of it for a container that starts: every nic of `config`, then its published ports."""
    try:
        made = prepare(plan(config), key, folder)
        done = [attach(prepared, netns) for prepared in made]
        publish(key, ports, folder)
        _tell_scripts(config, made, key, folder)
    except BaseException:
        release(key, folder)
        raise
    return Attached(
        host_name=next((one.host_name for one in done if one.host_name), ""),
        ips=tuple(ip for one in done for ip in one.ips),
        notes=tuple(note for one in done for note in one.notes),
    )


def publish(key: str, ports: Sequence[Port], folder: Path = lease.FOLDER) -> None:
    """Let `ports` of the host lead to the container; ResourceError (E_LIMIT) where one is taken."""
    if not ports:
        return
    with lease.ledger(folder) as book:
        held = book.book.leases.get(key)
        if held is None or not held.host_name:
            raise HostError(
                "E_KERNEL_FEATURE",
                "--publish",
                "needs a nic on our bridge",
                hints=("use --network bridge",),
            )
        for port in ports:
            _check_port(port, held, [one for one in book.book.leases.values() if one.key != key])
        book.save(book.book.put(held._replace(ports=tuple(ports))))
        firewall.commit(firewall.publish(ports, held.ip, held.ip6))


def _tell_scripts(
    config: ContainerConfig, made: Sequence[Prepared], key: str, folder: Path
) -> None:
    """Run the nics' `up` scripts; write down first what the end of the container has to run."""
    ends = [(one.nic, one.host_name) for one in made]
    if not any(nic.script_up or nic.script_down for nic, _ in ends):
        return
    downs = [netscripts.script(config, nic, end, key, "down") for nic, end in ends]
    with lease.ledger(folder) as book:
        kept = tuple(one for one in downs if one)
        book.save(replace(book.book, downs={**book.book.downs, key: kept}))
    for nic, end in ends:
        if one := netscripts.script(config, nic, end, key, "up"):
            netscripts.run(one)


def release(
    key: str, folder: Path = lease.FOLDER, *, over: Callable[[], bool] = lambda: True
) -> None:
    """Take back what a run of `key` had on the host; its address stays reserved.

    Where it is not `over`, asked while nobody else can attach, the next run has begun and has taken its place.
    """
    if not folder.is_dir():
        return
    with lease.ledger(folder) as book:
        if not over():
            return
        downs = book.book.downs.get(key, ())
        if not downs:
            _take_back(book, key)
            return
        left = {name: scripts for name, scripts in book.book.downs.items() if name != key}
        book.save(replace(book.book, downs=left))
    for one in downs:  # without the lock: they may well use us
        netscripts.run_down(one)
    with lease.ledger(folder) as book:
        _take_back(book, key)


def _take_back(book: lease.Ledger, key: str) -> None:
    held = book.book.leases.get(key)
    if held is None or not (held.host_name or held.ports):
        return
    with Netlink() as host:
        host.delete(held.host_name)
    firewall.commit(firewall.unguard(held.host_name))
    firewall.drop(firewall.unpublish(held.ports, held.ip, held.ip6))
    gone = held._replace(host_name="", ports=(), hosts="", hostname="", ip6="", others=())
    book.save(book.book.put(gone))
    names.tell(book, held.bridge)


def forget(key: str, folder: Path = lease.FOLDER) -> None:
    """Give up the address of a container that is destroyed."""
    release(key, folder)
    if not folder.is_dir():
        return
    with lease.ledger(folder) as book:
        left = {name: one for name, one in book.book.leases.items() if name != key}
        book.save(replace(book.book, leases=left))


def _prepare(nic: Nic, key: str, folder: Path) -> Prepared:
    if nic.kind == "veth" and nic.link in bridges.OURS and nic.veth_mode == "bridge":
        return _prepare_ours(nic, key, folder)
    host_name = ""
    if nic.kind == "veth":
        host_name = nic.veth_pair or _random_name()
    with Netlink() as host:
        gateway, other = gateway_of(host, nic), gateway_of(host, nic, six=True)
    settled = replace(nic, mac=_digits(nic.mac), ipv6_gateway=other)
    return Prepared(key=key, nic=settled, gateway=gateway, host_name=host_name)


def _prepare_ours(nic: Nic, key: str, folder: Path) -> Prepared:
    """Settle the addresses on our own bridge: the config's where it is free and of this network, else a new one.

    Where the config has one of IPv6 there is one, which follows from the other.
    """
    wanted = nic.ipv4[0].ip if nic.ipv4 else ""
    with Netlink() as host, lease.ledger(folder) as book:
        _take_back(book, key)  # of a run that was killed, or of one that was lent
        notes = bridges.ensure(host, book, nic.link, wanted, six=bool(nic.ipv6))
        new, leased = lease.take(book.book, key, nic.link, wanted=wanted, mac=_digits(nic.mac))
        prepared = _settled(nic, leased, new)
        ips = [address.ip for address in (*prepared.nic.ipv4, *prepared.nic.ipv6)]
        held = leased._replace(
            host_name=prepared.host_name,
            ip6=next((ip for ip in ips if ":" in ip), ""),
            others=prepared.guarded[1:],
        )
        book.save(new.put(held))
    if wanted and wanted != leased.ip:
        notes = (
            *notes,
            f"address {leased.ip} instead of {wanted}, which is taken or of another network",
        )
    return replace(prepared, notes=notes)


def _settled(nic: Nic, leased: Lease, book: lease.Book) -> Prepared:
    """Return `nic` with the addresses of the lease, and of IPv6 where it has any."""
    gateway = bridges.gateway(book.networks[nic.link])
    settled = replace(
        nic,
        mac=leased.mac,
        ipv4=(Address(ip=leased.ip, prefix=lease.PREFIX), *nic.ipv4[1:]),
        up=True,
    )
    near: tuple[str, ...] = ()
    if nic.ipv6:
        network = book.networks6[nic.link]
        own = Address(ip=ipv6.address(network, leased.ip), prefix=ipv6.PREFIX)
        there = ipv6.address(network, gateway)
        settled = replace(settled, ipv6=(own, *nic.ipv6[1:]), ipv6_gateway=there)
        near = (ipv6.link_local(leased.ip),)
    ips = [address.ip for address in (*settled.ipv4, *settled.ipv6)]
    return Prepared(
        key=leased.key,
        nic=settled,
        gateway=gateway,
        host_name=nic.veth_pair or _random_name(),
        guarded=(*ips, *near),
        link_local="".join(near),
    )


def _check_port(port: Port, held: Lease, others: Sequence[Lease]) -> None:
    """Refuse what cannot be had by whom `held` is of; `others` are the leases of other containers."""
    shown = f"{port.where}/{port.proto}"
    if port.address == "::1":
        raise HostError(
            "E_KERNEL_FEATURE",
            shown,
            "the kernel lets no answer in from outside to ::1",
            hints=("publish on 127.0.0.1", "or on an address of this host's, or on [::]"),
        )
    if ":" in port.address and not held.ip6:
        raise HostError(
            "E_KERNEL_FEATURE",
            shown,
            "the container has no IPv6 address",
            hints=("create it with --network bridge,ipv6",),
        )
    for other in others:
        if any(_collide(port, held) for held in other.ports):
            name = other.key.partition(".")[2] or other.key
            raise ResourceError("E_LIMIT", shown, f"is published by {name} already")
    if port.proto == "tcp" and listening(os.getpid(), port.host):
        raise ResourceError("E_LIMIT", shown, "a process of this host listens there already")


def _collide(one: Port, other: Port) -> bool:
    if (one.proto, one.host) != (other.proto, other.host):
        return False
    same_family = (":" in one.address) == (":" in other.address)
    everywhere = bool({one.address, other.address} & firewall.EVERYWHERE)
    return one.address == other.address or (same_family and everywhere)


def _random_name() -> str:
    return f"mkt{os.urandom(5).hex()}"


def _digits(mac: str) -> str:
    """Return `mac` with each `x` a random digit."""
    return "".join(os.urandom(1).hex()[0] if char == "x" else char for char in mac)
