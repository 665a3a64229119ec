"""Templates that `templates add` brought in: a folder each beside a record of where from and of what was granted.

The record lies beside the template, in PLACE/.added, so that nothing which was brought in can have written it. A
template that has one is not trusted, wherever it lies.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mktemplate.errors import CommandError
from provisioner.disk import disk_error, fsync_directory
from valuetypes import asdict, dataclass

FOLDER = ".added"
_LARGEST = 1 << 16  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Where a template came from, and what it was granted for good."""

    source: str
    revision: str = ""  # git's commit, or the SHA-256 of the tar
    sha256: str = ""  # of its files
    added: str = ""  # when
    grants: tuple[str, ...] = ()


def record(place: str | os.PathLike[str], name: str) -> Added | None:
    """Return the record of the template `name` in `place`, None where it was not brought in.

    One that somebody else could have written grants nothing.
    """
    try:
        fd = os.open(
            Path(place) / FOLDER / f"{name}.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return None
    except OSError:
        return Added(source="unknown")
    with open(fd, "rb") as file:
        about = os.fstat(fd)
        ours = about.st_uid in (0, os.geteuid()) and not about.st_mode & (
            stat.S_IWGRP | stat.S_IWOTH
        )
        body = file.read(_LARGEST)
    try:
        told = json.loads(body)
        found = Added(**{**told, "grants": tuple(map(str, told["grants"]))})
    except (ValueError, TypeError, KeyError):
        return Added(source="unknown")
    return found if ours else Added(source=found.source)


@contextmanager
def staged(place: Path, templates: Mapping[str, Mapping[str, bytes]]) -> Iterator[Path]:
    """Lend a folder in `place` that holds the templates, written and on disk; what is left in it goes at the end."""
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".staging-", dir=place))
    except OSError as problem:
        raise disk_error(problem, place) from None
    try:
        for name, files in templates.items():
            _write(stage / name, files)
        yield stage
    except OSError as problem:
        raise disk_error(problem, place) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    (folder / "files").mkdir(parents=True)
    for name, body in files.items():
        with open(folder / name, "xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    for each in (folder / "files", folder):
        fsync_directory(each)


def keep(place: Path, stage: Path, name: str, about: Added, *, force: bool) -> None:
    """Move the template `name` from the stage into `place`, its record first; E_EXISTS where one is there.

    With `force` it takes the place of one that was added before.
    """
    target, note = place / name, place / FOLDER / f"{name}.json"
    if os.path.lexists(target):
        _refuse_others(place, name, force=force)
    note.parent.mkdir(mode=0o755, exist_ok=True)
    fresh = stage / f"{name}.json"
    private = partial(
        os.open, mode=0o644
    )  # whatever the umask is: what a group can write grants nothing
    with open(fresh, "x", encoding="utf-8", opener=private) as file:
        file.write(json.dumps(asdict(about), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, note)  # first: what it is the record of must never lie there without it
    if os.path.lexists(target):
        os.rename(target, stage / f"{name}.old")
    os.rename(stage / name, target)
    fsync_directory(place)


def _refuse_others(place: Path, name: str, *, force: bool) -> None:
    if record(place, name) is None:
        raise CommandError(
            "E_EXISTS", str(place / name), "is there, and was not brought in by `templates add`",
            hints=("--as NAME calls the new one otherwise",),
        )  # fmt: skip
    if not force:
        raise CommandError(
            "E_EXISTS", name, "was added before",
            hints=("--force puts the new one in its place", f"mktemplate templates remove {name}"),
        )  # fmt: skip


def known(place: Path, name: str) -> Added:
    """Return the record of the template `name`; E_NOTFOUND where it was not brought in."""
    if (found := record(place, name)) is not None:
        return found
    written = os.path.isdir(place / name)
    detail = "was not brought in by `templates add`" if written else "no such template was added"
    hints = (f"its folder is {place / name}, yours to change",) if written else ()
    raise CommandError("E_NOTFOUND", name, detail, hints=hints)


def forget(place: Path, name: str) -> None:
    """Remove the template `name` that was brought in, and its record; E_NOTFOUND where it was not."""
    known(place, name)
    try:
        with staged(place, {}) as stage, suppress(FileNotFoundError):
            os.rename(place / name, stage / name)
        (place / FOLDER / f"{name}.json").unlink()  # last, for the same reason
        fsync_directory(place)
    except OSError as problem:
        raise disk_error(problem, place) from None
