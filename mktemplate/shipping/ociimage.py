"""A container as an OCI image, for a file or a registry: its layout, and what is known of it as referrers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.making import locks
from mktemplate.shipping import inventory
from mktemplate.shipping.shipment import Shipment
from provisioner.errors import BadArchive
from provisioner.export import oci, referrers
from provisioner.export.oci import Layout
from provisioner.export.referrers import Document, Referrer
from runtime.container import Container
from valuetypes import replace

SBOM = "application/spdx+json"  # IANA's registry
LOCK = "application/vnd.mktemplate.lock.v1"  # docs/lock-format.md


def assemble(
    shipped: Shipment, folder: Path, console: Console
) -> tuple[Layout, tuple[Referrer, ...]]:
    """Write the image's blobs below `folder`, those of its bill of materials and its lock among them."""
    image = replace(shipped.image, health=())  # OCI has no such field
    layout = oci.assemble(image, folder, console)
    documents = tuple(_documents(shipped.container, console))
    return layout, referrers.put(layout, documents)


def _documents(container: Container, console: Console) -> Iterator[Document]:
    """Yield what is known of a container: of an image of somebody else's that may be nothing."""
    name = container.name
    try:
        with suppress(FileNotFoundError):
            lock = (container.directory / locks.NAME).read_bytes()
            yield Document(media_type=LOCK, title=f"{name}.lock", body=lock)
        body = inventory.document(container, "spdx")
        yield Document(media_type=SBOM, title=f"{name}.spdx.json", body=body)
    except CommandError as absent:
        if absent.code != "E_NOTFOUND":
            raise
    except BadArchive as refused:  # the container wrote it, and an image may hold anything
        console.note(f"no bill of materials goes with it: {refused}")
