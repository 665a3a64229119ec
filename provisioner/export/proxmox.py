"""A template for Proxmox VE's containers: the root as a tar whose names begin with ./, as `pct create` unpacks it.

Proxmox finds out the distribution by /etc/os-release, writes /etc/network/interfaces, /etc/hostname and /etc/hosts
(PVE::LXC::Setup), and starts /sbin/init. What it writes into must be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from provisioner.export import sbininit
from provisioner.export.flat import Addition, Arrangement
from provisioner.export.image import Image

_WANTED = ("etc/network",)


def _additions(image: Image, seen: Set[str]) -> Iterator[Addition]:
    yield from sbininit.addition(image, seen)
    yield from (Addition(path=path) for path in _WANTED if path not in seen)


ARRANGEMENT = Arrangement(folder=".", additions=_additions)
