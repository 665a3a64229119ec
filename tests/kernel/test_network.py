"""Networks for real, in a network namespace that stands for the host: nothing of this machine's is touched."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from runtime import bridges, config, names, network
from runtime.bundle import Port
from runtime.errors import ContainerError
from runtime.kernel import namespace
from tests.conftest import lacking

pytestmark = pytest.mark.root
BRIDGED = (
    "lxc.net.0.type = veth\nlxc.net.0.link = mkt0\nlxc.net.0.name = eth0\nlxc.net.0.flags = up\n"
)
_SERVER = """
import socket, sys
server = socket.socket()
server.bind(("0.0.0.0", 80))
server.listen()
print(flush=True)
while True:
    peer, _ = server.accept()
    peer.send(b"hello")
    peer.close()
"""


class Guest:
    """A process in a network namespace of its own that serves, on port 80 where not otherwise said."""

    def __init__(self, server: str = _SERVER) -> None:
        self.process = subprocess.Popen(
            ["unshare", "-n", sys.executable, "-c", server],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stdout
        self.process.stdout.readline()
        self.netns = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        os.close(self.netns)


def ask(ip: str, port: int, seconds: float = 0.7) -> str:
    """Return what a server says, or why it does not."""
    try:
        with socket.create_connection((ip, port), timeout=seconds) as connection:
            return connection.recv(99).decode()
    except OSError as error:
        return type(error).__name__


def from_inside(guest: Guest, ip: str, port: int, ask: Callable[[str, int], str] = ask) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        namespace.setns(guest.netns, namespace.CLONE_NEWNET)
        os.write(writer, ask(ip, port).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return file.read()


def send_from_inside(guest: Guest, frames: Callable[[bytes], Iterable[bytes]]) -> None:
    """Send the frames, made for the address of its eth0, as they are: no kernel has made them."""
    child = os.fork()
    if child == 0:
        namespace.setns(guest.netns, namespace.CLONE_NEWNET)
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("eth0", 0))
        for frame in frames(sender.getsockname()[4]):
            sender.send(frame)
        os._exit(0)
    os.waitpid(child, 0)


def in_a_host_of_its_own(work: Callable[[], object]) -> object:
    """Return what `work` returns in a forked child with a network namespace of its own, its lo up."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            namespace.unshare(namespace.CLONE_NEWNET)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            answer = json.dumps(work())
        except BaseException as error:  # noqa: BLE001  the parent is told
            answer = json.dumps({"failed": repr(error)})
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 40)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said or '"it hung"')


@pytest.fixture(autouse=True)
def tools(needs: Callable[..., None]) -> Iterator[None]:
    needs("nft", "ip", "unshare")
    yield


