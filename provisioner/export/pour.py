"""From the directories of an image to bytes: whoever may read them writes the archive, the caller takes what comes."""

from __future__ import annotations

import os
from collections.abc import Callable

from provisioner import errand, inside
from provisioner.disk import disk_error
from provisioner.export.archive import Archive, Write
from provisioner.export.image import Image, opened
from provisioner.sandbox import Root, Sandbox

Fill = Callable[
    [tuple[int, ...], Archive], None
]  # the open parts, topmost first → what stands in the archive

_PIECE = 1 << 20  # bytes


def pour(image: Image, fill: Fill, write: Write) -> None:
    """Send the archive that `fill` makes of the parts of `image` to `write`.

    Raises StoreFailed for what a disk refuses. As a normal user `fill` runs where the owners of the files obey, and
    its bytes come through a pipe.
    """
    try:
        with opened(image.parts) as parts:
            if image.sandbox is None:
                _fill(fill, parts, write)
            else:
                root = Root(upper=image.parts[-1].path)
                _from_sandbox(image.sandbox, root, lambda send: _fill(fill, parts, send), write)
    except OSError as problem:
        raise disk_error(problem, image.parts[-1].path) from problem


def _fill(fill: Fill, parts: tuple[int, ...], write: Write) -> None:
    archive = Archive(write)
    fill(parts, archive)
    archive.close()


def _from_sandbox(
    sandbox: Sandbox, root: Root, work: Callable[[Write], None], write: Write
) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def send() -> None:
        work(lambda data: inside.write_all(writing, data))
        os.close(writing)

    try:
        with errand.begin(sandbox, root, send) as answered:
            os.close(writing)
            writing = -1
            while data := os.read(reading, _PIECE):
                write(data)
            answered()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
