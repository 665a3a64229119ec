"""One file that starts itself: a tar whose first header is a shell script, for machines with sh, tar and util-linux.

    (pax global header)     its name are two lines of sh, its comment the script (bundle.sh)
    NAME/start              the start program: an ELF without libraries
    NAME/ids                maps the ids, and unpacks the root the first time (ids.sh)
    NAME/rootfs.tar.gz      the root

tar(1) skips such a header (pax(1), comment), the kernel and a shell read no further than its two lines.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from importlib.resources import files
from pathlib import Path

from provisioner.export import flat
from provisioner.export.archive import Archive, Write
from provisioner.export.compress import Counted, Gzip
from provisioner.export.image import Image
from provisioner.tar import BLOCK
from valuetypes import dataclass

_FIRST_ID, _RANGES, _IDS = 2_000_000_000, 2_000, 65_536  # beyond what /etc/subuid and nspawn lend
_COMMENT = " comment="


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """What starts the container, and the address that it has where nothing better carries its network."""

    program: bytes
    address: str


def write(image: Image, starter: Starter, folder: Path, write: Write) -> None:
    """Send the file to `write`; its root is packed below `folder`, which is empty."""
    packed = folder / "rootfs.tar.gz"
    with open(packed, "wb") as file:
        counted = Counted(file.write)
        flat.write(image, Gzip(counted.write))
    values = {
        "name": image.name,
        "version": counted.digest,
        "first": str(_first_id(image.name)),
        "address": starter.address,
        "outer": f"mkb{hashlib.sha256(image.name.encode()).hexdigest()[:10]}",  # netdevice(7): 15 letters
    }
    head = "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items())
    archive = Archive(write)
    script = f"{head}{_text('bundle.sh')}"
    archive.remark(_bootstrap(len(script.encode())), script)
    archive.directory(image.name, mtime=image.epoch)
    ids = f"#!/bin/sh\n{head}{_text('ids.sh')}".encode()
    for name, body in (("start", starter.program), ("ids", ids)):
        archive.file(f"{image.name}/{name}", body, mode=0o755, mtime=image.epoch)
    source = os.open(packed, os.O_RDONLY)
    try:
        archive.take(f"{image.name}/rootfs.tar.gz", source, counted.size, mtime=image.epoch)
    finally:
        os.close(source)
    archive.close()


def _text(name: str) -> str:
    return files("provisioner.export").joinpath(name).read_text(encoding="utf-8")


def _first_id(name: str) -> int:
    """Return the first id that root lends the container: it follows from the name."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return _FIRST_ID + number % _RANGES * _IDS


def _bootstrap(size: int) -> str:
    """Return the name of the header: what reads the script of `size` bytes behind it, and ends."""
    length = size + len(_COMMENT) + 1
    while len(str(length)) + size + len(_COMMENT) + 1 != length:
        length = len(str(length)) + size + len(_COMMENT) + 1
    start = BLOCK + len(str(length)) + len(_COMMENT)
    return f'#!/bin/sh\neval "$(head -c {start + size} "$0"|tail -c +{start + 1})";exit\n'
