"""rtnetlink(7) by hand: links, addresses and routes, each request acknowledged. No `ip` process, no library.

Only `_socket` is imported: a start pays for this module. A socket keeps the network namespace that it was made
in, so `inside` gives one for a namespace that this process is not in.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType

from runtime.kernel import namespace
from valuetypes import dataclass

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_REQUEST, _ACK, _DUMP, _CREATE, _EXCL, _REPLACE = 0x1, 0x4, 0x300, 0x400, 0x200, 0x100
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
AF_INET, AF_INET6 = _socket.AF_INET, _socket.AF_INET6
IFF_UP, IFF_LOOPBACK = 0x1, 0x8
# linux/if_link.h, if_addr.h, rtnetlink.h, veth.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_AF_SPEC = 18, 28, 26
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_MODE = 4  # hairpin
_BR_VLAN_FILTERING, _BR_VLAN_DEFAULT_PVID = 7, 39
_BRIDGE_VLAN_INFO, _VLAN_PVID, _VLAN_UNTAGGED = 2, 2, 4  # if_bridge.h
_INET6_ADDR_GEN_MODE, _GEN_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_AF_BRIDGE = 7
_SO_SNDBUFFORCE, _USUAL_BUFFER = 32, 200 << 10  # socket.h; bytes that a socket takes at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface as the kernel shows it."""

    index: int
    name: str
    up: bool
    master: int  # index of its bridge, 0 where it has none
    mac: str
    kind: str  # bridge, veth, …; "" for real ones
    usual_vlan: int | None = None  # of a bridge that filters VLANs: its ports', 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One of several requests that are sent together; `what` says it in our words."""

    kind: int
    flags: int
    body: bytes
    what: str


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """Return a string attribute."""
    return attribute(kind, os.fsencode(value) + b"\0")


def number(kind: int, value: int) -> bytes:
    """Return a 32-bit attribute."""
    return attribute(kind, struct.pack("=I", value))


