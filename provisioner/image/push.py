"""An image layout on disk → a registry: only the blobs that it does not have, the manifest after all that it names.

What refers to the image goes last. A registry that does not keep track of subjects gets a list of them under the tag
that distribution-spec 1.1 names for that (Referrers Tag Schema).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from provisioner.errors import BadArchive
from provisioner.export.oci import INDEX, Blob, Layout
from provisioner.export.referrers import Referrer
from provisioner.fetch import Missing
from provisioner.image import document
from provisioner.image.manifest import MOST_MANIFESTS, Descriptor
from provisioner.image.registry import Registry
from provisioner.progress import Progress
from provisioner.workers import in_threads
from valuetypes import dataclass

_CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push came to."""

    digest: str  # of the image's manifest
    sent: int  # bytes of blobs that went
    known: int  # bytes of blobs that the registry had


def push(
    layout: Layout, referrers: Sequence[Referrer], registry: Registry, progress: Progress
) -> Pushed:
    """Have the image, and what refers to it, under the tag of the registry's reference.

    Raises DownloadFailed E_NET_*, UntrustedIndex E_TRUST_HASH where the registry took it for something else.
    """
    *blobs, manifest = layout.blobs
    blobs += [blob for each in referrers for blob in each.blobs]
    wanted = {blob.digest: blob for blob in blobs}
    absent = _absent(tuple(wanted.values()), registry)
    sent = sum(blob.size for blob in absent)
    if absent:
        with progress.phase("push", sent) as advance:
            lock = threading.Lock()

            def send(blob: Blob) -> None:
                with open(layout.path(blob), "rb") as file:
                    registry.send(Descriptor(digest=blob.digest, size=blob.size), file)
                with lock:
                    advance(blob.size)

            in_threads(send, absent, _CONNECTIONS)
    registry.put(registry.reference.tag, _body(layout, manifest), manifest.media_type)
    _refer(layout, referrers, registry)
    known = sum(blob.size for blob in wanted.values()) - sent
    return Pushed(digest=manifest.digest, sent=sent, known=known)


def _absent(blobs: Sequence[Blob], registry: Registry) -> tuple[Blob, ...]:
    has = in_threads(lambda blob: registry.has(blob.digest), blobs, _CONNECTIONS)
    return tuple(blob for blob, there in zip(blobs, has, strict=True) if not there)


def _refer(layout: Layout, referrers: Sequence[Referrer], registry: Registry) -> None:
    untracked = []
    for each in referrers:
        made = each.manifest
        if not registry.put(made.digest, _body(layout, made), made.media_type):
            untracked.append(made.document())
    if untracked:
        _list(untracked, layout.manifest.digest.replace(":", "-"), registry)


def _list(untracked: Sequence[dict[str, object]], tag: str, registry: Registry) -> None:
    """Add to the list of what refers to the image; what others put there stays."""
    subject = f"{registry.reference.host}/{registry.reference.repository}:{tag}"
    try:
        said = document.parse(registry.manifest(tag).body, subject)
    except Missing:
        said = {}
    rows = {str(row.get("digest")): row for row in document.rows(said, "manifests", subject)}
    merged = rows | {str(row["digest"]): row for row in untracked}
    if len(merged) > MOST_MANIFESTS:
        detail = f"more than {MOST_MANIFESTS} documents refer to the image"
        raise BadArchive("E_ARCHIVE_LIMIT", subject, detail)
    if merged != rows:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(merged.values())}
        registry.put(tag, json.dumps(index, sort_keys=True).encode(), INDEX)


def _body(layout: Layout, blob: Blob) -> bytes:
    return layout.path(blob).read_bytes()
