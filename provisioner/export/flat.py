"""All layers of an image as one tree inside a tar: what engines that know no layers take."""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.export import view
from provisioner.export.archive import Archive
from provisioner.export.compress import Stream
from provisioner.export.image import Image
from provisioner.export.pour import pour


def write(image: Image, stream: Stream) -> None:
    """Send the tree of `image` to `stream` as a tar, its root at the archive's top."""
    pour(image, lambda parts, archive: tree(parts, archive, ""), stream.write)
    stream.close()


def beside(image: Image, stream: Stream, folder: str, texts: Mapping[str, bytes]) -> None:
    """Send a tar to `stream`: `texts` by name, then the tree of `image` below `folder`."""

    def fill(parts: tuple[int, ...], archive: Archive) -> None:
        made: set[str] = set()
        for name, body in texts.items():
            _parents(name, archive, made, image.epoch)
            archive.file(name, body, mtime=image.epoch)
        _parents(folder, archive, made, image.epoch)
        tree(parts, archive, folder)

    pour(image, fill, stream.write)
    stream.close()


def tree(parts: tuple[int, ...], archive: Archive, folder: str) -> None:
    """Add what the open `parts`, topmost first, come to below `folder`."""
    for entry in view.merged(parts):
        archive.add(entry, f"{folder}/{entry.path}".strip("/") or ".")


def _parents(name: str, archive: Archive, made: set[str], mtime: int) -> None:
    """Add the directories that lead to `name` and are not there yet."""
    steps = name.split("/")[:-1]
    for count in range(1, len(steps) + 1):
        folder = "/".join(steps[:count])
        if folder not in made:
            made.add(folder)
            archive.directory(folder, mtime=mtime)