def short(kind: int, value: int) -> bytes:
    """Return a 16-bit attribute."""
    return attribute(kind, struct.pack("=H", value))


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a hardware address."""
    return bytes.fromhex(mac.replace(":", ""))


class Netlink:
    """A connection to one network namespace's routing tables."""

    def __init__(self, protocol: int = 0) -> None:
        """Open a socket in the namespace of this process."""
        self._socket = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol
        )
        self._socket.bind((0, 0))
        self._sequence = 0

    @classmethod
    def inside(cls, netns: int, protocol: int = 0) -> Netlink:
        """Open a socket in the namespace that is open as `netns`."""
        with namespace.in_network(netns):
            return cls(protocol)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def request(self, kind: int, body: bytes, what: str, flags: int = 0) -> None:
        """Send one request; OSError with `what` where the kernel refuses it."""
        self._send(kind, body, _REQUEST | _ACK | flags)
        for answer, payload in self._receive():
            if answer == _ERROR:
                (code,) = struct.unpack_from("=i", payload)
                if code:
                    raise OSError(-code, f"{what}: {os.strerror(-code)}")
                return

    def batch(self, messages: Sequence[Message]) -> None:
        """Send them all at once; OSError with the `what` of the first that the kernel refuses.

        Only refusals are answered, and those stand there when the call that sends has returned.
        """
        first = self._sequence + 1
        rows = []
        for message in messages:
            self._sequence += 1
            flags = _REQUEST | message.flags
            rows.append(_row(message.kind, flags, self._sequence, message.body))
        data = b"".join(rows)
        if len(data) > _USUAL_BUFFER:
            self._socket.setsockopt(_socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
        self._socket.send(data)
        with suppress(BlockingIOError):
            answer = self._socket.recv(1 << 16, _socket.MSG_DONTWAIT)
            _, _, _, sequence, _, code = struct.unpack_from("=IHHIIi", answer)
            what = messages[sequence - first].what
            raise OSError(-code, f"{what}: {os.strerror(-code)}")

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Yield every object of a kind."""
        self._send(kind, body, _REQUEST | _DUMP)
        while True:
            for answer, payload in self._receive():
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    raise OSError(-code, os.strerror(-code))
                yield payload

    def links(self) -> tuple[Link, ...]:
        """Return every interface."""
        return tuple(_link(payload) for payload in self.dump(_GETLINK, _link_header()))

    def link(self, name: str) -> Link | None:
        """Return the interface called `name`, or None."""
        self._send(_GETLINK, _link_header() + text(IFLA_IFNAME, name), _REQUEST)
        for answer, payload in self._receive():
            if answer == _NEWLINK:
                return _link(payload)
            (code,) = struct.unpack_from("=i", payload)
            if -code not in {errno.ENODEV, errno.ENOENT}:
                raise OSError(-code, f"link {name}: {os.strerror(-code)}")
        return None

    def addresses(self, family: int = _socket.AF_INET) -> tuple[tuple[int, str, int], ...]:
        """Return (interface's index, address, prefix length) of every address."""
        found = []
        for payload in self.dump(_GETADDR, struct.pack("=BBBBi", family, 0, 0, 0, 0)):
            _, prefix, _, _, index = struct.unpack_from("=BBBBi", payload)
            values = attributes(payload[8:])
            raw = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
            if raw:
                found.append((index, unpacked(raw), prefix))
        return tuple(found)

    def routes(self, family: int = _socket.AF_INET) -> tuple[tuple[str, int], ...]:
        """Return (destination, prefix length) of every route, in any table."""
        found = []
        for payload in self.dump(_GETROUTE, struct.pack("=BBBBBBBBI", family, *[0] * 8)):
            raw = attributes(payload[12:]).get(_RTA_DST)
            any_address = bytes(16 if family == _socket.AF_INET6 else 4)
            found.append((unpacked(raw or any_address), payload[1]))
        return tuple(found)

    def add_bridge(self, name: str, mac: str) -> None:
        """Make a bridge with a fixed hardware address, else it changes with its ports."""
        info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"))
        body = (
            _link_header()
            + text(IFLA_IFNAME, name)
            + attribute(IFLA_ADDRESS, mac_bytes(mac))
            + info
        )
        self.request(_NEWLINK, body, f"make bridge {name}", _CREATE | _EXCL)

    def add_veth(
        self, name: str, peer: bytes, *, master: int, mtu: int, queues: bytes = b""
    ) -> None:
        """Make a pair: `name` here, below bridge `master` if not 0; `peer` is the other end's attributes."""
        data = nested(IFLA_INFO_DATA, nested(_VETH_INFO_PEER, _link_header() + peer))
        body = _link_header() + text(IFLA_IFNAME, name) + queues
        body += number(IFLA_MTU, mtu) if mtu else b""
        body += number(IFLA_MASTER, master) if master else b""
        body += nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), data)
        self.request(_NEWLINK, body, f"make veth {name}", _CREATE | _EXCL)

    def add_upon(self, kind: str, lower: int, end: bytes, data: bytes) -> None:
        """Make a `kind` (macvlan, ipvlan, vlan) upon interface `lower`; `end` is its own attributes."""
        info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, data))
        body = _link_header() + number(IFLA_LINK, lower) + end + info
        self.request(_NEWLINK, body, f"make {kind}", _CREATE | _EXCL)

    def change(self, index: int, attributes_: bytes = b"", *, up: bool = False) -> None:
        """Change an interface."""
        flags = IFF_UP if up else 0
        body = struct.pack("=BxHiII", 0, 0, index, flags, flags) + attributes_
        self.request(_SETLINK, body, f"change link {index}")

    def without_ipv6(self, index: int) -> None:
        """Keep the kernel from giving an interface that is still down an IPv6 address of its own making."""
        inner = nested(_socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_NONE])))
        try:
            self.change(index, nested(IFLA_AF_SPEC, inner))
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:  # this kernel has no IPv6
                raise

    def set_hairpin(self, index: int) -> None:
        """Let the bridge send a port's frames back to it: a container that asks its own published port."""
        slave = nested(IFLA_INFO_SLAVE_DATA, attribute(_BRPORT_MODE, b"\1"))
        info = nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), slave)
        body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + info
        self.request(_NEWLINK, body, f"hairpin on link {index}")

    def change_vlan(
        self, port: int, vlan: int, *, untagged: bool = False, leave: bool = False
    ) -> None:
        """Have a port of a bridge in `vlan`, with `untagged` for frames without a tag; or have it leave."""
        flags = _VLAN_PVID | _VLAN_UNTAGGED if untagged else 0
        info = attribute(_BRIDGE_VLAN_INFO, struct.pack("=HH", flags, vlan))
        body = struct.pack("=BxHiII", _AF_BRIDGE, 0, port, 0, 0) + nested(IFLA_AF_SPEC, info)
        self.request(_DELLINK if leave else _SETLINK, body, f"VLAN {vlan} of link {port}")

    def delete(self, name: str) -> bool:
        """Delete the interface called `name`; return whether there was one."""
        try:
            self.request(_DELLINK, _link_header() + text(IFLA_IFNAME, name), f"delete link {name}")
        except OSError as error:
            if error.errno in {errno.ENODEV, errno.ENOENT}:
                return False
            raise
        return True

    def add_address(self, index: int, address: str, prefix: int, broadcast: str = "") -> None:
        """Give an interface an address; one that it has already stays."""
        family, raw = packed(address)
        body = struct.pack(
            "=BBBBi", family, prefix, 0x02 if family == _socket.AF_INET6 else 0, 0, index
        )
        body += attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)
        body += attribute(_IFA_BROADCAST, packed(broadcast)[1]) if broadcast else b""
        self.request(_NEWADDR, body, f"address {address}/{prefix}", _CREATE | _REPLACE)

    def add_route(self, destination: str, prefix: int, index: int, gateway: str = "") -> None:
        """Add a route over an interface, through `gateway` or on the link itself."""
        family, raw = packed(destination)
        scope = 0 if gateway else 253  # RT_SCOPE_UNIVERSE, RT_SCOPE_LINK
        body = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, 254, 4, scope, 1, 0)
        body += attribute(_RTA_DST, raw) if prefix else b""
        body += number(_RTA_OIF, index)
        body += attribute(_RTA_GATEWAY, packed(gateway)[1]) if gateway else b""
        self.request(_NEWROUTE, body, f"route {destination}/{prefix}", _CREATE | _REPLACE)

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._socket.send(_row(kind, flags, self._sequence, body))

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        """Yield (type, payload) of one datagram's messages that answer the last request."""
        data = self._socket.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
            if length < 16:
                return
            if sequence == self._sequence:
                yield kind, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def packed(address: str) -> tuple[int, bytes]:
    """Return the family and the bytes of an address."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    return family, _socket.inet_pton(family, address)


def unpacked(raw: bytes) -> str:
    """Return the text of an address of 4 or of 16 bytes."""
    return _socket.inet_ntop(_socket.AF_INET if len(raw) == 4 else _socket.AF_INET6, raw)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in `data`, by kind."""
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def peer(name: str, mac: str, netns: int, mtu: int) -> bytes:
    """Return the attributes of an end that lies in another namespace."""
    parts = text(IFLA_IFNAME, name) + number(IFLA_NET_NS_FD, netns)
    parts += attribute(IFLA_ADDRESS, mac_bytes(mac)) if mac else b""
    return parts + (number(IFLA_MTU, mtu) if mtu else b"")


