"""The rules of our inet table, in the order in which a packet meets them; what is in its sets, `firewall` knows.

tests/kernel/test_firewall.py has the same as nft(8)'s text.
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.kernel import nftables as nft
from runtime.kernel.nftables import Change, Table

_DROP, _ACCEPT = nft.verdict(nft.DROPS), nft.verdict(nft.ACCEPTS)
_FROM, _TO = nft.meta(nft.IIFNAME), nft.meta(nft.OIFNAME)
_FROM_BRIDGE, _TO_BRIDGE = _FROM + nft.among("bridges"), _TO + nft.among("bridges")
_NOT_TO_BRIDGE = _TO + nft.among("bridges", inverted=True)
_IP, _IP6 = nft.meta(nft.NFPROTO) + nft.equal(b"\x02"), nft.meta(nft.NFPROTO) + nft.equal(b"\x0a")
_FROM_NETWORK = _IP + nft.payload(nft.NETWORK, 12, 4) + nft.among("networks")
_FROM_NETWORK6 = _IP6 + nft.payload(nft.NETWORK, 8, 16) + nft.among("networks6")
_TO_HOST = nft.destination_kind() + nft.equal(nft.native(2))  # RTN_LOCAL
_KNOWN = nft.conntrack(nft.CT_STATE) + nft.any_of(6)  # established, related
_PUBLISHED = nft.conntrack(nft.CT_STATUS) + nft.any_of(0x20)  # IPS_DST_NAT
_NEIGHBOURS = (
    nft.meta(nft.L4PROTO)
    + nft.equal(b"\x3a")
    + nft.payload(nft.TRANSPORT, 0, 1)
    + nft.between(bytes([135]), bytes([136]))
)  # what they ask and answer, which the port's guard has looked at
_ARRIVES = (
    (_TO_HOST, _IP, nft.meta(nft.L4PROTO), nft.payload(nft.NETWORK, 16, 4, 9),
     nft.payload(nft.TRANSPORT, 2, 2, 10), nft.looked_up("bound"), nft.redirected(2, 9)),
    (_TO_HOST, nft.meta(nft.L4PROTO), nft.payload(nft.TRANSPORT, 2, 2, 9), nft.looked_up("everywhere"),
     nft.redirected(2, 9)),
    (_TO_HOST, _IP6, nft.meta(nft.L4PROTO), nft.payload(nft.NETWORK, 24, 16, 9),
     nft.payload(nft.TRANSPORT, 2, 2, 13), nft.looked_up("bound6"), nft.redirected(10, 2)),
    # Not ::1: its answers would not be let in from a bridge.
    (_TO_HOST, _IP6, nft.payload(nft.NETWORK, 24, 16), nft.other(bytes(15) + b"\1"), nft.meta(nft.L4PROTO),
     nft.payload(nft.TRANSPORT, 2, 2, 9), nft.looked_up("everywhere6"), nft.redirected(10, 2)),
)  # fmt: skip
_CHAINS = {
    "guard": ("filter", nft.PREROUTING, -300, (
        (_FROM, nft.other(nft.name("lo")), _IP, nft.payload(nft.NETWORK, 16, 1), nft.equal(b"\x7f"), _DROP),
        (_FROM_BRIDGE, _IP, nft.payload(nft.NETWORK, 16, 2), nft.equal(b"\xa9\xfe"), _DROP),  # 169.254/16
        (_FROM_BRIDGE, _IP6, _NEIGHBOURS, _ACCEPT),
        (_FROM_BRIDGE, _IP6, nft.payload(nft.NETWORK, 24, 16), nft.masked(b"\xff\xc0" + bytes(14)),
         nft.equal(b"\xfe\x80" + bytes(14)), _DROP),
    )),
    "arriving": ("nat", nft.PREROUTING, -100, _ARRIVES),
    "local": ("nat", nft.OUTPUT, -100, _ARRIVES),
    "leaving": ("nat", nft.POSTROUTING, 100, (
        (_TO_BRIDGE, _IP, nft.payload(nft.NETWORK, 12, 1), nft.equal(b"\x7f"), nft.masquerade()),
        (_TO_BRIDGE, _FROM_NETWORK, _PUBLISHED, nft.masquerade()),  # it asks itself
        (_NOT_TO_BRIDGE, _FROM_NETWORK, nft.masquerade()),
        (_TO_BRIDGE, _FROM_NETWORK6, _PUBLISHED, nft.masquerade()),
        (_NOT_TO_BRIDGE, _FROM_NETWORK6, nft.masquerade()),
    )),
    "through": ("filter", nft.FORWARD, 0, (
        (_KNOWN, _ACCEPT),
        (_FROM, nft.meta(nft.OIFNAME, 2), nft.among("inside"), _ACCEPT),
        (_PUBLISHED, _ACCEPT),
        (_FROM_BRIDGE, _TO_BRIDGE, _DROP),
        (_FROM, nft.among("internal"), nft.reject(nft.UNREACHABLE, nft.ADMIN_PROHIBITED)),
        (_FROM_BRIDGE, _ACCEPT),
        (_TO_BRIDGE, _DROP),
    )),
    "host": ("filter", nft.INPUT, 0, (
        (_FROM_BRIDGE, _IP6, _NEIGHBOURS, _ACCEPT),
        (_FROM_BRIDGE, _KNOWN, _ACCEPT),
        (_FROM_BRIDGE, nft.meta(nft.L4PROTO), nft.equal(b"\x06"), nft.reject(nft.TCP_RESET)),
        (_FROM_BRIDGE, nft.reject(nft.UNREACHABLE, nft.PORT_UNREACHABLE)),
    )),
}  # fmt: skip


def made(table: Table) -> Iterator[Change]:
    """Make the table anew, with nothing in its sets."""
    yield table.made()
    yield table.gone()
    yield table.made()
    yield table.set("bridges", nft.IFNAME)
    yield table.set("internal", nft.IFNAME)
    yield table.set("inside", nft.IFNAME + nft.IFNAME)
    for address, six in ((nft.IPV4, ""), (nft.IPV6, "6")):
        target = address + nft.SERVICE
        yield table.set(f"networks{six}", address, intervals=True)
        yield table.set(f"bound{six}", nft.PROTO + address + nft.SERVICE, target)
        yield table.set(f"everywhere{six}", nft.PROTO + nft.SERVICE, target)
    for name, (kind, hook, priority, rules) in _CHAINS.items():
        yield table.chain(name, kind, hook, priority)
        for rule in rules:
            yield table.rule(name, *rule)
