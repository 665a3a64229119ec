"""nftables by hand over nfnetlink: changes as values, made in one transaction; no `nft` process, no library.

A rule is a row of expressions, each encoded; they load into registers and test what is there. Names and numbers are
those of linux/netfilter/nf_tables.h, and stand behind each function as `nft --debug=netlink` prints them.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence

from runtime.kernel.netlink import Message, Netlink, attribute, attributes, nested, text
from valuetypes import dataclass

_NETFILTER, _SUBSYSTEM = 12, 10 << 8  # NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 16, 17  # NFNL_MSG_BATCH_*
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE = 0, 2, 3, 4, 5, 6
_NEWSET, _GETSET, _NEWSETELEM, _DELSETELEM = 9, 10, 12, 14
_CREATE = 0xC00  # NLM_F_CREATE; NLM_F_APPEND, which only rules know
INET, NETDEV = 1, 5  # families
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)  # hooks of INET
INGRESS = 0  # the hook of NETDEV
DROPS, ACCEPTS = 0, 1  # verdicts
# meta keys
PROTOCOL, IIFNAME, OIFNAME, IIFTYPE, NFPROTO, L4PROTO = 1, 6, 7, 8, 15, 16
LINK, NETWORK, TRANSPORT = range(3)  # where a payload's offset counts from
CT_STATE, CT_STATUS = 0, 2
TCP_RESET, UNREACHABLE = 1, 2  # kinds of rejection
PORT_UNREACHABLE, ADMIN_PROHIBITED = 1, 3
_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)  # what nft(8) keeps beside a set, to list it
_INTERVAL_END, _INTERVALS, _MAP, _INVERTED = 1, 4, 8, 1

Change = Message  # of a transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A base chain as the kernel shows it."""

    family: int
    table: str
    hook: int
    drops: bool  # by its policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; its methods return changes."""

    family: int
    name: str

    def made(self) -> Change:
        """Make it; one that is there stays as it is."""
        return self._change(_NEWTABLE, 1, big(2, 0), what="table", flags=_CREATE)

    def gone(self) -> Change:
        """Delete it with all that is in it; ENOENT where there is none."""
        return self._change(_DELTABLE, 1, what="table")

    def chain(
        self,
        name: str,
        kind: str,
        hook: int,
        priority: int,
        policy: int = ACCEPTS,
        device: str = "",
    ) -> Change:
        """Make a base chain; `device` is for NETDEV."""
        where = big(1, hook) + big(2, priority & 0xFFFFFFFF) + (text(3, device) if device else b"")
        parts = text(3, name) + big(5, policy) + text(7, kind) + nested(4, where)
        return self._change(_NEWCHAIN, 1, parts, what=f"chain {name}", flags=_CREATE)

    def without(self, chain: str) -> tuple[Change, ...]:
        """Delete a chain, whether it is there or not."""
        name, what = text(3, chain), f"chain {chain}"
        made = self._change(_NEWCHAIN, 1, name, what=what, flags=_CREATE)  # it can be deleted then
        return (made, self._change(_DELCHAIN, 1, name, what=what))

    def rule(self, chain: str, *expressions: bytes) -> Change:
        """Append a rule to a chain."""
        parts = text(2, chain) + nested(4, *expressions)
        return self._change(_NEWRULE, 1, parts, what=f"rule of chain {chain}", flags=_CREATE)

    def set(
        self, name: str, key: Type, data: Type | None = None, *, intervals: bool = False
    ) -> Change:
        """Make a set of `key`s, or a map from them to `data`."""
        flags = (_INTERVALS if intervals else 0) | (_MAP if data else 0)
        parts = text(2, name) + big(3, flags) + big(4, key.number) + big(5, key.size)
        parts += big(6, data.number) + big(7, data.size) if data else b""
        parts += attribute(13, _HOST_ORDER) if key == IFNAME else b""
        parts += big(10, 1)  # an id, which the kernel demands; we find sets by their names
        return self._change(_NEWSET, 1, parts, what=f"set {name}", flags=_CREATE)

    def element(self, name: str, key: bytes, data: bytes = b"") -> Change:
        """Put an element into a set, or leave it there; EEXIST or EBUSY where a map has other data for it."""
        return self._elements(_NEWSETELEM, name, _element(key, data))

    def interval(self, name: str, first: bytes, behind: bytes) -> Change:
        """Put everything from `first` to before `behind` into a set of intervals."""
        return self._elements(
            _NEWSETELEM, name, _element(first), _element(behind, flags=_INTERVAL_END)
        )

    def without_element(self, name: str, key: bytes, data: bytes = b"") -> tuple[Change, ...]:
        """Take an element out of a set, whether it is there or not; EEXIST or EBUSY where it has other data."""
        gone = self._elements(_DELSETELEM, name, _element(key))
        return (self.element(name, key, data), gone)

    def has_set(self, name: str) -> bool:
        """Whether the table is there and has the set; OSError where the kernel has no nftables, or does not say."""
        body = _head(self.family) + text(1, self.name) + text(2, name)
        with Netlink(_NETFILTER) as netlink:
            try:
                netlink.request(_SUBSYSTEM | _GETSET, body, f"set {name}")
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return False
                raise
            return True

    def _elements(self, kind: int, name: str, *elements: bytes) -> Change:
        parts = text(2, name) + nested(3, *elements)
        return self._change(kind, 1, parts, what=f"element of {name}", flags=_CREATE)

    def _change(
        self, kind: int, own: int, parts: bytes = b"", *, what: str, flags: int = 0
    ) -> Change:
        body = _head(self.family) + text(own, self.name) + parts
        return Message(kind=_SUBSYSTEM | kind, flags=flags, body=body, what=f"{self.name}: {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """What a set's keys or data are; `number` is for nft(8), which lists them."""

    number: int
    size: int

    def __add__(self, other: Type) -> Type:
        """Return the concatenation `self . other`."""
        return Type(number=self.number << 6 | other.number, size=self.size + other.size)


# The numbers of nft(8)'s data types; each part of a concatenation fills whole words.
IPV4, IPV6, PROTO, SERVICE = (
    Type(number=number, size=size) for number, size in ((7, 4), (8, 16), (12, 4), (13, 4))
)
IFNAME = Type(number=41, size=16)


def commit(changes: Sequence[Change]) -> None:
    """Make all of `changes`, or none; OSError names the first that the kernel refuses."""
    if not changes:
        return
    limits = struct.pack("=BBH", 0, 0, 0x0A00)  # the subsystem, in network order
    begin, end = (
        Message(kind=kind, flags=0, body=limits, what="nftables") for kind in (_BEGIN, _END)
    )
    with Netlink(_NETFILTER) as netlink:
        netlink.batch((begin, *changes, end))


def chains() -> Iterator[Chain]:
    """Yield every base chain of every table."""
    with Netlink(_NETFILTER) as netlink:
        for payload in netlink.dump(_SUBSYSTEM | _GETCHAIN, _head(0)):
            values = attributes(payload[4:])
            if 4 in values:
                (hook,) = struct.unpack(">I", attributes(values[4])[1])
                table = os.fsdecode(values[1].rstrip(b"\0"))
                drops = values.get(5) == bytes(4)
                yield Chain(family=payload[0], table=table, hook=hook, drops=drops)


def big(kind: int, value: int) -> bytes:
    """Return a 32-bit attribute in network order."""
    return attribute(kind, struct.pack(">I", value))


def native(value: int) -> bytes:
    """Return the four bytes of a number in a register, as the kernel holds its own."""
    return struct.pack("=I", value)


def name(interface: str) -> bytes:
    """Return the bytes of an interface's name."""
    return interface.encode("ascii").ljust(IFNAME.size, b"\0")


def meta(key: int, register: int = 1) -> bytes:
    """[ meta load KEY => reg REGISTER ]."""
    return _expression("meta", big(2, key), big(1, register))


def payload(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """[ payload load LENGTHb @ BASE header + OFFSET => reg REGISTER ]."""
    parts = (big(1, register), big(2, base), big(3, offset), big(4, length))
    return _expression("payload", *parts)


def conntrack(key: int) -> bytes:
    """[ ct load KEY => reg 1 ]."""
    return _expression("ct", big(2, key), big(1, 1))


def destination_kind() -> bytes:
    """[ fib daddr type => reg 1 ]."""
    return _expression("fib", big(3, 2), big(2, 3), big(1, 1))


def equal(data: bytes) -> bytes:
    """[ cmp eq reg 1 DATA ]."""
    return _compare(0, data)


def other(data: bytes) -> bytes:
    """[ cmp neq reg 1 DATA ]."""
    return _compare(1, data)


def between(first: bytes, last: bytes) -> bytes:
    """[ range eq reg 1 FIRST LAST ]."""
    return _expression("range", big(1, 1), big(2, 0), _value(3, first), _value(4, last))


def masked(mask: bytes) -> bytes:
    """[ bitwise reg 1 = ( reg 1 & MASK ) ^ 0 ]."""
    parts = (big(1, 1), big(2, 1), big(3, len(mask)), _value(4, mask), _value(5, bytes(len(mask))))
    return _expression("bitwise", *parts)


def any_of(bits: int) -> bytes:
    """[ bitwise reg 1 = ( reg 1 & BITS ) ^ 0 ] [ cmp neq reg 1 0 ]."""
    return masked(native(bits)) + other(bytes(4))


def among(name: str, *, inverted: bool = False) -> bytes:
    """[ lookup reg 1 set NAME ]."""
    flags = big(5, _INVERTED) if inverted else b""
    return _expression("lookup", big(2, 1), text(1, name), flags)


def looked_up(name: str) -> bytes:
    """[ lookup reg 1 set NAME dreg 1 ]."""
    return _expression("lookup", big(2, 1), big(3, 1), text(1, name))


def redirected(family: int, port: int) -> bytes:
    """[ nat dnat FAMILY addr_min reg 1 proto_min reg PORT ]."""
    return _expression("nat", big(1, 1), big(2, family), big(3, 1), big(5, port))


def masquerade() -> bytes:
    """[ masq ]."""
    return _expression("masq")


def reject(kind: int, code: int = 0) -> bytes:
    """[ reject type KIND code CODE ]."""
    return _expression("reject", big(1, kind), attribute(2, bytes([code])))


def verdict(code: int) -> bytes:
    """[ immediate reg 0 CODE ]."""
    return _expression("immediate", big(1, 0), nested(2, nested(2, big(1, code))))


def _compare(operator: int, data: bytes) -> bytes:
    return _expression("cmp", big(1, 1), big(2, operator), _value(3, data))


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _element(key: bytes, data: bytes = b"", *, flags: int = 0) -> bytes:
    parts = big(3, flags) if flags else b""
    return nested(1, parts, _value(1, key), _value(2, data) if data else b"")


def _head(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)
