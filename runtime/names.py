"""Containers of one network find each other by name: the hosts file of each holds all that run there.

The files are written under the leases' lock, in place, because each is bound as /etc/hosts and a bind holds the inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from runtime import etcfiles, lease
from runtime.lease import Lease, Ledger


def join(key: str, hosts: Path, hostname: str, folder: Path = lease.FOLDER) -> None:
    """Make a container that runs known to the others of its network, and them to it; its own file is `hosts`."""
    if not folder.is_dir():
        return
    with lease.ledger(folder) as book:
        held = book.book.leases.get(key)
        if held is None or not held.host_name:
            return  # it is on no network of ours
        book.save(book.book.put(held._replace(hosts=str(hosts), hostname=hostname)))
        tell(book, held.bridge)


def tell(book: Ledger, bridge: str) -> None:
    """Write the hosts file of every container on `bridge` anew."""
    here = [one for one in book.book.leases.values() if one.bridge == bridge and one.hosts]
    for one in here:
        own = (one.ip, one.ip6) if one.ip6 else (one.ip,)
        others = "".join(_lines(other, six=bool(one.ip6)) for other in _nearest_first(one, here))
        _rewrite(one.hosts, etcfiles.hosts(one.hostname, own) + others)


def _lines(one: Lease, *, six: bool) -> str:
    """Return the lines of a container for those who have only IPv4, or both."""
    called = " ".join(_names(one))
    return f"{one.ip} {called}\n" + (f"{one.ip6} {called}\n" if six and one.ip6 else "")


def _names(one: Lease) -> Iterable[str]:
    """Return what a container is called: its name, and the name it gives itself."""
    return dict.fromkeys((one.key.partition(".")[2] or one.key, one.hostname))


def _nearest_first(one: Lease, here: Iterable[Lease]) -> list[Lease]:
    """Return the others: of two that are called the same, the first line counts, and that is of the same PATH."""
    home = one.key.partition(".")[0]
    others = [other for other in here if other.key != one.key]
    return sorted(others, key=lambda other: (other.key.partition(".")[0] != home, other.key))


def _rewrite(path: str, text: str) -> None:
    """Put `text` into a file that is there; one that is gone was of a container that has ended."""
    data = text.encode("ascii")
    with suppress(FileNotFoundError):
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(file, data, 0)
            os.ftruncate(file, len(data))
        finally:
            os.close(file)
