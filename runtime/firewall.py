"""What nftables does for our bridges: one inet table, and a netdev chain per port against spoofing.

Rules are text for /usr/sbin/nft, fed on standard input in one transaction; names and addresses in them are ours
or have been parsed. No bridge-family rules: kernels without NFT_BRIDGE_META refuse them (feasibility A20).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runtime.bundle import Port
from runtime.errors import HostError
from runtime.kernel import netlink

if TYPE_CHECKING:
    from subprocess import CompletedProcess

TABLE = "mktemplate"
_NFT = "/usr/sbin/nft"

_BASE = f"""
table inet {TABLE} {{
    set bridges {{ type ifname; }}
    set internal {{ type ifname; }}
    set inside {{ type ifname . ifname; }}
    set networks {{ type ipv4_addr; flags interval; }}
    map bound {{ type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }}
    map everywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}

    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 drop
        iifname @bridges ip daddr 169.254.0.0/16 drop
        iifname @bridges ip6 daddr fe80::/10 drop
    }}
    chain arriving {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @bound
        fib daddr type local dnat ip to meta l4proto . th dport map @everywhere
    }}
    chain local {{
        type nat hook output priority -100; policy accept;
        fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @bound
        fib daddr type local dnat ip to meta l4proto . th dport map @everywhere
    }}
    chain leaving {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname @bridges ip saddr 127.0.0.0/8 masquerade
        oifname @bridges ip saddr @networks ct status dnat masquerade
        oifname != @bridges ip saddr @networks masquerade
    }}
    chain through {{
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        iifname . oifname @inside accept
        ct status dnat accept
        iifname @bridges oifname @bridges drop
        iifname @internal reject with icmpx type admin-prohibited
        iifname @bridges accept
        oifname @bridges drop
    }}
    chain host {{
        type filter hook input priority filter; policy accept;
        iifname @bridges ct state established,related accept
        iifname @bridges meta l4proto tcp reject with tcp reset
        iifname @bridges reject with icmpx type port-unreachable
    }}
}}
"""


def ensure_table() -> bool:
    """Load the table where it is missing (somebody may have flushed it); return whether it was."""
    try:
        if netlink.table_exists(TABLE):
            return False
    except OSError as error:
        raise HostError(
            "E_KERNEL_FEATURE", "nftables", f"this kernel has none: {error.strerror}"
        ) from None
    apply(_BASE)
    return True


def bridge_rules(bridge: str, network: str, *, internal: bool) -> str:
    """Return what makes the table know a bridge; adding it again changes nothing."""
    lines = [f'add element inet {TABLE} bridges {{ "{bridge}" }}', _inside(bridge)]
    if internal:
        lines.append(f'add element inet {TABLE} internal {{ "{bridge}" }}')
    lines.append(f"add element inet {TABLE} networks {{ {ipaddress.IPv4Network(network)} }}")
    return "\n".join(lines) + "\n"


def port_guard(interface: str, mac: str, addresses: Sequence[str], before: str = "") -> str:
    """Return the chain that lets through only what `mac` and `addresses` may send (T-56).

    It takes the place of that of the interface `before`, which may be gone already.
    """
    four = ", ".join(str(ipaddress.IPv4Address(ip)) for ip in addresses)
    gone = (
        f"add chain netdev {TABLE} {before}\ndelete chain netdev {TABLE} {before}" if before else ""
    )
    return f"""
add table netdev {TABLE}
{gone}
table netdev {TABLE} {{
    chain {interface} {{
        type filter hook ingress device "{interface}" priority -500; policy drop;
        ether saddr != {mac} drop
        ether type arp arp saddr ether {mac} arp saddr ip {{ {four} }} accept
        ip saddr {{ {four} }} udp sport 67 drop
        ip saddr {{ {four} }} accept
    }}
}}
"""


def publish_rules(ports: Iterable[Port], ip: str, verb: str = "add") -> str:
    """Return the map elements that lead `ports` to `ip`; `verb` is add or delete."""
    return "".join(f"{verb} element inet {TABLE} {_element(port, ip)}\n" for port in ports)


def apply(rules: str) -> None:
    """Load `rules` in one transaction; HostError (E_KERNEL_FEATURE) where nft is missing or refuses them."""
    done = _nft(rules)
    if done.returncode:
        first = done.stderr.decode(errors="replace").strip().split("\n")[0]
        why = first or f"it ended with {done.returncode}"
        raise HostError("E_KERNEL_FEATURE", "nft", f"refuses our rules: {why}")


def drop(*statements: str) -> None:
    """Do the statements, each by itself where not all can be done: what is gone already is as well."""
    if not statements or _nft("\n".join(statements) + "\n").returncode == 0:
        return
    for statement in statements:
        _nft(f"{statement}\n")


def remove_tables() -> None:
    """Take everything of ours out of nftables."""
    drop(f"delete table inet {TABLE}", f"delete table netdev {TABLE}")


def _nft(rules: str) -> CompletedProcess[bytes]:
    import subprocess  # most starts find the rules there and need one call, some none

    if not os.access(_NFT, os.X_OK):
        raise HostError(
            "E_KERNEL_FEATURE", "nft", "is not installed", hints=("apt install nftables",)
        )
    return subprocess.run(
        [_NFT, "-f", "-"],
        input=rules.encode("ascii"),
        capture_output=True,
        env={"LC_ALL": "C"},
        cwd="/",
        timeout=30,
        check=False,
    )


def _inside(bridge: str) -> str:
    return f'add element inet {TABLE} inside {{ "{bridge}" . "{bridge}" }}'


def _element(port: Port, ip: str) -> str:
    if not re.fullmatch(r"tcp|udp", port.proto, re.ASCII):
        raise HostError("E_KERNEL_FEATURE", port.proto, "cannot be published (tcp, udp)")
    target = f"{ipaddress.IPv4Address(ip)} . {port.container}"
    if port.address in {"0.0.0.0", ""}:  # noqa: S104  the user's own word for every address
        return f"everywhere {{ {port.proto} . {port.host} : {target} }}"
    address = ipaddress.IPv4Address(port.address)
    return f"bound {{ {port.proto} . {address} . {port.host} : {target} }}"
