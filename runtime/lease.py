"""Who has which address on our bridges: one file under a lock, in the run state. No daemon, no DHCP.

A lease outlives a stop, so that a container keeps its address and hardware address until it is destroyed or the
host is rebooted; what must outlive a reboot stands in the container's config and is asked for again.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from runtime.bundle import Port
from runtime.errors import ResourceError
from runtime.netscripts import Script
from valuetypes import asdict, dataclass, field, replace

FOLDER = Path("/run/mktemplate/net")
PREFIX = 24
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_ADDRESSES = range(2, 255)  # .1 is the bridge's
_PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


class Lease(NamedTuple):
    """What one container holds on a bridge of ours. A NamedTuple: every start reads all that there are."""

    key: str
    bridge: str
    ip: str
    mac: str
    host_name: str = ""  # the host's end of its veth, while it runs
    ports: tuple[Port, ...] = ()  # published, while it runs
    hosts: str = ""  # its hosts file, while it runs
    hostname: str = ""
    ip6: str = ""  # while it runs, where it has one
    others: tuple[str, ...] = ()  # while it runs: what else it may send from, `ip6` among them


# What an earlier version of ours knows nothing of lies in a file of its own: it could not read it, and would drop it.
_BESIDE = Lease._fields.index("hosts")  # this field, and those after it
_NAMES = Lease._fields[:_BESIDE]
_own = itemgetter(*_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Every bridge of ours with its network, and every lease."""

    networks: dict[str, str] = field(default_factory=dict)  # bridge → 10.1.2.0/24
    leases: dict[str, Lease] = field(default_factory=dict)  # key → lease
    downs: dict[str, tuple[Script, ...]] = field(default_factory=dict)  # key → what its end runs
    networks6: dict[str, str] = field(default_factory=dict)  # of those where IPv6 was asked for

    def put(self, lease: Lease) -> Book:
        """Return the book with `lease` in it."""
        return replace(self, leases={**self.leases, lease.key: lease})


class Ledger:
    """The book on disk, while its lock is held: the leases, and beside them what earlier versions know nothing of."""

    def __init__(self, path: Path) -> None:
        """Read the book at `path`; one that is damaged counts as empty: it is run state."""
        self._path = path
        self._beside = path.with_name("beside.json")
        self._kept = _read(self._beside)
        self.book = Book()
        with suppress(ValueError, KeyError, TypeError):
            self.book = _book(_read(path), self._kept)

    def save(self, book: Book) -> None:
        """Write `book`, whole or not at all."""
        self.book = book
        leases = [_row(lease) for lease in book.leases.values()]
        _write(self._path, {"networks": book.networks, "leases": leases})
        beside = {
            "hosts": {
                key: told
                for key, lease in book.leases.items()
                if any(told := [*lease[_BESIDE:-1], list(lease.others)])
            },
            "downs": {key: [asdict(one) for one in scripts] for key, scripts in book.downs.items()},
            "networks6": book.networks6,
        }
        if beside != self._kept:
            _write(self._beside, beside)
            self._kept = _read(self._beside)


def _read(path: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, ValueError):
        value = json.loads(path.read_bytes())
        return value if isinstance(value, dict) else {}
    return {}


def _write(path: Path, value: dict[str, Any]) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(json.dumps(value).encode())
    os.rename(draft, path)