def test_a_container_is_reached_published_and_guarded(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    ports = (Port(host=8080, container=80), Port(host=9090, container=80, address="0.0.0.0"))

    def work() -> object:
        one, two = Guest(), Guest()
        try:
            first = network.connect(config.parse(BRIDGED), "k.one", one.netns, ports, folder)
            second = network.connect(config.parse(BRIDGED), "k.two", two.netns, (), folder)
            bridge = first.ips[0].rpartition(".")[0] + ".1"
            return {
                "own address": ask(first.ips[0], 80),
                "published on localhost": ask("127.0.0.1", 8080),
                "published everywhere, from localhost": ask("127.0.0.1", 9090),
                "published everywhere, on the bridge": ask(bridge, 9090),
                "neighbour": from_inside(two, first.ips[0], 80),
                "own published port": from_inside(one, bridge, 9090),
                "localhost's port, on the bridge": ask(bridge, 8080),
                "container to host": from_inside(two, bridge, 22),
                "metadata": from_inside(two, "169.254.169.254", 80),
                "differ": first.ips != second.ips,
            }
        finally:
            one.end()
            two.end()

    hello = dict.fromkeys(
        ["own address", "published on localhost", "published everywhere, from localhost",
         "published everywhere, on the bridge", "neighbour", "own published port"], "hello",
    )  # fmt: skip
    assert in_a_host_of_its_own(work) == {
        **hello,
        "localhost's port, on the bridge": "ConnectionRefusedError",
        "container to host": "ConnectionRefusedError",
        "metadata": "TimeoutError",
        "differ": True,
    }


@pytest.mark.attack
def test_a_spoofed_address_does_not_get_through(tmp_path: Path) -> None:
    def work() -> object:
        guest, other = Guest(), Guest()
        try:
            one = network.connect(config.parse(BRIDGED), "k.one", guest.netns, (), tmp_path / "net")
            two = network.connect(config.parse(BRIDGED), "k.two", other.netns, (), tmp_path / "net")
            enter = ["nsenter", f"--net=/proc/{guest.process.pid}/ns/net"]
            false = one.ips[0].rpartition(".")[0] + ".253"
            subprocess.run([*enter, "ip", "addr", "flush", "dev", "eth0"], check=True)
            subprocess.run([*enter, "ip", "addr", "add", f"{false}/24", "dev", "eth0"], check=True)
            return from_inside(guest, two.ips[0], 80)
        finally:
            guest.end()
            other.end()

    assert in_a_host_of_its_own(work) in {"TimeoutError", "OSError"}


def frame(kind: str, mac: bytes, ip: bytes) -> bytes:
    """Return a frame of the container with `mac` and `ip`, marked by its kind: one honest, the others not."""
    everybody, foreign = b"\xff" * 6, bytes([2, 9, 9, 9, 9, 9])
    arp = b"\0\1\x08\0\6\4\0\1"
    udp = b"\x45\0\0\x20\0\0\0\0\x40\x11\0\0" + ip + b"\xff" * 4 + b"\0\x43\0\x44\0\x0c\0\0"
    bodies = {
        "honest": everybody + mac + b"\x08\x06" + arp + mac + ip + bytes(6) + ip,
        "arp of another address": everybody + mac + b"\x08\x06" + arp + mac + ip[:3] + b"\1" + bytes(6) + ip,
        "arp of another mac": everybody + mac + b"\x08\x06" + arp + foreign + ip + bytes(6) + ip,
        "another mac": everybody + foreign + b"\x08\x06" + arp + foreign + ip + bytes(6) + ip,
        "dhcp server": everybody + mac + b"\x08\0" + udp,
        "router advertisement": everybody + mac + b"\x86\xdd\x60\0\0\0\0\x10\x3a\xff" + bytes(32) + b"\x86" + bytes(15),
    }  # fmt: skip
    return bodies[kind] + kind.encode()


@pytest.mark.attack
def test_t56_a_container_is_no_router_dhcp_server_or_somebody_else(tmp_path: Path) -> None:
    kinds = (
        "arp of another address",
        "arp of another mac",
        "another mac",
        "dhcp server",
        "router advertisement",
        "honest",  # the last one: once it has come, the others have not
    )

    def work() -> object:
        guest = Guest()
        try:
            attached = network.connect(config.parse(BRIDGED), "k.one", guest.netns, (), tmp_path)
            listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            listener.bind(("mkt0", 0))
            listener.settimeout(5)
            ip = socket.inet_aton(attached.ips[0])
            send_from_inside(guest, lambda mac: [frame(kind, mac, ip) for kind in kinds])
            seen: list[str] = []
            while "honest" not in seen:
                data = listener.recv(2048)
                seen += [kind for kind in kinds if data.endswith(kind.encode())]
            return seen
        finally:
            guest.end()

    assert in_a_host_of_its_own(work) == ["honest"]


def test_release_is_idempotent_and_the_address_stays(tmp_path: Path) -> None:
    folder = tmp_path / "net"

    def work() -> object:
        guest = Guest()
        ports = (Port(host=8080, container=80),)
        try:
            before = network.reserve("k.one", folder=folder).ip
            first = network.connect(config.parse(BRIDGED), "k.one", guest.netns, ports, folder)
            busy = bridges.remove_if_unused(folder)
            network.release("k.one", folder)
            network.release("k.one", folder)
            gone = bridges.remove_if_unused(folder)
            rules = subprocess.run(
                ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
            ).stdout
            links = subprocess.run(
                ["ip", "-br", "link"], capture_output=True, text=True, check=True
            ).stdout
            return [before == first.ips[0], busy, gone, rules, links.count("\n")]
        finally:
            guest.end()

    assert in_a_host_of_its_own(work) == [True, False, True, "", 1]


def test_an_address_outlives_a_prune_unless_its_network_is_routed_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    elsewhere = BRIDGED + "lxc.net.0.ipv4.address = 10.250.9.9/24\n"

    def work() -> object:
        one, two = Guest(), Guest()
        first = network.reserve("k.one", folder=folder).ip
        bridges.remove_if_unused(folder)
        other = network.connect(config.parse(elsewhere), "k.two", two.netns, (), folder).ips[0]
        again = network.connect(config.parse(BRIDGED), "k.one", one.netns, (), folder).ips[0]
        for guest, key in ((one, "k.one"), (two, "k.two")):
            network.release(key, folder)
            guest.end()
        bridges.remove_if_unused(folder)
        near = first.rpartition(".")[0]
        subprocess.run(["ip", "link", "add", "vpn", "type", "bridge"], check=True)
        subprocess.run(["ip", "addr", "add", f"{near}.200/24", "dev", "vpn"], check=True)
        subprocess.run(["ip", "link", "set", "vpn", "up"], check=True)
        guest = Guest()
        moved = network.connect(config.parse(BRIDGED), "k.one", guest.netns, (), folder).ips[0]
        guest.end()
        return [again == first, other.startswith(f"{near}."), moved.startswith(f"{near}.")]

    assert in_a_host_of_its_own(work) == [True, True, False]


def test_a_flushed_ruleset_is_made_whole_by_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "net"

    def work() -> object:
        one, two = Guest(), Guest()
        try:
            network.connect(
                config.parse(BRIDGED), "k.one", one.netns, (Port(host=8080, container=80),), folder
            )
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            without = ask("127.0.0.1", 8080)
            network.connect(config.parse(BRIDGED), "k.two", two.netns, (), folder)
            return [without, ask("127.0.0.1", 8080)]
        finally:
            one.end()
            two.end()

    assert in_a_host_of_its_own(work) == ["ConnectionRefusedError", "hello"]


@pytest.mark.parametrize(
    ("address", "host", "code"), [("127.0.0.1", 8080, "E_LIMIT"), ("::1", 1, "E_KERNEL_FEATURE")]
)
def test_a_port_that_cannot_be_had_is_refused(
    tmp_path: Path, address: str, host: int, code: str
) -> None:
    folder = tmp_path / "net"

    def work() -> object:
        one, two = Guest(), Guest()
        try:
            network.connect(
                config.parse(BRIDGED), "k.one", one.netns, (Port(host=8080, container=80),), folder
            )
            wanted = (Port(host=host, container=80, address=address),)
            network.connect(config.parse(BRIDGED), "k.two", two.netns, wanted, folder)
        except ContainerError as error:
            return [error.code, ask("127.0.0.1", 8080)]
        finally:
            one.end()
            two.end()
        return "published"

    assert in_a_host_of_its_own(work) == [code, "hello"]


def test_a_router_veth_is_reached_without_a_bridge(tmp_path: Path) -> None:
    keys = ("type = veth", "veth.mode = router", "name = eth0", "flags = up", "ipv4.address = 10.9.9.9/32",
            "ipv4.gateway = dev")  # fmt: skip
    text = "".join(f"lxc.net.0.{key}\n" for key in keys)

    def work() -> object:
        guest = Guest()
        try:
            subprocess.run(["ip", "addr", "add", "10.1.1.1/32", "dev", "lo"], check=True)
            attached = network.connect(
                config.parse(text), "k.one", guest.netns, (), tmp_path / "net"
            )
            return [list(attached.ips), ask("10.9.9.9", 80)]
        finally:
            guest.end()

    assert in_a_host_of_its_own(work) == [["10.9.9.9"], "hello"]


@pytest.mark.parametrize("there", ["fd00:9::1", ""], ids=["an address", "its link's alone"])
def test_the_gateway_of_ipv6_is_the_bridges_where_it_says_auto(there: str, tmp_path: Path) -> None:
    keys = ("type = veth", "link = br0", "name = eth0", "flags = up", "ipv6.address = fd00:9::2/64",
            "ipv6.gateway = auto")  # fmt: skip
    text = "".join(f"lxc.net.0.{key}\n" for key in keys)

    def work() -> object:
        guest = Guest()
        try:
            for words in ("add br0 type bridge", "set br0 address 02:00:00:00:00:09", "set br0 up"):
                subprocess.run(["ip", "link", *words.split()], check=True)
            for address in (there, "fe80::9"):
                if address:
                    subprocess.run(
                        ["ip", "addr", "add", f"{address}/64", "dev", "br0", "nodad"], check=True
                    )
            network.connect(config.parse(text), "k.one", guest.netns, (), tmp_path / "net")
            inside = ["nsenter", f"--net=/proc/{guest.process.pid}/ns/net"]
            shown = subprocess.run(
                [*inside, "ip", "-6", "route", "show", "default"],
                capture_output=True,
                text=True,
                check=True,
            )
            return shown.stdout.split()[2]
        finally:
            guest.end()

    assert in_a_host_of_its_own(work) in ({there} if there else {"fe80::9", "fe80::ff:fe00:9"})


VLANS = (
    *("type = veth", "link = br0", "name = eth0", "flags = up", "veth.pair = port0"),
    *("veth.vlan.id = 10", "veth.vlan.tagged.id = 20", "veth.vlan.tagged.id = 30"),
)


@pytest.mark.parametrize("id", ["10", "none", ""])
def test_a_port_is_in_its_vlans_where_the_bridge_filters(id: str, tmp_path: Path) -> None:
    keys = [key.replace("= 10", f"= {id}") for key in VLANS if id or "vlan.id" not in key]
    text = "".join(f"lxc.net.0.{key}\n" for key in keys)

    def work() -> object:
        guest = Guest()
        make = ["ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"]
        try:
            filters = not subprocess.run(make, capture_output=True, check=False).returncode
            subprocess.run(make[:6] if not filters else ["true"], check=True)
            try:
                network.connect(config.parse(text), "k.one", guest.netns, (), tmp_path / "net")
            except ContainerError as error:  # a kernel without CONFIG_BRIDGE_VLAN_FILTERING
                return [error.code, *error.hints] if not filters else str(error)
            shown = subprocess.run(
                ["bridge", "-json", "vlan", "show", "dev", "port0"], capture_output=True, check=True
            ).stdout
            return [
                [row["vlan"], sorted(row.get("flags", []))] for row in json.loads(shown)[0]["vlans"]
            ]
        finally:
            guest.end()

    own = {
        "10": [[10, ["Egress Untagged", "PVID"]]],
        "none": [],
        "": [[1, ["Egress Untagged", "PVID"]]],
    }
    assert in_a_host_of_its_own(work) in (
        [*own[id], [20, []], [30, []]],
        ["E_KERNEL_FEATURE", "ip link set br0 type bridge vlan_filtering 1"],
    )


def test_macvlan_and_a_missing_bridge(tmp_path: Path) -> None:
    def work() -> object:
        guest = Guest()
        try:
            subprocess.run(
                ["ip", "link", "add", "low0", "type", "veth", "peer", "name", "low1"], check=True
            )
            keys = (
                "type = macvlan",
                "macvlan.mode = bridge",
                "link = low0",
                "name = eth0",
                "flags = up",
            )
            text = "".join(f"lxc.net.0.{key}\n" for key in keys)
            network.connect(config.parse(text), "k.one", guest.netns, (), tmp_path / "net")
            inside = [
                "nsenter",
                f"--net=/proc/{guest.process.pid}/ns/net",
                "ip",
                "-d",
                "link",
                "show",
                "eth0",
            ]
            shown = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
            other = Guest()
            try:
                network.connect(
                    config.parse(BRIDGED.replace("mkt0", "br9")),
                    "k.b",
                    other.netns,
                    (),
                    tmp_path / "net",
                )
            except ContainerError as error:
                return ["macvlan mode bridge" in shown, error.code, error.subject]
            finally:
                other.end()
        finally:
            guest.end()
        return "attached to nothing"

    assert in_a_host_of_its_own(work) == [True, "E_KERNEL_FEATURE", "br9"]


def test_scripts_of_a_nic_run_with_lxcs_words_and_down_survives_whoever_started(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    program = tmp_path / "script"
    program.write_text(
        f'#!/bin/sh\necho "$@" $LXC_HOOK_TYPE $LXC_NET_TYPE $LXC_NET_PARENT $LXC_NET_PEER >> {log}\n'
    )
    program.chmod(0o755)
    text = (
        BRIDGED + f"lxc.net.0.veth.pair = vtest0\nlxc.net.0.script.up = {program}\n"
        f"lxc.net.0.script.down = {program}\n"
    )
    folder = tmp_path / "net"

    def work() -> object:
        guest = Guest()
        try:
            network.connect(config.parse(text), "k.one", guest.netns, (), folder)
            before = log.read_text()
            network.release("k.one", folder)
            network.release("k.one", folder)
            return [before, log.read_text().removeprefix(before)]
        finally:
            guest.end()

    assert in_a_host_of_its_own(work) == [
        "one net up veth mkt0 vtest0 up veth mkt0 vtest0\n",
        "one net down veth mkt0 vtest0 down veth mkt0 vtest0\n",
    ]


def test_a_script_that_fails_ends_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "net"

    def work() -> object:
        guest = Guest()
        try:
            text = BRIDGED + "lxc.net.0.script.up = /bin/false\n"
            network.connect(config.parse(text), "k.one", guest.netns, (), folder)
        except ContainerError as error:
            links = subprocess.run(
                ["ip", "-br", "link"], capture_output=True, text=True, check=True
            ).stdout
            return [error.code, "veth" in links]
        finally:
            guest.end()
        return "started"

    assert in_a_host_of_its_own(work) == ["E_SCRIPT_FAILED", False]


def test_routes_and_queues_of_a_veth_are_there(tmp_path: Path) -> None:
    if not Path("/sys/class/net/lo/queues/rx-0").exists():
        lacking("queues of receivers: its kernel is made for one processor")
    text = (
        "lxc.net.0.type = veth\nlxc.net.0.veth.mode = router\nlxc.net.0.veth.pair = vtest0\n"
        "lxc.net.0.flags = up\nlxc.net.0.ipv4.address = 10.9.9.9/32\nlxc.net.0.ipv4.gateway = dev\n"
        "lxc.net.0.veth.ipv4.route = 10.44.0.0/24\nlxc.net.0.veth.n_rxqueues = 3\n"
        "lxc.net.0.veth.n_txqueues = 2\n"
    )

    def work() -> object:
        guest = Guest()
        try:
            network.connect(config.parse(text), "k.one", guest.netns, (), tmp_path / "net")
            routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True)
            queues = os.listdir("/sys/class/net/vtest0/queues") if _own_sysfs() else []
            return ["10.44.0.0/24 dev vtest0" in routes.stdout, sorted(queues)]
        finally:
            guest.end()

    assert in_a_host_of_its_own(work) == [True, ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1"]]


def _own_sysfs() -> bool:
    """Show this process the sysfs of its own network namespace."""
    namespace.unshare(namespace.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    return True


def test_containers_of_one_network_know_each_other_by_name_while_they_run(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    files = [tmp_path / name for name in ("one", "two", "web")]

    def work() -> object:
        guests = [Guest(), Guest(), Guest()]
        keys = ("a.one", "a.two", "b.one")
        try:
            ips = []
            for guest, key, file in zip(guests, keys, files, strict=True):
                ips += network.connect(config.parse(BRIDGED), key, guest.netns, (), folder).ips
                file.write_text("as its start wrote it\n" * 99)
                inode = file.stat().st_ino
                names.join(key, file, file.name, folder)
                assert file.stat().st_ino == inode
            said = [[line.split() for line in file.read_text().splitlines()[2:]] for file in files]
            network.release("a.one", folder)
            return [ips, said, files[1].read_text().count(f"{ips[0]} ")]
        finally:
            for guest in guests:
                guest.end()

    ips, said, left = in_a_host_of_its_own(work)  # type: ignore[misc]  # a list, or it failed
    one, two, web = ips
    assert said == [
        [[one, "one"], [two, "two"], [web, "one", "web"]],
        [[two, "two"], [one, "one"], [web, "one", "web"]],
        [[web, "web"], [one, "one"], [two, "two"]],
    ]
    assert left == 0
