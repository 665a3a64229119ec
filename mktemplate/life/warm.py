"""Warm snapshots: PATH/warm-TEMPLATE-DIGEST is a container that was started once, got ready, and was stopped.

What its first start did, secrets, keys, an empty database, is all in its upper layer, its volumes' data too, so that
`copies.lend` can start others from there in no time. It is never started again. The digest is that of what it was
asked for and of the template's files: where these change, another one is made. `prune` drops those that nothing
stands upon.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path

import mktemplate
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.keywords import UpOptions, request
from mktemplate.life import copies, owned, phases, renaming
from mktemplate.making import volumes, workshop
from mktemplate.template import library
from provisioner.content import OPAQUE
from provisioner.errors import StoreFailed
from provisioner.store import Store
from runtime import bundle, copytree, fstab
from runtime import config as configs
from runtime.container import Container, containers
from runtime.errors import ConfigError, StateError

_NAME = re.compile(r"warm-.+-[0-9a-f]{12}")


@contextmanager
def snapshot(template: str, options: UpOptions, path: Path) -> Iterator[Container]:
    """Give the warm snapshot of `template` with `options` below `path`, made now where it is missing.

    One process makes it, the others wait; for the length of the block nobody drops it. Raises what `up` does.
    """
    name = _name(template, json.dumps(options, sort_keys=True, default=_plain))
    found = Container(path, name)
    with closing(workshop.store(path)) as store:
        while True:
            with store.lock(_lock(name), shared=True):
                if _is_there(found):
                    yield found
                    return
            with store.lock(_lock(name)):
                if not _is_there(found):
                    _make(found, template, options)


def _lock(name: str) -> str:
    return f"warm.{name}"


def _is_there(snapshot: Container) -> bool:
    return (snapshot.directory / "config").exists()


def _make(snapshot: Container, template: str, options: UpOptions) -> None:
    with owned.lent(Container(snapshot.path, owned.name("warm"))) as seed:
        with request("up", (template, seed.name), options) as asked:
            phases.up(asked, Console(quiet=True))
        phases.stop(seed)
        _fold(seed)
        renaming.rename(seed, snapshot.name)


def prune(path: Path, store: Store, *, dry_run: bool) -> tuple[str, ...]:
    """Destroy the snapshots below `path` that nothing stands upon and nobody is about to use; return their names."""
    dropped = []
    for name in _unused(path):
        with suppress(StoreFailed, StateError), store.lock(_lock(name), wait=False):
            if name in _unused(path):  # else a copy was made since
                if not dry_run:
                    Container(path, name).destroy()
                dropped.append(name)
    return tuple(dropped)


def _unused(path: Path) -> tuple[str, ...]:
    """Return the names of the snapshots below `path` whose upper layer is below no other container."""
    found, below = [], set()
    for container in containers(path):
        with suppress(ConfigError, StateError):  # E_NOTFOUND: destroyed since it was listed
            config = container.config
            below |= {*config.rootfs_layers[:-1]}
            if _NAME.fullmatch(container.name) and "ro" in config.rootfs_options:
                found.append(container.name)
    return tuple(name for name in found if str(path / name / "upper") not in below)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return os.fspath(value) if isinstance(value, os.PathLike) else repr(value)


def _name(template: str, options: str) -> str:
    told = hashlib.sha256(f"{mktemplate.__version__}\n{options}\n".encode())
    for name, data in _files(template, json.loads(options).get("template_path", "")):
        told.update(f"{name} {len(data)}\n".encode() + data)
    return f"warm-{template[:40]}-{told.hexdigest()[:12]}"


@cache
def _files(template: str, path: str) -> tuple[tuple[str, bytes], ...]:
    """Return the files of a template, by name; none where there is no such one: `up` will say so."""
    found = library.load(template, path, os.environ)
    if found is None:
        return ()
    files = []
    for folder in ("", "files"):
        for name in found.folder.names(folder):
            with suppress(CommandError):  # a folder
                full = f"{folder}/{name}".lstrip("/")
                files.append((full, found.folder.read(full)))
    return tuple(files)


def _fold(container: Container) -> None:
    """Move the data of its volumes to where they are seen inside, in its upper layer; nothing more is written there."""
    found = container.bundle
    if found.record.flat or not found.record.layers:
        raise CommandError("E_USAGE", found.record.template, "a flat container cannot be warm")
    text = (found.path / "fstab").read_text(encoding="utf-8", errors="surrogateescape")
    entries = fstab.parse(text, str(found.path / "fstab"))
    own = f"{found.path / volumes.FOLDER}/"
    data = {e.source: e.target for e in entries if e.source.startswith(own)}
    lowers = tuple(
        os.path.relpath(layer, container.path) for layer in container.config.rootfs_layers[:-1]
    )
    moves = tuple((os.path.relpath(s, container.path), t) for s, t in data.items())

    def move() -> bytes:
        _move(Path("/") if through else container.path, f"{container.name}/upper", lowers, moves)
        return b""

    through = copies.reach()
    if through is None:
        move()
    else:
        through(container.path, move)
    kept = [line for line in text.split("\n") if not line.startswith(own)]
    bundle.replace_file(found.path / "fstab", "\n".join(kept).encode("utf-8", "surrogateescape"))
    config = found.config.read_text(encoding="utf-8", errors="surrogateescape")
    options = ",".join((*container.config.rootfs_options, "ro"))
    config += configs.render([("lxc.rootfs.options", options)])  # whoever starts it changes nothing
    bundle.replace_file(found.config, config.encode("utf-8", "surrogateescape"), 0o644)


def _move(
    top: Path, upper: str, lowers: tuple[str, ...], moves: tuple[tuple[str, str], ...]
) -> None:
    """Rename each directory to its target below `upper`; all are paths below `top`. The way is as in the layers."""
    with ExitStack() as opened:

        def directory(path: str) -> int:
            found = os.open(top / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, found)
            return found

        written, layers = directory(upper), [directory(layer) for layer in lowers]
        for source, target in moves:
            folder, _, last = target.rpartition("/")
            model = next((x for x in layers if copytree.descend(x, folder, opened) >= 0), written)
            place = copytree.follow(model, written, folder, opened)
            os.rename(top / source, last, dst_dir_fd=place)
            moved = os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            opened.callback(os.close, moved)
            os.setxattr(moved, OPAQUE, b"y")
