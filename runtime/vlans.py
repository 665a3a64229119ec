"""The VLANs of a container's port on a bridge that filters by them: lxc.net.N.veth.vlan.id and .tagged.id."""

from __future__ import annotations

from runtime.errors import HostError
from runtime.kernel.netlink import Netlink
from runtime.settings import Nic

_DROPPED = -1  # the id `none`: frames without a tag are dropped


def give(host: Netlink, nic: Nic, port: int) -> None:
    """Let interface number `port` be in the VLANs of `nic`, as LXC does. HostError where its bridge filters by none."""
    if not nic.has_vlans:
        return
    bridge = host.link(nic.link)
    usual = bridge.usual_vlan if bridge else None
    if usual is None:
        raise HostError(
            "E_KERNEL_FEATURE",
            nic.link,
            "is no bridge that filters VLANs",
            hints=(f"ip link set {nic.link} type bridge vlan_filtering 1",),
        )
    own = usual if nic.veth_vlan_id is None else nic.veth_vlan_id
    try:
        if usual and own != usual:
            host.change_vlan(port, usual, leave=True)
        if own not in (_DROPPED, usual):
            host.change_vlan(port, own, untagged=True)
        for vlan in nic.veth_vlan_tagged:
            host.change_vlan(port, vlan)
    except OSError as error:
        raise HostError("E_KERNEL_FEATURE", f"lxc.net.{nic.index}.veth.vlan", str(error)) from None
