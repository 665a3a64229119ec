"""What a start needs in any root, as a thin layer over an image's own: places to mount on, files to bind over, PID 1.

What the image has is left as it is; only a link or a special file where a plain one must be is replaced or refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from provisioner import errand, inside
from provisioner.errors import BadArchive
from provisioner.provision import Tools, build, overlay_of
from provisioner.store import Draft, Layer
from valuetypes import dataclass

_FORMAT = 1
_PLACES = {"/proc": 0o555, "/sys": 0o555, "/dev": 0o755, "/run": 0o755, "/tmp": 0o1777}  # noqa: S108 - names, not uses
_COVERED = ("/proc", "/sys", "/dev")  # never through a link (T-02)
_FILES = {  # a start binds its own over them
    "/etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "/etc/hostname": b"",
    "/etc/resolv.conf": b"",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Furniture:
    """What one image's root must have beside what each has."""

    directories: tuple[str, ...] = ()  # absolute; root's, 0755, where they are missing
    programs: Mapping[str, bytes]  # absolute path → body, 0755


def furnish(wanted: Furniture, below: Sequence[Layer], subject: str, tools: Tools) -> Layer:
    """Return the layer of `wanted` over the layers `below`, bottom first.

    Raises BadArchive: E_ROOTFS_SYMLINK, E_ROOTFS_FILE.
    """
    recipe = {
        "format": _FORMAT,
        "origin": "tree",
        "below": [layer.digest for layer in below],
        "directories": list(wanted.directories),
        "programs": {path: body.hex() for path, body in sorted(wanted.programs.items())},
    }

    def fill(draft: Draft) -> int:
        with tools.timed("tree"):
            root = overlay_of(draft, below)
            errand.send(tools.sandbox, root, lambda: _make(wanted, subject))
        return below[-1].epoch

    return build(recipe, fill, tools)


def _make(wanted: Furniture, subject: str) -> None:
    os.umask(0o022)
    for path in _COVERED:
        if os.path.islink(path):
            raise BadArchive("E_ROOTFS_SYMLINK", subject, f"{path} must be an ordinary directory")
    for path, mode in _PLACES.items():
        _directory(path, mode, subject)
    for path in wanted.directories:
        _directory(path, 0o755, subject)
    for path, body in _FILES.items():
        if not _is_regular(path):
            _file(path, body, 0o644, subject)
    for path, body in wanted.programs.items():
        _file(path, body, 0o755, subject)


def _directory(path: str, mode: int, subject: str) -> None:
    """Have a directory at `path`, and above it."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        place = os.fsencode("/" + "/".join(parts[:depth]))
        if inside.is_directory(place):
            continue
        if inside.is_there(place):
            detail = f"{os.fsdecode(place)} is no directory"
            raise BadArchive("E_ROOTFS_FILE", subject, detail)
        os.mkdir(place, 0o755)
        if depth == len(parts):
            os.chmod(place, mode)


def _file(path: str, body: bytes, mode: int, subject: str) -> None:
    _directory(os.path.dirname(path), 0o755, subject)
    place = os.fsencode(path)
    if inside.is_there(place):
        inside.delete(place)
    inside.put(place, body, mode)


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
