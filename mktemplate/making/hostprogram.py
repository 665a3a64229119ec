"""A static program of this host, of which a container can be made instead of packages: no network is needed then.

Only where the container is to be of this host's own release: the program is what its package would bring.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from mktemplate.cli.parsing import Build
from mktemplate.errors import CommandError
from mktemplate.template import sharehost
from mktemplate.template.facts import Facts, Target
from mktemplate.template.spec import TemplateSpec
from provisioner import distro as distros
from provisioner.disk import disk_failures
from provisioner.download import admit
from provisioner.store import Store
from valuetypes import replace

_ELF = struct.Struct("<16x 16x Q 14x H H")  # elf(5), 64 bits: e_phoff, e_phentsize, e_phnum
_MAGIC = b"\x7fELF\x02\x01"
_PT_INTERP = 3
_MOST_HEADERS = 64


def lend(spec: TemplateSpec, facts: Facts, build: Build, store: Store) -> Facts:
    """Return the facts with the host's program, kept in the store, where it can take the place of packages."""
    elsewhere = build.packages or build.mirror or build.repos or build.keyring or build.as_of
    wanted = (
        spec.static
        and spec.trusted
        and not (facts.shared_host or elsewhere or build.lock or build.recommends)
    )
    if not wanted or not _is_this_host(facts.target):
        return facts
    try:
        with open(spec.static, "rb") as file:
            if not is_static(file):
                return facts
            file.seek(0)
            with disk_failures(store.cache), admit(file, store.cache) as copy:
                return replace(facts, program=copy.sha256)
    except OSError:
        return facts  # then its package is fetched


def check(spec: TemplateSpec) -> None:
    """Raise E_NOTFOUND where this host cannot lend the program of `spec`."""
    detail = "needs libraries, so it cannot be shared alone"
    try:
        with open(spec.static, "rb") as file:
            if is_static(file):
                return
    except OSError as error:
        detail = f"{error.strerror}: it cannot be shared"
    package = next(iter(spec.packages.get("deb", ())), "")
    hints = (f"install {package} on this host, or leave out --share-host",) if package else ()
    raise CommandError("E_NOTFOUND", spec.static, detail, hints=hints)


def _is_this_host(target: Target) -> bool:
    host = sharehost.os_release()
    if (target.distro, target.release) != (host.get("ID"), host.get("VERSION_CODENAME")):
        return False
    return distros.architecture(distros.find(target.distro), os.uname().machine) == target.arch


def is_static(file: BinaryIO) -> bool:
    """Whether an open file is a 64-bit ELF program that needs no loader, so no library."""
    head = file.read(_ELF.size)
    if len(head) < _ELF.size or not head.startswith(_MAGIC):
        return False
    offset, size, count = _ELF.unpack(head)
    if not 4 <= size <= 256 or not 0 < count <= _MOST_HEADERS:
        return False
    file.seek(offset)
    table = file.read(size * count)
    kinds = (int.from_bytes(table[at : at + 4], "little") for at in range(0, len(table), size))
    return len(table) == size * count and _PT_INTERP not in kinds


def notes(spec: TemplateSpec, facts: Facts) -> tuple[str, ...]:
    """Return what a container's record says of where its program is from."""
    return (f"{spec.static} is this host's, sha256 {facts.program}",) if facts.program else ()
