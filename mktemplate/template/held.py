"""The files of templates in memory, for who may not open any: the process that renders what nobody trusts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from mktemplate.errors import CommandError, escape
from mktemplate.template import library
from mktemplate.template.extending import Folder
from valuetypes import dataclass, replace


@dataclass(frozen=True, slots=True)
class Held:
    """Files by name, as they were when they were read; what could not be read says so when it is asked for."""

    files: Mapping[str, bytes | CommandError]
    shown: str

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        body = self.files.get(name)
        if isinstance(body, CommandError):
            raise body
        if body is None:
            detail = f"is not a file of this template ({self.shown})"
            raise CommandError("E_TEMPLATE_PATH", f'"{escape(name)}"', detail)
        return body

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        begin = f"{under}/" if under else ""
        below = (name.removeprefix(begin) for name in self.files if name.startswith(begin))
        return tuple(sorted({name.partition("/")[0] for name in below}))


def held(template: library.Template) -> library.Template:
    """Return the template with its files in memory."""
    folder = template.folder
    files = {name: _read(folder, name) for name in _below(folder, 1)}
    return replace(template, folder=Held(files, folder.shown))


@lru_cache(maxsize=1)
def shared() -> Held:
    """Return what came with mktemplate, in memory: read once, it does not change."""
    folder = library.shared()
    return Held({name: _read(folder, name) for name in _below(folder, 2)}, folder.shown)


def _below(folder: Folder, depth: int, under: str = "") -> Iterator[str]:
    """Yield the names of the files, folders `depth` deep looked into."""
    for name in folder.names(under):
        path = f"{under}/{name}" if under else name
        inside = tuple(_below(folder, depth - 1, path)) if depth else ()
        yield from inside or (path,)


def _read(folder: Folder, name: str) -> bytes | CommandError:
    try:
        return folder.read(name)
    except CommandError as error:
        return error
