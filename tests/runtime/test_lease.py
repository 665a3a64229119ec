"""Addresses: chosen beside the host's routes, one for each container, kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import lease
from runtime.bundle import Port
from runtime.errors import ResourceError
from runtime.lease import Book


def book() -> Book:
    return Book(networks={"mkt0": "10.9.8.0/24"})


def test_a_network_overlaps_no_route() -> None:
    chosen = lease.choose_network(["10.0.0.0/9", "10.128.0.0/10"], ["10.192.0.0/16"])

    first, second = chosen.split(".")[:2]
    assert first == "10"
    assert int(second) > 192


def test_a_host_that_routes_all_of_ten_gets_another_private_network() -> None:
    assert lease.choose_network(["10.0.0.0/8"], []).startswith("172.16.")


def test_a_containers_own_network_is_chosen_again_where_it_is_free() -> None:
    assert lease.choose_network([], [], "10.77.66.55") == "10.77.66.0/24"
    assert lease.choose_network([], [], "172.20.1.9") == "172.20.1.0/24"
    assert lease.choose_network(["10.77.0.0/16"], [], "10.77.66.55") != "10.77.66.0/24"


def test_a_container_keeps_its_address_and_two_never_share_one() -> None:
    held = book()
    seen = set()
    for number in range(253):
        held, one = lease.take(held, f"k.{number}", "mkt0")
        held = held.put(one._replace(host_name=f"mkt{number}"))
        seen.add(one.ip)

    again, same = lease.take(held, "k.7", "mkt0")

    assert len(seen) == 253
    assert same == held.leases["k.7"]
    with pytest.raises(ResourceError) as caught:
        lease.take(again, "k.one-too-many", "mkt0")
    assert caught.value.code == "E_LIMIT"


def test_the_address_of_a_container_that_is_no_more_is_the_last_to_be_given_away() -> None:
    held = book()
    for number in range(253):
        held, one = lease.take(held, f"k.{number}", "mkt0")
        held = held.put(one._replace(host_name="" if number == 99 else f"mkt{number}"))

    after, late = lease.take(held, "k.late", "mkt0")

    assert late.ip == held.leases["k.99"].ip
    assert "k.99" not in after.leases


def test_a_wanted_address_that_is_taken_gives_another() -> None:
    held, one = lease.take(book(), "k.a", "mkt0", wanted="10.9.8.77")
    _, two = lease.take(held, "k.b", "mkt0", wanted="10.9.8.77")

    assert one.ip == "10.9.8.77"
    assert two.ip != one.ip


def test_the_book_is_read_back_and_a_damaged_one_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "net"
    folder.parent.mkdir()
    held, _ = lease.take(book(), "k.a", "mkt0")
    with lease.ledger(folder) as ledger:
        ledger.save(held)
    with lease.ledger(folder) as ledger:
        read = ledger.book
    (folder / "leases.json").write_text("{")
    with lease.ledger(folder) as ledger:
        damaged = ledger.book

    assert read == held
    assert damaged == Book()


def test_what_stands_beside_is_read_back_and_written_again_only_where_it_changes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run" / "net"
    folder.parent.mkdir()
    held, one = lease.take(book(), "k.a", "mkt0")
    runs = one._replace(
        host_name="mkt1",
        ports=(Port(host=8080, container=80),),
        hosts="/k/a/hosts",
        hostname="a",
        ip6="fd00::2",
        others=("fd00::2",),
    )
    with lease.ledger(folder) as ledger:
        ledger.save(held.put(runs))
        first = (folder / "beside.json").stat().st_ino
    with lease.ledger(folder) as ledger:
        read = ledger.book.leases["k.a"]
        ledger.save(ledger.book)
    second = (folder / "beside.json").stat().st_ino

    assert read == runs
    assert second == first
