"""Values of `lxc.net.N.*` keys: text in, typed value out, as liblxc reads them."""

from __future__ import annotations

import re

from runtime.readers import Misread, integer
from runtime.settings import Address

NET_KINDS = frozenset({"veth", "macvlan", "ipvlan", "vlan", "phys", "empty", "none"})


def net_kind(value: str) -> str:
    """Read the type of a nic."""
    if value not in NET_KINDS:
        raise Misread(f"{value!r} is no type of network ({' '.join(sorted(NET_KINDS))})")
    return value


def interface(value: str) -> str:
    """Read the name of an interface (IFNAMSIZ: at most 15 bytes; liblxc cuts longer ones)."""
    if len(value) > 15 or not re.fullmatch(r"[^/\s:]+", value) or value in {".", ".."}:
        raise Misread(f"{value!r} is not a name of an interface (at most 15 bytes)", loads=True)
    return value


def link(value: str) -> str:
    """Read a host's interface or bridge; `phys` takes a trailing `+` for any that begins so."""
    return interface(value)


def mac(value: str) -> str:
    """Read a hardware address; `x` stands for a random digit."""
    if not re.fullmatch(r"[0-9a-fA-FxX]{2}(:[0-9a-fA-FxX]{2}){5}", value, re.ASCII):
        raise Misread(f"{value!r} is not a hardware address", loads=True)
    return value.lower()


def mtu(value: str) -> int:
    """Bytes of a packet."""
    return integer(value, 68, 65535, loads=True)


def vlan(value: str) -> int:
    """Read a VLAN's number."""
    number = integer(value)
    if number > 4094:
        raise Misread(f"{value} is no VLAN (1 to 4094)", loads=True)
    return number


def port_vlan(value: str) -> int:
    """Read a bridge port's VLAN; `none` is -1."""
    return -1 if value == "none" else integer(value, 0, 4094)


def tagged_vlan(value: str) -> tuple[int, ...]:
    """Read a VLAN that a bridge port carries tagged."""
    return (integer(value, 0, 4094),)


def ipv4_address(value: str) -> tuple[Address, ...]:
    """`ADDRESS[/PREFIX] [BROADCAST]`; without a prefix the one of the address's class."""
    address, _, broadcast = (part.strip() for part in value.partition(" "))
    host, slash, length = address.partition("/")
    first = int(_ipv4(host).split(".")[0])
    prefix = integer(length, 0, 32) if slash else _class_prefix(first)
    return (Address(ip=host, prefix=prefix, broadcast=_ipv4(broadcast) if broadcast else ""),)


def _class_prefix(first: int) -> int:
    return next(
        prefix for bound, prefix in ((128, 8), (192, 16), (224, 24), (256, 32)) if first < bound
    )


def _ipv4(value: str) -> str:
    import ipaddress  # only a config with addresses pays for it

    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise Misread(f"{value!r} is not an IPv4 address") from None


def ipv6_address(value: str) -> tuple[Address, ...]:
    """`ADDRESS[/PREFIX]`, 64 where none is given."""
    host, slash, length = value.partition("/")
    prefix = integer(length) if slash else 64
    _ipv6(host)
    if prefix > 128:
        raise Misread(f"{prefix} is no length of an IPv6 prefix", loads=True)
    return (Address(ip=host, prefix=prefix),)


def _ipv6(value: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.IPv6Address(value))
    except ValueError:
        raise Misread(f"{value!r} is not an IPv6 address") from None


def ipv4_gateway(value: str) -> str:
    """Read an address, `auto` (the link's own) or `dev` (the interface itself)."""
    return value if value in {"auto", "dev"} else _ipv4(value)


def ipv6_gateway(value: str) -> str:
    """Read an address, `auto` or `dev`."""
    return value if value in {"auto", "dev"} else _ipv6(value)


def ipv4_route(value: str) -> tuple[str, ...]:
    """`ADDRESS/PREFIX`."""
    if "/" not in value:
        raise Misread(f"{value!r}: expected ADDRESS/PREFIX")
    [address] = ipv4_address(value)
    return (f"{address.ip}/{address.prefix}",)


def ipv6_route(value: str) -> tuple[str, ...]:
    """`ADDRESS/PREFIX`."""
    if "/" not in value:
        raise Misread(f"{value!r}: expected ADDRESS/PREFIX")
    [address] = ipv6_address(value)
    return (f"{address.ip}/{address.prefix}",)
