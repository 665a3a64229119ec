"""Documents about an image that travel with it: manifests that name it as their subject (image-spec 1.1, referrers)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from provisioner.export import oci
from provisioner.export.oci import MANIFEST, Blob, Layout
from valuetypes import dataclass

_EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Something to be known of an image."""

    media_type: str
    title: str  # the name of the file that `oras pull` makes of it
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """A document as its blobs and the manifest that names them and the image."""

    blobs: tuple[Blob, ...]
    manifest: Blob


def put(layout: Layout, documents: Sequence[Document]) -> tuple[Referrer, ...]:
    """Write each document beside the blobs of `layout`; return what refers to its image."""
    return tuple(_put(layout, each) for each in documents)


def _put(layout: Layout, document: Document) -> Referrer:
    empty = oci.put(layout.folder, b"{}", _EMPTY)
    title = {"org.opencontainers.image.title": document.title}
    held = oci.put(layout.folder, document.body, document.media_type)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": document.media_type,
        "config": empty.document(),
        "layers": [{**held.document(), "annotations": title}],
        "subject": layout.manifest.document(),
    }
    body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    made = oci.put(layout.folder, body, MANIFEST, artifact_type=document.media_type)
    return Referrer(blobs=(empty, held), manifest=made)
