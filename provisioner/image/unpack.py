"""An image's layers → layers of the store, bottom first: each verified, decompressed and placed in one sandboxed child.

A layer is named by its diff_id and by what is below it, so images that begin alike share what they have in common,
and an image that is brought again in a newer form costs only what is new.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypedDict

from provisioner import errand
from provisioner.deb import archive
from provisioner.errors import BadArchive
from provisioner.image import blob as blobs
from provisioner.image.blob import Blob, Piece
from provisioner.image.place import Archive, place
from provisioner.provision import Tools, build, layer_name, overlay_of
from provisioner.sandbox import Root
from provisioner.store import Draft, Layer

FORMAT = 1  # of what an image's layer holds; whatever changes its bytes changes this number
Told = Callable[[str], None]


class _Filled(TypedDict):
    """What the child answers."""

    newest: int
    notes: list[str]


def unpack(
    layers: Sequence[Blob],
    subject: str,
    tools: Tools,
    told: Told,
    bring: Callable[[Sequence[Blob]], None] = lambda wanted: None,
) -> tuple[Layer, ...]:
    """Return the store's layers of an image's `layers`, making those that are missing; notes go to `told`.

    `bring` is told at once which blobs will be opened. Raises UntrustedIndex (E_TRUST_HASH, E_TRUST_MISMATCH),
    BadArchive (E_IMAGE_FORMAT, E_ARCHIVE_*, E_IDMAP, E_ROOTFS_SYMLINK) and StoreFailed.
    """
    archive.zstd_decoder()  # imported here: the sandboxed child cannot import
    bring(_missing(layers, tools))
    made: list[Layer] = []
    with tools.progress.phase("unpack", len(layers)) as advance:
        for number, each in enumerate(layers, 1):
            title = f"{subject}: layer {number}"
            fill = partial(_fill_from_blob, each, title, tuple(made), tools, told)
            made.append(build(_recipe(each.diff_id, made), fill, tools))
            advance(1)
    return tuple(made)


def _recipe(diff_id: str, below: Sequence[Layer] | Sequence[str]) -> dict[str, Any]:
    names = [each.digest if isinstance(each, Layer) else each for each in below]
    return {"format": FORMAT, "origin": "image", "below": names, "diff_id": diff_id}


def _missing(layers: Sequence[Blob], tools: Tools) -> tuple[Blob, ...]:
    names: list[str] = []
    missing = []
    for each in layers:
        names.append(layer_name(_recipe(each.diff_id, names)))
        if tools.store.layer(names[-1]) is None:
            missing.append(each)
    return tuple(missing)


def _fill_from_blob(
    blob: Blob, title: str, below: Sequence[Layer], tools: Tools, told: Told, draft: Draft
) -> int:
    """Make one layer in the draft; return its epoch."""
    with tools.timed("unpack"), _raw(draft) as raw, blob.opened() as piece:
        answer: _Filled = errand.send(
            tools.sandbox,
            overlay_of(draft, below),
            lambda: _unfold_and_place(piece, blob, raw, title),
        )
    for note in answer["notes"]:
        told(note)
    return max(answer["newest"], *(layer.epoch for layer in below), 0)


def _unfold_and_place(piece: Piece, blob: Blob, raw: int, title: str) -> _Filled:
    found = blobs.unfold(piece, blob.digest, raw, title)
    if found != blob.diff_id:
        raise blobs.wrong_hash(f"{title}, uncompressed", found, blob.diff_id)
    return _placed(Archive(view=view(raw), subject=title))


def _placed(source: Archive) -> _Filled:
    newest, notes = place(source)
    return {"newest": newest, "notes": notes}


@contextmanager
def _raw(draft: Draft) -> Iterator[int]:
    """Open a file beside the draft that never has a name (open(2), O_TMPFILE)."""
    fd = os.open(draft.path, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def view(fd: int) -> memoryview:
    """Return the whole of an open file as memory."""
    size = os.fstat(fd).st_size
    return memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ)) if size else memoryview(b"")


@contextmanager
def unfolded(piece: Piece, subject: str, tools: Tools) -> Iterator[tuple[int, str]]:
    """Open what `piece` is uncompressed, with its sha256 as `sha256:HEX`; the sandbox decompresses it."""
    archive.zstd_decoder()
    with tools.store.draft("import") as draft, _raw(draft) as raw:
        scratch = Root(upper=draft.root)
        digest = errand.send(tools.sandbox, scratch, lambda: blobs.unfold(piece, "", raw, subject))
        yield raw, digest


def unpack_rootfs(source: Archive, digest: str, tools: Tools, told: Told) -> tuple[Layer, ...]:
    """Return the one layer that a plain rootfs is; `digest` is that of its uncompressed archive."""
    recipe = {
        **_recipe(digest, ()),
        "prefix": source.prefix.decode("utf-8", "surrogateescape"),
        "first_id": source.first_id,
        "plain": True,
    }

    def fill(draft: Draft) -> int:
        with tools.timed("unpack"):
            root = overlay_of(draft, ())
            answer = errand.send(tools.sandbox, root, lambda: _placed(source))
        for note in answer["notes"]:
            told(note)
        return answer["newest"]

    return (build(recipe, fill, tools),)


def nothing_in(subject: str) -> BadArchive:
    """Return the error for an archive that holds no system."""
    return BadArchive("E_IMAGE_FORMAT", subject, "holds no root file system")