@contextmanager
def ledger(folder: Path = FOLDER) -> Iterator[Ledger]:
    """Hold the lock of the leases below `folder`; the kernel lets go of it when we die."""
    for made in (folder.parent, folder):
        with suppress(FileExistsError):
            os.mkdir(made, 0o700)
    descriptor = os.open(
        folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Ledger(folder / "leases.json")
    finally:
        os.close(descriptor)


def take(
    book: Book, key: str, bridge: str, *, wanted: str = "", mac: str = ""
) -> tuple[Book, Lease]:
    """Return the lease of `key` on `bridge`: what it has, what it wants if that is free, else another.

    Where none is free, that of a container goes whose directory was removed by another than `destroy`.
    """
    if not _KEY.fullmatch(key):
        raise ResourceError("E_LIMIT", key, "is no key of a container")
    network = ipaddress.IPv4Network(book.networks[bridge])
    held = book.leases.get(key)
    others = {
        lease.ip for lease in book.leases.values() if lease.key != key and lease.bridge == bridge
    }
    had = (wanted, held.ip if held and held.bridge == bridge else "")
    for ip in _candidates(key, network, had):
        if ip not in others and _usable(ip, network):
            hardware = _chosen(mac, wanted) or _mac(ip)
            new = Lease(key=key, bridge=bridge, ip=ip, mac=hardware)
            lease = held._replace(bridge=bridge, ip=ip, mac=hardware) if held else new
            return book.put(lease), lease
    for left in book.leases.values():
        if left.bridge == bridge and _is_left(left):
            kept = {name: one for name, one in book.leases.items() if name != left.key}
            return take(replace(book, leases=kept), key, bridge, wanted=wanted, mac=mac)
    raise ResourceError(
        "E_LIMIT", bridge, f"every address of {network} is taken",
        hints=("destroy containers that you no longer need",),
    )  # fmt: skip


def _is_left(lease: Lease, runs: Path = FOLDER.parent) -> bool:
    """Whether no container runs with it, and none is known to be there that did."""
    if lease.host_name:
        return False
    digest, _, name = lease.key.partition(".")
    try:
        path = json.loads((runs / digest / f"{name}.json").read_bytes())["path"]
    except (OSError, ValueError, KeyError):
        return True
    return not Path(path, name, "config").exists()


def _chosen(mac: str, ip: str) -> str:
    """Return a hardware address that somebody chose; none where it only follows from the address `ip`."""
    return "" if ip and mac == _mac(ip) else mac


def _candidates(key: str, network: ipaddress.IPv4Network, first: Sequence[str]) -> Iterator[str]:
    """Yield the addresses of `first` that are any, then every other one from a place that follows from `key`."""
    yield from filter(None, first)
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    subnet = str(network.network_address).rpartition(".")[0]
    for step in range(len(_ADDRESSES)):
        yield f"{subnet}.{_ADDRESSES[(start + step) % len(_ADDRESSES)]}"


def choose_network(routed: Sequence[str], taken: Sequence[str], prefer: str = "") -> str:
    """Return a /24 that overlaps no network of `routed` and `taken`; where it can be, the one that holds `prefer`."""
    avoid = [ipaddress.IPv4Network(text, strict=False) for text in (*routed, *taken)]
    for network in _pool(prefer):
        if not any(network.overlaps(other) for other in avoid):
            return str(network)
    raise ResourceError("E_LIMIT", "network", "every private network is routed on this host")


def _pool(prefer: str) -> Iterator[ipaddress.IPv4Network]:
    if prefer and any(ipaddress.IPv4Address(prefer) in private for private in _PRIVATE):
        yield ipaddress.IPv4Network(f"{prefer}/{PREFIX}", strict=False)
    start = int.from_bytes(
        hashlib.sha256(machine()).digest()[:2], "big"
    )  # two hosts seldom choose the same
    for step in range(1 << 16):
        number = (start + step) % (1 << 16)
        yield ipaddress.IPv4Network(f"10.{number >> 8}.{number & 255}.0/{PREFIX}")
    for private in _PRIVATE[1:]:
        yield from private.subnets(new_prefix=PREFIX)


def machine() -> bytes:
    """Return what names this machine; nothing where nothing does (machine-id(5))."""
    with suppress(OSError):
        return Path("/etc/machine-id").read_bytes()
    return b""


def _usable(ip: str, network: ipaddress.IPv4Network) -> bool:
    try:
        address = ipaddress.IPv4Address(ip)
    except ValueError:
        return False
    return address in network and (int(address) & 255) in _ADDRESSES


def _mac(ip: str) -> str:
    """Return a locally administered address that follows from `ip`.

    Whoever has the address next has the same one, so no table of neighbours is ever wrong.
    """
    return (b"\x02m" + ipaddress.IPv4Address(ip).packed).hex(":")


def _row(lease: Lease) -> dict[str, Any]:
    row = dict(zip(_NAMES, lease, strict=False))
    row["ports"] = [asdict(port) for port in lease.ports]
    return row


def _lease(row: dict[str, Any], hosts: dict[str, Any]) -> Lease:
    *own, ports = _own(row)
    if not (row["host_name"] or ports):
        return Lease(*own)  # as it stands: there may be hundreds
    beside = hosts.get(row["key"], ()) if row["host_name"] else ()
    published = tuple([Port(**port) for port in ports])
    told = [*own, published, *beside[:3], *map(tuple, beside[3:])]
    return Lease(*told)


def _book(value: dict[str, Any], beside: dict[str, Any]) -> Book:
    hosts = beside.get("hosts", {})
    leases = {row["key"]: _lease(row, hosts) for row in value["leases"]}
    downs = {
        key: tuple(_script(script) for script in scripts)
        for key, scripts in beside.get("downs", {}).items()
    }
    return Book(
        networks=dict(value["networks"]),
        leases=leases,
        downs=downs,
        networks6=dict(beside.get("networks6", {})),
    )


def _script(value: dict[str, Any]) -> Script:
    variables = tuple((name, text) for name, text in value["variables"])
    return Script(command=value["command"], words=tuple(value["words"]), variables=variables)