def queues(receive: int, send: int) -> bytes:
    """Return the attributes of an interface with that many queues; the kernel's choice where it is one."""
    parts = number(IFLA_NUM_RX_QUEUES, receive) if receive > 1 else b""
    return parts + (number(IFLA_NUM_TX_QUEUES, send) if send > 1 else b"")


def _row(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", len(body) + 16, kind, flags, sequence, 0) + body


def _link_header() -> bytes:
    return struct.pack("=BxHiII", 0, 0, 0, 0, 0)


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", payload)
    values = attributes(payload[16:])
    master = struct.unpack("=I", values[IFLA_MASTER])[0] if IFLA_MASTER in values else 0
    info = attributes(values.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=os.fsdecode(values.get(IFLA_IFNAME, b"").rstrip(b"\0")),
        up=bool(flags & IFF_UP),
        master=master,
        mac=values.get(IFLA_ADDRESS, b"").hex(":"),
        kind=(kind := os.fsdecode(info.get(IFLA_INFO_KIND, b"").rstrip(b"\0"))),
        usual_vlan=_usual_vlan(info.get(IFLA_INFO_DATA, b"")) if kind == "bridge" else None,
    )


def _usual_vlan(data: bytes) -> int | None:
    values = attributes(data)
    if values.get(_BR_VLAN_FILTERING) != b"\1":
        return None
    return int.from_bytes(values.get(_BR_VLAN_DEFAULT_PVID, b""), sys.byteorder)
