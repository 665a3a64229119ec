"""Managed volumes: PATH/NAME/volumes/VOLUME, a directory for each `[[volume]]` of the template, made at create.

It belongs to its user inside and holds what the layers have at its path, as docker's volumes do. It is put together
inside the container's own root, where nothing else is in reach, and moved out by a rename.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

from mktemplate.errors import CommandError
from mktemplate.making import workshop
from mktemplate.making.hostpart import may_map
from mktemplate.template.declared import DataVolume
from provisioner.sandbox import Root
from runtime import copytree, passwd
from runtime.errors import LaunchError, ResourceError
from runtime.fstab import MountEntry
from valuetypes import dataclass

FOLDER = "volumes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a container is put together, and where it will be."""

    root: Root
    draft: Path
    final: Path  # PATH/NAME


def lay(
    wanted: Sequence[DataVolume], taken: Collection[str], place: Place, *, userns: bool
) -> tuple[MountEntry, ...]:
    """Make the volumes of a container, but for those at places that are `taken`; return their entries.

    One that lies at the container's final place already stays as it is. CommandError: E_USER for an owner that the
    container has not, E_NOSPACE and others for the disk.
    """
    if not wanted:
        return ()
    stage = f".volumes.{secrets.token_hex(8)}"
    there = os.listdir(place.final / FOLDER) if (place.final / FOLDER).is_dir() else []
    answer = json.loads(
        workshop.sandbox().call(place.root, lambda: _fill(wanted, taken, there, stage))
    )
    if "code" in answer:
        raise CommandError(answer["code"], answer["subject"], answer["detail"])
    _move_out(place, stage)
    mapped = ("idmap=container",) if userns and may_map() else ()
    return tuple(
        MountEntry(
            source=str(place.final / FOLDER / name),
            target=target,
            kind="none",
            options=("bind", "rw", "nosuid", "nodev", *mapped),
            create="dir",
        )
        for name, target in answer["made"]
    )


def _fill(
    wanted: Sequence[DataVolume], taken: Collection[str], there: Collection[str], stage: str
) -> bytes:
    """Make the directories below /STAGE and say where they belong, as the container's root; it may import nothing."""
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.mkdir(stage, 0o700, dir_fd=top)
    made = []
    for volume in wanted:
        target = os.path.realpath(volume.path).lstrip("/")
        if target in taken:
            continue
        made.append((volume.name, target))
        if volume.name in there:
            continue
        try:
            account = passwd.find(top, f"{volume.owner}:{volume.group}".rstrip(":"))
            _make(volume, target, f"{stage}/{volume.name}", (account.uid, account.gid))
        except (LaunchError, ResourceError) as error:
            subject = f"volume {volume.name}, {error.subject}"
            why = {"code": error.code, "subject": subject, "detail": error.detail}
            return json.dumps(why).encode()
    return json.dumps({"made": made}).encode()


def _make(volume: DataVolume, target: str, path: str, owner: tuple[int, int]) -> None:
    os.mkdir(f"/{path}")
    if not volume.fresh and os.path.isdir(f"/{target}"):
        copytree.copy(Path("/"), target, path)
    os.chown(f"/{path}", *owner)
    os.chmod(f"/{path}", volume.mode)


def take_in(draft: Path, directory: Path) -> None:
    """Move the volumes that a draft has beyond those of the container in `directory` there."""
    if not (draft / FOLDER).is_dir():
        return
    (directory / FOLDER).mkdir(mode=0o711, exist_ok=True)
    _move(directory.parent, draft / FOLDER, directory / FOLDER)


def _move_out(place: Place, stage: str) -> None:
    """Move what was made out of the container's root, below the draft's volumes."""
    (place.draft / FOLDER).mkdir(mode=0o711)
    _move(place.draft, place.root.upper / stage, place.draft / FOLDER)


def _move(top: Path, source: Path, target: Path) -> None:
    """Move all that is in `source` to `target`, both below `top`, and remove it; a normal user's ids own it."""
    owners = workshop.owners()
    if owners is None:
        _rename_all(source, target)
        return
    inside = Path("/") / source.relative_to(top), Path("/") / target.relative_to(top)
    owners.call(Root(upper=top), lambda: _rename_all(*inside))


def _rename_all(source: Path, target: Path) -> bytes:
    for name in os.listdir(source):
        os.rename(source / name, target / name)
    os.rmdir(source)
    return b""
