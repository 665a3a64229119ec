"""An image in a registry → an Image; its layers come into the store's cache when asked for, several at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from provisioner.download import object_path
from provisioner.fetch import Missing
from provisioner.image import blob as blobs
from provisioner.image import config as configs
from provisioner.image import manifest
from provisioner.image.blob import Blob, Image, Piece
from provisioner.image.manifest import Descriptor, Manifest, Platform
from provisioner.image.registry import Registry
from provisioner.progress import Progress
from provisioner.store import Store
from provisioner.workers import in_threads

_CONNECTIONS = 4


class Pull:
    """One image on its way from a registry."""

    def __init__(self, registry: Registry, store: Store, progress: Progress) -> None:
        """Bring what is asked for into the cache of `store`; its lock `downloads` is held until they are used."""
        self._registry = registry
        self._store = store
        self._progress = progress
        self._sizes: dict[str, Descriptor] = {}

    def image(self, wanted: Platform) -> Image:
        """Return what the reference means for `wanted`; no layer has been asked for yet.

        Raises DownloadFailed, UntrustedIndex (E_TRUST_*), BadArchive (E_IMAGE_FORMAT, E_ARCHIVE_LIMIT).
        """
        reference = self._registry.reference
        subject = str(reference)
        try:
            first = self._registry.manifest(reference.wanted)
        except Missing:
            raise Missing("E_NET_HTTP", subject, "its registry has no such image") from None
        found = manifest.parse(first.body, subject, first.media_type)
        if not isinstance(found, Manifest):
            chosen = manifest.choose(found, wanted, subject)
            found = manifest.resolve(chosen, self._manifest, wanted, subject)
        config = configs.parse(self._registry.document(found.config), subject)
        configs.check(config, len(found.layers), wanted, subject)
        self._sizes = {each.digest: each for each in found.layers}
        layers = tuple(
            Blob(diff_id=diff_id, digest=each.digest, opened=partial(self._opened, each))
            for each, diff_id in zip(found.layers, config.diff_ids, strict=True)
        )
        return Image(subject=subject, digest=first.digest, config=config, layers=layers)

    def _manifest(self, wanted: Descriptor) -> bytes:
        body = self._registry.manifest(wanted.digest).body
        return blobs.verified(body, wanted, str(self._registry.reference))

    def bring(self, layers: Sequence[Blob]) -> None:
        """Have the blobs of `layers` in the cache."""
        absent = {each.digest: self._sizes[each.digest] for each in layers}
        total = sum(each.size for each in absent.values())
        self._store.need(total * 3, 0)  # packed, raw and as a tree; more is seen when it is there
        if absent:
            with self._progress.phase("download", total) as advance:
                lock = threading.Lock()

                def told(count: int) -> None:
                    with lock:
                        advance(count)

                in_threads(
                    lambda each: self._registry.bring(each, self._store.cache, told),
                    tuple(absent.values()),
                    _CONNECTIONS,
                )

    @contextmanager
    def _opened(self, wanted: Descriptor) -> Iterator[Piece]:
        path: Path = object_path(self._store.cache, wanted.hex)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            yield Piece(fd=fd, offset=0, size=wanted.size)
        finally:
            os.close(fd)
