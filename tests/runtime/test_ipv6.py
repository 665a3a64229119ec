"""Addresses of IPv6: below a prefix of this machine's, and the same as the leased ones at their end."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from runtime import ipv6, lease
from runtime.lease import Lease
from valuetypes import replace


def test_a_network_is_unique_local_and_of_this_machine() -> None:
    first, second = (ipaddress.IPv6Network(ipv6.choose_network(subnet)) for subnet in (0, 1))

    assert first.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert first.prefixlen == 64
    assert first.supernet(new_prefix=48) == second.supernet(new_prefix=48)
    assert not first.overlaps(second)
    if lease.machine():
        assert str(first) == ipv6.choose_network(0)


def test_an_address_ends_in_the_leased_one() -> None:
    network = "fd12:3456:789a:1::/64"

    assert ipv6.address(network, "10.47.7.9") == "fd12:3456:789a:1::a2f:709"
    assert ipaddress.IPv6Address(ipv6.address(network, "10.47.7.9")) in ipaddress.IPv6Network(
        network
    )
    assert ipv6.link_local("10.47.7.9") == "fe80::a2f:709"


def test_the_book_keeps_what_a_running_container_has_of_it(tmp_path: Path) -> None:
    own = "fd12:3456:789a::a2f:709"
    held = Lease(
        key="k.one", bridge="mkt0", ip="10.47.7.9", mac="02:6d:0a:2f:07:09", host_name="mkt1",
        ip6=own, others=(own, "fe80::a2f:709"),
    )  # fmt: skip
    networks6 = {"mkt0": "fd12:3456:789a::/64"}
    with lease.ledger(tmp_path / "net") as ledger:
        ledger.save(replace(ledger.book.put(held), networks6=networks6))
    with lease.ledger(tmp_path / "net") as ledger:
        assert ledger.book.leases["k.one"] == held
        assert ledger.book.networks6 == networks6
        ledger.save(ledger.book.put(held._replace(host_name="", ip6="", others=())))
    with lease.ledger(tmp_path / "net") as ledger:
        assert ledger.book.leases["k.one"] == held._replace(host_name="", ip6="", others=())
