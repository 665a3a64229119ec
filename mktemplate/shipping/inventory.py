"""What is in a container: its package database, and of each package the archive that it was made of."""

from __future__ import annotations

from contextlib import ExitStack, closing

from mktemplate.errors import CommandError
from mktemplate.life import copies
from mktemplate.making import locks, workshop
from provisioner import errand
from provisioner.sandbox import Root
from provisioner.sbom import cyclonedx, database, spdx
from provisioner.sbom.database import Installed
from provisioner.sbom.subject import Subject
from runtime.container import Container
from valuetypes import replace

FORMATS = {"spdx": spdx.document, "cyclonedx": cyclonedx.document}


def document(container: Container, kind: str) -> bytes:
    """Return the bill of materials of a container as `kind`, SPDX or CycloneDX; E_NOTFOUND without a database."""
    found = container.bundle
    record = found.record
    with ExitStack() as stack:
        store = stack.enter_context(closing(workshop.store(container.path)))
        layers = [store.layer(digest) for digest in record.layers]
        if None in layers:
            raise CommandError("E_CORRUPT", container.name, "one of its layers is gone")
        draft = stack.enter_context(store.draft("sbom"))
        own = found.path / copies.trees_of(found.path)[0]
        lowers = (own, *(layer.path for layer in reversed(layers) if layer))
        root = Root(upper=draft.root, lowers=lowers, work=draft.work)  # what is read is only below
        texts = errand.send(workshop.sandbox(), root, database.read)
        epoch = max((layer.epoch for layer in layers if layer), default=0)
    packages = database.parse(texts, container.name)
    if not packages:
        raise CommandError(
            "E_NOTFOUND", container.name, "has no package database of dpkg's or apk's"
        )
    subject = Subject(
        name=container.name,
        distro=record.distro,
        release=record.release,
        epoch=epoch,
        tool=locks.tool(),
    )
    return FORMATS[kind](subject, _with_archives(packages, container))


def _with_archives(packages: tuple[Installed, ...], container: Container) -> tuple[Installed, ...]:
    """Return the packages with the hash and the place of each archive that the container was made of."""
    if not (container.directory / locks.NAME).exists():
        return packages
    held = {
        (each.name, each.version, each.arch): each
        for each in locks.of_container(container.bundle).chosen.packages
    }
    return tuple(
        replace(each, sha256=archive.sha256, location=archive.url) if archive else each
        for each in packages
        for archive in (held.get((each.name, each.version, each.arch)),)
    )
