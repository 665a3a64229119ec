"""IPv6 on the bridge, in a network namespace that stands for the host: an outside client, its address, attacks."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime import bridges, config, ipv6, names, network
from runtime.bundle import Port
from runtime.errors import ContainerError
from runtime.kernel import namespace
from tests.kernel.test_network import (
    BRIDGED,
    Guest,
    ask,
    from_inside,
    in_a_host_of_its_own,
    send_from_inside,
)

pytestmark = pytest.mark.root
BOTH = BRIDGED + "lxc.net.0.ipv6.address = fd00::1/64\n"
INTERNAL = BOTH.replace("mkt0", "mkti0")
HOST, CLIENT = "2001:db8:1::1", "2001:db8:1::2"
HOST4, CLIENT4 = "192.0.2.1", "192.0.2.2"
# Says to whoever asks, on TCP port 80 and UDP port 53, which address it is.
SERVER = """
import socket, threading
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 53))
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
def answer():
    while True:
        _, peer = udp.recvfrom(9)
        udp.sendto(peer[0].encode(), peer)
threading.Thread(target=answer, daemon=True).start()
print(flush=True)
while True:
    connection, peer = server.accept()
    connection.send(peer[0].encode())
    connection.close()
"""


@pytest.fixture(autouse=True)
def tools(needs: Callable[..., None]) -> Iterator[None]:
    needs("nft", "ip", "unshare")
    yield


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def outside(stack: ExitStack) -> Guest:
    """Return a neighbour of the host's, on a link of its own."""
    guest = Guest(SERVER)
    stack.callback(guest.end)
    within = ("nsenter", f"--net=/proc/{guest.process.pid}/ns/net", "ip")
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
        "netns", str(guest.process.pid))  # fmt: skip
    for ip, addresses in ((("ip",), (HOST, HOST4)), (within, (CLIENT, CLIENT4))):
        run(*ip, "link", "set", "eth0", "addrgenmode", "none", "up")
        for address in (addresses[0], f"fe80::{addresses[0][-1]}"):
            run(*ip, "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        run(*ip, "addr", "add", f"{addresses[1]}/24", "dev", "eth0")
    return guest


def container(
    stack: ExitStack, folder: Path, key: str, text: str = BOTH, ports: tuple[Port, ...] = ()
) -> tuple[Guest, tuple[str, ...]]:
    """Return a container that is attached, and its addresses."""
    guest = Guest(SERVER)
    stack.callback(guest.end)
    return guest, network.connect(config.parse(text), key, guest.netns, ports, folder).ips


def ask_udp(ip: str, port: int) -> str:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
        asker.settimeout(2)
        asker.connect((ip, port))
        try:
            asker.send(b"who?")
            return asker.recv(99).decode()
        except OSError as error:
            return type(error).__name__


def twice(ip: str, port: int) -> str:
    """Ask, and again a second later: a refusal that comes while the call still holds its socket is passed over."""
    return ask(ip, port, 5)


def test_ports_are_reached_from_outside_and_clients_keep_their_address(tmp_path: Path) -> None:
    ports = (
        Port(host=8080, container=80, address=HOST),
        Port(host=53, container=53, address="::", proto="udp"),
        Port(host=9090, container=80, address="::"),
        Port(host=9090, container=80, address="0.0.0.0"),
    )

    def work() -> object:
        with ExitStack() as stack:
            client = outside(stack)
            guest, ips = container(stack, tmp_path, "k.one", BOTH, ports)
            other, _ = container(stack, tmp_path, "k.two")
            only4, _ = container(stack, tmp_path, "k.three", BRIDGED)
            gateway = ipv6.address(f"{ips[1]}/64", bridges.gateway(ips[0]))
            return {
                "tcp": from_inside(client, HOST, 8080),
                "udp": from_inside(client, HOST, 53, ask_udp),
                "everywhere": from_inside(client, HOST, 9090),
                "IPv4, too": from_inside(client, HOST4, 9090),
                "from the host": ask(HOST, 8080),
                "udp from the host": ask_udp(HOST, 53),
                "own address": ask(ips[1], 80) == gateway,
                "own published port": from_inside(guest, HOST, 8080) == gateway,
                "neighbour": from_inside(other, ips[1], 80).startswith("fd"),
                "::1": ask("::1", 9090),
                "not bound to it": from_inside(client, "fe80::1%eth0", 8080),
                "one without it": from_inside(only4, ips[1], 80),
                "container to host": from_inside(other, HOST, 22),
                "container to outside": from_inside(other, CLIENT, 80),
                "container to outside, IPv4": from_inside(other, CLIENT4, 80),
                "udp to outside": from_inside(other, CLIENT, 53, ask_udp),
            }

    assert in_a_host_of_its_own(work) == {
        "tcp": CLIENT,
        "udp": CLIENT,
        "everywhere": CLIENT,
        "IPv4, too": f"::ffff:{CLIENT4}",
        "from the host": HOST,
        "udp from the host": HOST,
        "own address": True,
        "own published port": True,
        "neighbour": True,
        "::1": "ConnectionRefusedError",
        "not bound to it": "ConnectionRefusedError",
        "one without it": "OSError",
        "container to host": "ConnectionRefusedError",
        "container to outside": HOST,
        "container to outside, IPv4": f"::ffff:{HOST4}",
        "udp to outside": HOST,
    }


def test_an_internal_network_leads_nowhere_but_its_ports_do(tmp_path: Path) -> None:
    ports = (Port(host=8080, container=80, address=HOST),)

    def work() -> object:
        with ExitStack() as stack:
            client = outside(stack)
            inner, ips = container(stack, tmp_path, "k.one", INTERNAL, ports)
            fellow, _ = container(stack, tmp_path, "k.two", INTERNAL)
            stranger, _ = container(stack, tmp_path, "k.three")
            return [
                from_inside(inner, CLIENT, 80, twice),
                from_inside(stranger, ips[1], 80),
                from_inside(fellow, ips[1], 80).startswith("fd"),
                from_inside(client, HOST, 8080),
            ]

    assert in_a_host_of_its_own(work) == ["PermissionError", "TimeoutError", True, CLIENT]


def test_what_ipv6_needs_comes_with_the_first_who_asks_and_goes_with_the_last(
    tmp_path: Path,
) -> None:
    conf = Path("/proc/sys/net/ipv6/conf")
    ports = (Port(host=8080, container=80, address="::"),)

    def looked() -> list[str]:
        forwarding = (conf / "all/forwarding").read_text().strip()
        return [forwarding, (conf / "eth0/accept_ra").read_text().strip(), learnt()]

    def learnt() -> str:
        return "ra" if " proto ra " in run("ip", "-6", "route", "show", "default") else ""

    def work() -> object:
        with ExitStack() as stack:
            advertise(outside(stack), until=learnt)
            container(stack, tmp_path, "k.plain", BRIDGED)
            without = looked()
            container(stack, tmp_path, "k.one", BOTH, ports)
            with_it = looked()
            _, ips = container(stack, tmp_path, "k.one", BOTH, ports)
            own = network.reserve("k.one", folder=tmp_path, six=True).ip6
            for key in ("k.one", "k.plain"):
                network.release(key, tmp_path)
                network.release(key, tmp_path)
            ended = ask(HOST, 8080)
            gone = bridges.remove_if_unused(tmp_path)
            left = [run("nft", "list", "ruleset"), "mkt" in run("ip", "address")]
            return [without, with_it, looked(), own == ips[1], ended, gone, left]

    assert in_a_host_of_its_own(work) == [
        ["0", "1", "ra"],
        ["1", "2", "ra"],
        ["1", "2", "ra"],
        True,
        "ConnectionRefusedError",
        True,
        ["", False],
    ]


def advertise(router: Guest, until: Callable[[], str]) -> None:
    """Let `router` say that it is one (RFC 4861), until the host has learnt of it."""
    message = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    child = os.fork()
    if child == 0:
        namespace.setns(router.netns, namespace.CLONE_NEWNET)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sender.bind(("fe80::2", 0, 0, socket.if_nametoindex("eth0")))
            sender.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
        os._exit(0)
    os.waitpid(child, 0)
    end = time.monotonic() + 5
    while not until():
        assert time.monotonic() < end, run("ip", "-6", "route")
        time.sleep(0.01)


def test_names_lead_to_both_addresses_for_those_who_have_both(tmp_path: Path) -> None:
    files = {key: tmp_path / key for key in ("k.both", "k.two", "k.four")}

    def work() -> object:
        with ExitStack() as stack:
            ips = {}
            for key, file in files.items():
                text = BRIDGED if key == "k.four" else BOTH
                _, ips[key] = container(stack, tmp_path / "net", key, text)
                file.write_text("")
                names.join(key, file, key[2:], tmp_path / "net")
            return [
                ips,
                [[line.split() for line in f.read_text().splitlines()[2:]] for f in files.values()],
            ]

    ips, said = in_a_host_of_its_own(work)  # type: ignore[misc]  # a list, or it failed
    both, two, four = ([[ip, key[2:]] for ip in ips[key]] for key in files)
    assert said == [[*both, *four, *two], [*two, *both, *four], [*four, both[0], two[0]]]


@pytest.mark.parametrize(
    ("text", "address", "said"),
    [(BOTH, "::1", "no answer"), (BRIDGED, "::", "no IPv6"), (BRIDGED, HOST, "no IPv6")],
)
def test_a_port_that_ipv6_cannot_have_is_refused(
    tmp_path: Path, text: str, address: str, said: str
) -> None:
    def work() -> object:
        with ExitStack() as stack:
            try:
                container(
                    stack, tmp_path, "k.one", text, (Port(host=1, container=80, address=address),)
                )
            except ContainerError as error:
                return [error.code, said in error.detail, "veth" in run("ip", "-d", "link")]
        return "published"

    assert in_a_host_of_its_own(work) == ["E_KERNEL_FEATURE", True, False]


def test_a_port_is_taken_on_the_addresses_where_it_is_taken(tmp_path: Path) -> None:
    def work() -> object:
        said = []
        with ExitStack() as stack:
            for number, address in enumerate(("::", "0.0.0.0", HOST, "127.0.0.1")):
                try:
                    port = Port(host=8080, container=80, address=address)
                    container(stack, tmp_path, f"k.{number}", BOTH, (port,))
                    said.append("")
                except ContainerError as error:
                    said.append(error.detail)
        return said

    taken = "is published by {} already"
    assert in_a_host_of_its_own(work) == ["", "", taken.format(0), taken.format(1)]


def packet(source: bytes, target: bytes, kind: int, body: bytes) -> bytes:
    """Return an IPv6 packet from `source` whose payload is of `kind`; of ICMPv6 without a sum: nobody here looks."""
    return b"\x60\0\0\0" + struct.pack(">HBB", len(body), kind, 255) + source + target + body


def forged(mac: bytes, own: bytes, near: bytes) -> dict[str, bytes]:
    """Return frames of the container with `mac`: whatever is not called honest is not its to say."""
    everybody = bytes.fromhex("ff02") + bytes(13) + b"\1"
    foreign, victim = bytes((2, 9, 9, 9, 9, 9)), own[:-1] + b"\1"

    def neighbour(
        source: bytes, kind: int, target: bytes, option: bytes = b"", code: int = 0
    ) -> bytes:
        return packet(source, everybody, 58, bytes((kind, code, 0, 0)) + bytes(4) + target + option)

    asks, tells = b"\1\1" + mac, b"\2\1" + mac
    router = bytes((134, 0, 0, 0)) + bytes(12)
    bodies = {
        "honest question": neighbour(own, 135, victim, asks),
        "question of another address": neighbour(victim, 135, own, asks),
        "question with another mac": neighbour(own, 135, victim, b"\1\1" + foreign),
        "question of nobody": neighbour(bytes(16), 135, own),
        "question with more": neighbour(own, 135, victim, asks + asks),
        "honest answer": neighbour(near, 136, near, tells),
        "honest short answer": neighbour(own, 136, own),
        "answer for another": neighbour(own, 136, victim, tells),
        "short answer for another": neighbour(own, 136, victim),
        "answer with another mac": neighbour(own, 136, own, b"\2\1" + foreign),
        "answer with more": neighbour(own, 136, own, tells + b"\2\1" + foreign),
        "router": packet(near, everybody, 58, router),
        "router behind options": packet(near, everybody, 0, b"\x3a\0\1\4" + bytes(4) + router),
        "router in a fragment": packet(near, everybody, 44, b"\x3a\0\0\1" + bytes(4) + router),
        "answer behind options": packet(
            own, everybody, 0, b"\x3a\0\1\4" + bytes(4) + b"\x88\0\0\0" + bytes(4) + victim + tells
        ),
        "redirect": packet(near, everybody, 58, bytes((137, 0, 0, 0)) + bytes(4) + victim + own),
        "another source": packet(victim, everybody, 17, b"\0\1\0\1\0\x08\0\0"),
        "dhcp server": packet(near, everybody, 17, b"\x02\x23\x02\x22\0\x08\0\0"),
        "honest datagram": packet(own, everybody, 17, b"\0\1\0\1\0\x08\0\0"),
    }
    head = b"\x33\x33\0\0\0\1"
    frames = {kind: head + mac + b"\x86\xdd" + body for kind, body in bodies.items()}
    last = frames.pop("honest datagram")
    honest = bodies["honest question"]
    return {**frames, "another mac": head + foreign + b"\x86\xdd" + honest, "honest datagram": last}


@pytest.mark.attack
def test_t56_nobody_answers_for_another_or_is_a_router_in_ipv6(tmp_path: Path) -> None:
    def work() -> object:
        with ExitStack() as stack:
            guest, ips = container(stack, tmp_path, "k.one")
            own, near = (
                socket.inet_pton(socket.AF_INET6, ip) for ip in (ips[1], ipv6.link_local(ips[0]))
            )
            mac = network.reserve("k.one", folder=tmp_path).mac
            frames = forged(bytes.fromhex(mac.replace(":", "")), own, near)
            listener = stack.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            )
            listener.bind(("mkt0", 0))
            listener.settimeout(5)
            send_from_inside(guest, lambda _: frames.values())
            seen: list[str] = []
            while "honest datagram" not in seen:
                data = listener.recv(2048)
                seen += [kind for kind, frame in frames.items() if data == frame]
            return seen

    honest = ["honest question", "honest answer", "honest short answer", "honest datagram"]
    assert in_a_host_of_its_own(work) == honest
