"""`lock`: a container's package set as a text, and what becomes of that text later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console, bytes_text
from mktemplate.errors import CommandError
from mktemplate.making import assembly, locks, supply
from mktemplate.places import containers_path
from provisioner import lock as lock_file
from provisioner.changes import Change, compare
from provisioner.lock import Lock
from provisioner.store import Store
from runtime import bundle
from valuetypes import asdict, replace

_FOUND = 1  # exit status of --check where there is something


def lock(request: Request, console: Console) -> int:
    """Print the lock of a container, or renew, check or complete the lock in a file."""
    flags, word = request.flags, request.words[0]
    asked = [name for name in ("update", "check", "fetch") if getattr(flags, name)]
    if len(asked) > 1 or (asked and flags.output):
        raise CommandError(
            "E_USAGE", "lock", "-o, --update, --check and --fetch exclude each other"
        )
    if not asked:
        return _of_container(request, console)
    with closing(assembly.store_of(containers_path(request), request.build)) as store:
        if flags.fetch:
            return _fetch(word, Path(flags.fetch), request, store, console)
        return _renew(word, request, store, console)


def _of_container(request: Request, console: Console) -> int:
    name = container_name(request.words[0])
    found = locks.of_container(bundle.read(containers_path(request) / name))
    text, target = lock_file.write(found), request.flags.output
    if target:
        _write(target, text)
        console.step(f"{name}: {len(found.chosen.packages)} packages locked in {target}")
    if console.json:
        console.document(_object(name, found, target, text))
    elif not target:
        console.text(text)
    return 0


def _object(name: str, found: Lock, file: str, text: str) -> dict[str, object]:
    return {
        "name": name,
        "file": file or None,
        "distro": found.distro,
        "release": found.release,
        "arch": found.arch,
        "epoch": found.epoch,
        "digest": found.chosen.digest,
        "wanted": list(found.chosen.wanted),
        "options": list(found.options),
        "sources": [
            {
                **asdict(source),
                "components": list(source.components),
                "signers": list(source.signers),
            }
            for source in found.sources
        ],
        "packages": [
            {"name": each.name, "version": each.version, "arch": each.arch, "sha256": each.sha256}
            for each in found.chosen.packages
        ],
        "text": text,
    }


def _renew(file: str, request: Request, store: Store, console: Console) -> int:
    """Say what today's index would change; with --update write it, unless nothing did."""
    old = locks.read_file(file)
    new = supply.renewed(old, request.build, store, console)
    changes = compare(old, new)
    if changes and request.flags.update:
        _write(file, lock_file.write(new))
        if _kept(old):
            console.note(f"the archives beside it are the old ones: lock --fetch DIR {file}")
    security = sum(change.security for change in changes)
    value = {
        "file": file,
        "updated": bool(changes and request.flags.update),
        "changes": [asdict(change) for change in changes],
        "security": security,
    }
    console.result(value, page(changes))
    console.step(f"{file}: {len(changes)} changes, {security} of them for security")
    return _FOUND if changes and request.flags.check else 0


def _kept(old: Lock) -> list[str]:
    """Return the files of a lock that are not where a mirror has them."""
    plain = lock_file.read(lock_file.write(replace(old, files=())), "lock").files
    return [file for file, usual in zip(old.files, plain, strict=True) if file != usual]


def page(changes: Sequence[Change]) -> str:
    """Return changes of a package set as lines: + added, - removed, ~ the rest."""
    signs = {"added": "+", "removed": "-"}
    return "\n".join(
        f"{signs.get(change.kind, '~')} {change.name} "
        f"{' → '.join(each for each in (change.old, change.new) if each)}: {change.kind}, {change.why}"
        for change in changes
    )


def _fetch(file: str, folder: Path, request: Request, store: Store, console: Console) -> int:
    """Bring the archives of a lock into a folder beside it, and note in it that they are there."""
    from provisioner import keep
    from provisioner.download import download
    from provisioner.fetch import HttpFetch

    store.prepare()
    found, beside = locks.read_file(file), locks.beside(file)
    packages = found.chosen.packages
    with store.lock("downloads", shared=True), HttpFetch(os.environ) as fetch:
        keep.restore(found, beside=beside, cache=store.cache)
        download(packages, store.cache, fetch, console, offline=request.build.offline)
        kept = keep.keep(found, folder, beside=beside, cache=store.cache)
    _write(file, lock_file.write(kept))
    size = sum(package.size for package in packages)
    value = {"file": file, "folder": str(folder), "packages": len(packages), "size": size}
    console.result(value, f"{len(packages)} archives, {bytes_text(size)}, in {folder}")
    return 0


def _write(file: str, text: str) -> None:
    """Replace the file, whole or not at all."""
    path = Path(os.path.abspath(file))
    if not path.parent.is_dir():
        raise CommandError("E_PARAM", file, "its folder is not there")
    bundle.replace_file(path, text.encode(), 0o644)
