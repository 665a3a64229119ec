"""Our rules, against the second opinion of nft(8): what we make by netlink lists as what it makes of this text."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from runtime import firewall
from runtime.bundle import Port
from runtime.errors import HostError
from tests.kernel.test_network import in_a_host_of_its_own

pytestmark = pytest.mark.root
OWN, NEAR = ("10.47.7.9", "fd12:3456:789a::a2f:709"), "fe80::a2f:709"
MAC = "02:6d:0a:2f:07:09"
PORTS = (
    Port(host=8080, container=80),
    Port(host=53, container=5353, address="0.0.0.0", proto="udp"),
    Port(host=443, container=80, address="2001:db8::1"),
    Port(host=53, container=5353, address="::", proto="udp"),
)
TABLES = """
table inet mktemplate {
    set bridges { type ifname; elements = { "mkt0", "mkti0" }; }
    set internal { type ifname; elements = { "mkti0" }; }
    set inside { type ifname . ifname; elements = { "mkt0" . "mkt0", "mkti0" . "mkti0" }; }
    set networks { type ipv4_addr; flags interval; elements = { 10.47.7.0/24, 172.16.3.0/24 }; }
    map bound {
        type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
        elements = { tcp . 127.0.0.1 . 8080 : 10.47.7.9 . 80 }
    }
    map everywhere {
        type inet_proto . inet_service : ipv4_addr . inet_service
        elements = { udp . 53 : 10.47.7.9 . 5353 }
    }

    set networks6 { type ipv6_addr; flags interval; elements = { fd12:3456:789a::/64 }; }
    map bound6 {
        type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service
        elements = { tcp . 2001:db8::1 . 443 : fd12:3456:789a::a2f:709 . 80 }
    }
    map everywhere6 {
        type inet_proto . inet_service : ipv6_addr . inet_service
        elements = { udp . 53 : fd12:3456:789a::a2f:709 . 5353 }
    }

    chain guard {
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 drop
        iifname @bridges ip daddr 169.254.0.0/16 drop
        iifname @bridges icmpv6 type 135-136 accept
        iifname @bridges ip6 daddr fe80::/10 drop
    }
    chain arriving {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @bound
        fib daddr type local dnat ip to meta l4proto . th dport map @everywhere
        fib daddr type local dnat ip6 to meta l4proto . ip6 daddr . th dport map @bound6
        fib daddr type local ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @everywhere6
    }
    chain local {
        type nat hook output priority -100; policy accept;
        fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @bound
        fib daddr type local dnat ip to meta l4proto . th dport map @everywhere
        fib daddr type local dnat ip6 to meta l4proto . ip6 daddr . th dport map @bound6
        fib daddr type local ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @everywhere6
    }
    chain leaving {
        type nat hook postrouting priority srcnat; policy accept;
        oifname @bridges ip saddr 127.0.0.0/8 masquerade
        oifname @bridges ip saddr @networks ct status dnat masquerade
        oifname != @bridges ip saddr @networks masquerade
        oifname @bridges ip6 saddr @networks6 ct status dnat masquerade
        oifname != @bridges ip6 saddr @networks6 masquerade
    }
    chain through {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        iifname . oifname @inside accept
        ct status dnat accept
        iifname @bridges oifname @bridges drop
        iifname @internal reject with icmpx type admin-prohibited
        iifname @bridges accept
        oifname @bridges drop
    }
    chain host {
        type filter hook input priority filter; policy accept;
        iifname @bridges icmpv6 type 135-136 accept
        iifname @bridges ct state established,related accept
        iifname @bridges meta l4proto tcp reject with tcp reset
        iifname @bridges reject with icmpx type port-unreachable
    }
}
"""
GUARD = f"""
table netdev mktemplate {{
    chain lo {{
        type filter hook ingress device "lo" priority -500; policy drop;
        ether saddr != {MAC} drop
        ether type arp arp saddr ether {MAC} arp saddr ip {OWN[0]} accept
        ip saddr {OWN[0]} udp sport 67 drop
        ip saddr {OWN[0]} accept
        ip6 length 32 ip6 nexthdr ipv6-icmp ip6 saddr {OWN[1]} icmpv6 type nd-neighbor-solicit icmpv6 code 0 \
            @th,192,64 0x0101026d0a2f0709 accept
        ip6 length 32 ip6 nexthdr ipv6-icmp ip6 saddr {OWN[1]} icmpv6 type nd-neighbor-advert icmpv6 code 0 \
            icmpv6 taddr {OWN[1]} @th,192,64 0x0201026d0a2f0709 accept
        ip6 length 24 ip6 nexthdr ipv6-icmp ip6 saddr {OWN[1]} icmpv6 type nd-neighbor-advert icmpv6 code 0 \
            icmpv6 taddr {OWN[1]} accept
        ip6 length 32 ip6 nexthdr ipv6-icmp ip6 saddr {NEAR} icmpv6 type nd-neighbor-solicit icmpv6 code 0 \
            @th,192,64 0x0101026d0a2f0709 accept
        ip6 length 32 ip6 nexthdr ipv6-icmp ip6 saddr {NEAR} icmpv6 type nd-neighbor-advert icmpv6 code 0 \
            icmpv6 taddr {NEAR} @th,192,64 0x0201026d0a2f0709 accept
        ip6 length 24 ip6 nexthdr ipv6-icmp ip6 saddr {NEAR} icmpv6 type nd-neighbor-advert icmpv6 code 0 \
            icmpv6 taddr {NEAR} accept
        icmpv6 type 133-137 drop
        meta protocol ip6 udp dport 546 drop
        ip6 saddr {OWN[1]} accept
        ip6 saddr {NEAR} accept
    }}
}}
"""


@pytest.fixture(autouse=True)
def tools(needs: Callable[..., None]) -> Iterator[None]:
    needs("nft", "ip")
    yield


def listed() -> str:
    return subprocess.run(
        ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


def made_of(text: str) -> str:
    """Return how nft lists what it makes of `text`, and take it away again."""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    shown = listed()
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    return shown


def make_tables() -> None:
    firewall.commit(
        [
            *firewall.tables(),
            *firewall.bridge("mkt0", ("10.47.7.0/24", "fd12:3456:789a::/64"), internal=False),
            *firewall.bridge("mkti0", ("172.16.3.0/24",), internal=True),
            *firewall.publish(PORTS, *OWN),
        ]
    )


def test_the_table_is_what_nft_makes_of_its_text() -> None:
    def work() -> object:
        expected = made_of(TABLES)
        before = firewall.is_there()
        make_tables()
        return [before, firewall.is_there(), listed() == expected or listed()]

    assert in_a_host_of_its_own(work) == [False, True, True]


def test_the_guard_of_a_port_is_what_nft_makes_of_its_text() -> None:
    def work() -> object:
        expected = made_of(GUARD)
        firewall.commit(firewall.guard("lo", MAC, [*OWN, NEAR]))
        shown = listed()
        firewall.commit(firewall.unguard("lo"))
        firewall.commit(firewall.unguard("lo"))
        return [shown == expected or shown, listed().split()]

    empty = ["table", "netdev", "mktemplate", "{", "}"]
    assert in_a_host_of_its_own(work) == [True, empty]


def test_what_is_there_can_be_made_again_and_what_is_gone_be_taken_away() -> None:
    def work() -> object:
        make_tables()
        once = listed()
        firewall.commit(firewall.bridge("mkt0", ("10.47.7.0/24",), internal=False))
        firewall.commit(firewall.publish(PORTS, *OWN))
        twice = listed()
        firewall.drop(firewall.unpublish(PORTS, *OWN))
        firewall.drop(firewall.unpublish(PORTS, *OWN))
        none = listed()
        firewall.remove()
        firewall.remove()
        firewall.drop(firewall.unpublish(PORTS, *OWN))
        return [once == twice, "10.47.7.9" in once, "10.47.7.9" in none, listed()]

    assert in_a_host_of_its_own(work) == [True, True, False, ""]


def test_a_transaction_is_made_whole_or_not_at_all_and_says_what_was_refused() -> None:
    def work() -> object:
        make_tables()
        before = listed()
        elsewhere = firewall.publish(PORTS[:1], "10.47.7.10")
        try:
            firewall.commit(
                [*firewall.publish((Port(host=1, container=1),), "10.47.7.9"), *elsewhere]
            )
        except HostError as error:
            return [error.code, error.subject, error.detail.rpartition(": ")[0], listed() == before]
        return "made"

    detail = "mktemplate: element of bound"
    assert in_a_host_of_its_own(work) == ["E_KERNEL_FEATURE", "nftables", detail, True]


def test_thousands_of_ports_fit_into_one_transaction() -> None:
    def work() -> object:
        make_tables()
        many = [Port(host=number, container=80) for number in range(1, 5000)]
        firewall.commit(firewall.publish(many, "10.47.7.9"))
        return listed().count(" : 10.47.7.9 . 80")

    assert in_a_host_of_its_own(work) == 5000
