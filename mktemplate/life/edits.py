"""What the owner of a container changed in its texts, carried over to texts that are rendered anew.

Each text is held against what `create` wrote (config.made, fstab.made): what differs is the owner's word, and stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_LAYERS = "lxc.rootfs.path"  # the one line that is never carried over: it names the layers
_ALLOTTED = ("lxc.idmap", "lxc.uts.name", "lxc.mount.fstab", "lxc.seccomp.profile")
_ADDRESS = (".hwaddr", ".ipv4.address", ".ipv4.gateway", ".ipv6.address")  # of a nic


def config(fresh: str, current: str, made: str | None) -> str:
    """Return `fresh` with every key as `current` has it whose lines are not those of `made`.

    Without `made` all keys are taken to be the owner's. What was allotted to the container, its ids, its address and
    its names, is always as `current` has it.
    """
    own = _by_key(current)
    known = _by_key(made) if made is not None else {}
    keys = {key for key in own.keys() | known.keys() if own.get(key) != known.get(key)}
    keys |= {key for key in own if key in _ALLOTTED or key.endswith(_ADDRESS)}
    keys.discard(_LAYERS)
    kept: list[str] = []
    placed: set[str] = set()
    for line in fresh.split("\n"):
        key = _key(line)
        if key not in keys:
            kept.append(line)
        elif key not in placed:  # at the place of the first: the order of keys may count
            placed.add(key)
            kept += own.get(key, ())
    more = [line for key in own if key in keys - placed for line in own[key]]
    return "\n".join(kept).rstrip("\n") + "\n" + "".join(f"{line}\n" for line in more)


def fstab(fresh: str, current: str, made: str | None) -> str:
    """Return `fresh` without the lines that were taken out of `made`, with those that were added to it."""
    if made is None:
        return current
    was, now = Counter(_lines(made)), Counter(_lines(current))
    gone, added = was - now, now - was
    kept = []
    for line in fresh.split("\n"):
        if gone[line] > 0:
            gone[line] -= 1
        else:
            kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n" + "".join(f"{line}\n" for line in added.elements())


def _key(line: str) -> str:
    """Return the key of a line, "" for a comment or a blank."""
    key, equals, _ = line.partition("=")
    return "" if not equals or key.lstrip().startswith("#") else key.strip()


def _by_key(text: str) -> dict[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if key := _key(line):
            found.setdefault(key, []).append(line)
    return dict(found)


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]
