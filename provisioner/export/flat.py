"""All layers of an image as one tree inside a tar: what engines that know no layers take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set

from provisioner.export import view
from provisioner.export.archive import Archive
from provisioner.export.compress import Stream
from provisioner.export.image import Image
from provisioner.export.pour import pour
from valuetypes import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A file of root's that a target wants in the tree; a directory where `body` is None."""

    path: str
    body: bytes | None = None
    mode: int = 0o755


def as_it_is(path: str) -> str | None:
    """Leave everything where it is."""
    return path


def nothing(image: Image, seen: Set[str]) -> Iterator[Addition]:
    """Add nothing to a tree."""
    yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the archive is laid out."""

    folder: str = ""  # where in it the tree is
    texts: Mapping[str, bytes] = field(
        default_factory=dict
    )  # what lies beside it, by name; comes first
    additions: Callable[[Image, Set[str]], Iterator[Addition]] = (
        nothing  # by the paths that are there
    )
    place: Callable[[str], str | None] = as_it_is  # of each path of the tree; None leaves it out


PLAIN = Arrangement()


def write(image: Image, stream: Stream, arrangement: Arrangement = PLAIN) -> None:
    """Send a tar of the tree of `image` and of what lies beside it to `stream`, and close that."""

    def fill(parts: tuple[int, ...], archive: Archive) -> None:
        made: set[str] = set()
        for name, body in arrangement.texts.items():
            _parents(name, archive, made, image.epoch)
            archive.file(name, body, mtime=image.epoch)
        _parents(arrangement.folder, archive, made, image.epoch)
        _tree(image, parts, archive, arrangement)

    pour(image, fill, stream.write)
    stream.close()


def _tree(image: Image, parts: tuple[int, ...], archive: Archive, arrangement: Arrangement) -> None:
    seen: set[str] = set()  # paths of the tree
    there: set[str] = set()  # names in the archive: no folder is left to whoever unpacks it
    for entry in view.merged(parts):
        seen.add(entry.path)
        placed = arrangement.place(entry.path)
        if placed is not None:
            name = _below(arrangement.folder, placed)
            if placed != entry.path:
                _parents(name, archive, there, image.epoch)
            there.add(name)
            archive.add(entry, name)
    for each in arrangement.additions(image, seen):
        name = _below(arrangement.folder, each.path)
        _parents(name, archive, there, image.epoch)
        there.add(name)
        if each.body is None:
            archive.directory(name, mode=each.mode, mtime=image.epoch)
        else:
            archive.file(name, each.body, mode=each.mode, mtime=image.epoch)


def _below(folder: str, path: str) -> str:
    return f"{folder}/{path}".strip("/") or "."


def _parents(name: str, archive: Archive, made: set[str], mtime: int) -> None:
    """Add the directories that lead to `name` and are not there yet."""
    steps = name.split("/")[:-1]
    for count in range(1, len(steps) + 1):
        folder = "/".join(steps[:count])
        if folder not in made:
            made.add(folder)
            archive.directory(folder, mtime=mtime)
