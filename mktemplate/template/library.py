"""Where templates are found, and the only way to read one's files: by registered names, never through a link.

Searched in this order: --template-path, $XDG_CONFIG_HOME/mktemplate/templates, /etc/mktemplate/templates, built in.
Built-in templates and root's own below /etc are trusted (Z1), all others are not (Z1u, security.md 0.2).
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mktemplate.cli.grammar import RESERVED
from mktemplate.errors import CommandError, Several, escape, meant
from mktemplate.template import added, extending
from mktemplate.template import spec as specs
from mktemplate.template.extending import Extended, Folder
from mktemplate.template.report import Report
from valuetypes import dataclass, replace

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LARGEST = 4 << 20  # bytes of one file of a template
ETC = "/etc/mktemplate/templates"
MOUNTS = "fstabs"  # how templates name the mount lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template that was found: its facts and its files."""

    spec: specs.TemplateSpec
    folder: Folder


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if len(parts) > 4 or any(_PART.fullmatch(part) is None or ".." in part for part in parts):
        raise CommandError("E_TEMPLATE_PATH", f'"{escape(name)}"', "is not a file of this template")
    return parts


@dataclass(frozen=True, slots=True)
class Packaged:
    """Files that came with mktemplate, in a folder, a wheel or a zip."""

    root: Traversable
    shown: str

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        node = self.root.joinpath(*_parts(name))
        try:
            return node.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise _none(self.shown, name) from None

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        node = self.root / under if under else self.root
        if not node.is_dir():
            return ()
        return tuple(sorted(entry.name for entry in node.iterdir()))


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Files below a directory of somebody's: opened one component at a time, links refused (T-61, B-17)."""

    root: str
    shown: str

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        parts = _parts(name)
        at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                below = os.open(part, flags if last else flags | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            return self._content(at, name)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise CommandError(
                    "E_TEMPLATE_PATH", f"{self.shown}/{name}", "is a symlink"
                ) from None
            if error.errno == errno.ENOTDIR and _is_link(self.root, parts):
                raise CommandError(
                    "E_TEMPLATE_PATH", f"{self.shown}/{name}", "a folder in it is a symlink"
                ) from None
            raise _none(self.shown, name) from None
        finally:
            os.close(at)

    def _content(self, handle: int, name: str) -> bytes:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise CommandError("E_TEMPLATE_PATH", f"{self.shown}/{name}", "is not a regular file")
        if about.st_size > _LARGEST:
            raise CommandError(
                "E_TEMPLATE_LIMIT", f"{self.shown}/{name}", f"larger than {_LARGEST} bytes"
            )
        with open(os.dup(handle), "rb") as file:
            return file.read(_LARGEST)

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        try:
            return tuple(sorted(os.listdir(f"{self.root}/{under}" if under else self.root)))
        except OSError:
            return ()


def _is_link(root: str, parts: list[str]) -> bool:
    return any(os.path.islink("/".join((root, *parts[:count]))) for count in range(1, len(parts)))


def _none(shown: str, name: str) -> CommandError:
    return CommandError(
        "E_TEMPLATE_PATH", f'"{escape(name)}"', f"is not a file of this template ({shown})"
    )


@cache
def built_in() -> Packaged:
    """Return the templates that came with mktemplate."""
    return Packaged(_came_with("templates"), "templates")


@cache
def mount_lists() -> Packaged:
    """Return the fstab templates that came with mktemplate."""
    return Packaged(_came_with("fstabs"), "fstabs")


@dataclass(frozen=True, slots=True)
class _Shared:
    """The built-in templates, and as `fstabs/…` the mount lists."""

    shown: str = "templates"

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        folder, rest = _part_of_shared(name)
        return folder.read(rest)

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        folder, rest = _part_of_shared(under)
        return (*folder.names(rest), *(() if under else (MOUNTS,)))


def _part_of_shared(name: str) -> tuple[Folder, str]:
    """Return the mount lists, a template with what it extends, or all templates; and what `name` is called there."""
    first, _, rest = name.partition("/")
    if first == MOUNTS:
        return mount_lists(), rest
    return (_whole(packaged(first)), rest) if is_built_in(first) else (built_in(), name)


def _came_with(folder: str) -> Traversable:
    """Return a folder beside our packages: on disk, where importlib.resources (8 ms) is not needed, or in a zip."""
    beside = Path(__file__).parents[2] / folder
    if beside.is_dir():
        return beside
    from importlib.resources import files

    return files(folder)


def shared() -> Folder:
    """Return what came with mktemplate and any template may name."""
    return _Shared()


def places(template_path: str, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return (directory, origin) of the places on disk, first one first."""
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '/root')}/.config"
    rows = [(f"{home}/mktemplate/templates", "user"), (ETC, "/etc")]
    if template_path:
        rows.insert(0, (template_path, "--template-path"))
    return tuple(row for row in rows if os.path.isdir(row[0]))


def own_place(template_path: str, environ: Mapping[str, str]) -> Path:
    """Return where the caller keeps templates: --template-path, else root's place, or the user's own."""
    if template_path:
        return Path(os.path.abspath(template_path))
    if os.geteuid() == 0:
        return Path(ETC)
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '/root')}/.config"
    return Path(home) / "mktemplate" / "templates"


def is_built_in(name: str) -> bool:
    """Whether a template of this name came with mktemplate."""
    return _NAME.fullmatch(name) is not None and "template.toml" in built_in().names(name)


def check_name(name: str) -> None:
    """Raise E_NAME where no template may be called so."""
    if _NAME.fullmatch(name) is None or ".." in name or name in RESERVED:
        raise CommandError(
            "E_NAME", f'"{escape(name)}"', "no template may be named so: a-z 0-9 . _ -, and no verb"
        )


def load(name: str, template_path: str, environ: Mapping[str, str]) -> Template | None:
    """Return the template `name`, checked, or None where there is none of that name."""
    if _NAME.fullmatch(name) is None or ".." in name:
        return None
    if name in RESERVED:
        raise CommandError("E_NAME", name, "is a verb: no template may bear its name")
    for directory, origin in places(template_path, environ):
        place = f"{directory}/{name}"
        if os.path.islink(place):
            raise CommandError("E_TEMPLATE_PATH", place, "is a symlink")
        if os.path.isdir(place):
            return from_directory(place, origin)
    if is_built_in(name):
        folder = _whole(packaged(name))
        return Template(spec=_facts(folder, name, "built in", trusted=True), folder=folder)
    return None


def from_directory(place: str, origin: str) -> Template:
    """Return the template that lies in the directory `place`, checked."""
    name = place.rstrip("/").rpartition("/")[2]
    check_name(name)
    folder = _whole(OnDisk(place, name))
    about = added.record(os.path.dirname(place), name) if origin in ("user", "/etc") else None
    trusted = origin == "/etc" and about is None and _roots_own(place)
    spec = _facts(folder, name, origin, trusted=trusted)
    if about is not None:
        spec = replace(spec, source=about.source, grants=about.grants)
    return Template(spec=spec, folder=folder)


def _roots_own(place: str) -> bool:
    about = os.stat(place, follow_symlinks=False)
    return about.st_uid == 0 and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _whole(own: OnDisk | Packaged) -> Folder:
    """Return the files of a template, and behind them those of the one that it extends."""
    try:
        text = own.read("template.toml")
        if extending.KEY.encode() not in text:
            return own
        base = tomllib.loads(text.decode()).get(extending.KEY, "")
    except (ValueError, CommandError):
        return own  # whoever reads its facts tells that
    return Extended(own, _whole(packaged(base)), own.shown) if is_built_in(str(base)) else own


def packaged(name: str) -> Packaged:
    """Return the files of the built-in template `name`."""
    return Packaged(built_in().root / name, name)


def _extend(facts: Mapping[str, object], report: Report) -> Mapping[str, object]:
    """Return facts laid over those of the built-in template that they name, if they name one."""
    base = facts.get(extending.KEY)
    if base is None:
        return facts
    if not isinstance(base, str) or not is_built_in(base):
        known = tuple(name for name in built_in().names("") if is_built_in(name))
        detail = f'"{escape(str(base))}" is no built-in template'
        report.add(extending.KEY, detail, meant(str(base), known))
        return {key: value for key, value in facts.items() if key != extending.KEY}
    below = tomllib.loads(packaged(base).read("template.toml").decode())
    return extending.merged(_extend(below, report), facts)


def _facts(folder: Folder, name: str, origin: str, *, trusted: bool) -> specs.TemplateSpec:
    try:
        text = folder.read("template.toml")
    except CommandError as error:
        if "template.toml" in folder.names(""):
            raise
        raise CommandError(error.code, name, "is no template: it has no template.toml") from None
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError("E_TEMPLATE_SYNTAX", f"{name}/template.toml", "is not UTF-8") from None
    path = f"{name}/template.toml"
    return specs.parse(name, decoded, path, origin=origin, trusted=trusted, extend=_extend)


def names(template_path: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of all templates that can be found, sorted."""
    found = {
        name
        for name in built_in().names("")
        if _NAME.fullmatch(name) and "template.toml" in built_in().names(name)
    }
    for directory, _ in places(template_path, environ):
        found |= {
            name
            for name in os.listdir(directory)
            if _NAME.fullmatch(name) and os.path.isfile(f"{directory}/{name}/template.toml")
        }
    return tuple(sorted(found - RESERVED))


def every(
    template_path: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, Template | Exception]]:
    """Yield each template's name with the template, or with what is wrong with it."""
    for name in names(template_path, environ):
        try:
            template = load(name, template_path, environ)
        except (CommandError, Several) as error:
            yield name, error
        else:
            if template is not None:
                yield name, template
