"""fstab(5) text ↔ mount entries, with LXC's `create=`, `optional` and `relative` options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MountEntry:
    """One line of an fstab, escapes decoded."""

    source: str
    target: str
    kind: str  # "none" for binds, else a file system type
    options: tuple[str, ...]  # in order, without create=, optional, relative
    create: str = ""  # "", "dir" or "file"
    optional: bool = False
    relative: bool = False  # source is relative to the rootfs
    line: int = 0
