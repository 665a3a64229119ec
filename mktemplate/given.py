"""What --volume and --device give: places and names of the container settled once, inside its own root, at create."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from mktemplate import workshop
from mktemplate.arguments import Device, Volume
from mktemplate.cli import Build
from mktemplate.errors import CommandError, escape
from provisioner.sandbox import Root
from runtime import fstab as fstabs
from runtime import passwd
from runtime.fstab import MountEntry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RESERVED = ("proc", "sys", "dev", "run/mktemplate")  # F-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Lines for the container's files."""

    fstab: str = ""
    config: tuple[tuple[str, str], ...] = ()


def check(build: Build, *, flat: bool) -> None:
    """Refuse what can never be given, before anything is built."""
    for volume in build.volumes:
        shown = f"--volume {escape(volume.source)} owner={volume.owner}"
        if volume.owner and os.geteuid() != 0:
            raise CommandError(
                "E_IDMAP",
                shown,
                "a normal user may not map owners: you are root inside",
                hints=("leave :owner= out, or create the container as root",),
            )
        if volume.owner and flat:
            raise CommandError(
                "E_IDMAP", shown, "lxc-start knows no owners", hints=("leave --flat out",)
            )
    for device in build.devices:
        try:
            kind = os.stat(device.path).st_mode
        except OSError as error:
            raise CommandError(
                "E_MOUNT_SOURCE", f"--device {escape(device.path)}", f"{error.strerror}"
            ) from None
        if not (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)):
            raise CommandError("E_MOUNT_SOURCE", f"--device {escape(device.path)}", "is no device")
        if device.group and (flat or os.geteuid() != 0):
            raise CommandError(
                "E_IDMAP",
                f"--device {escape(device.path)}",
                "a group needs root, and a container that is not --flat",
            )


def settle(
    build: Build, entries: Sequence[MountEntry], root: Root, mounted: Sequence[MountEntry]
) -> Given:
    """Return the lines of what is given: `entries` are the volumes as they were understood.

    What lies below a place that the config has `mounted` must be mounted after it, so it stands there, too.
    """
    if not entries and not build.devices:
        return Given()
    wanted = {
        "targets": [entry.target for entry in entries],
        "users": [volume.owner for volume in build.volumes if volume.owner],
        "groups": [device.group for device in build.devices if device.group],
    }
    found = json.loads(workshop.sandbox().call(root, lambda: _looked_up(wanted)))
    if "refused" in found:
        raise CommandError("E_USER", found["refused"], "is neither a user nor a group inside")
    volumes = [
        _volume(volume, entry, place, found)
        for volume, entry, place in zip(build.volumes, entries, found["targets"], strict=True)
    ]
    devices = [_device(device, found) for device in build.devices]
    tops = [f"{entry.target.strip('/')}/" for entry in mounted]
    late = [volume for volume in volumes if f"{volume.target}/".startswith(tuple(tops))]
    first = [volume for volume in volumes if volume not in late]
    return Given(
        fstab=fstabs.render([*first, *devices]) if first or devices else "",
        config=(
            *(("lxc.mount.entry", fstabs.render([volume]).rstrip("\n")) for volume in late),
            *(_allowed(device) for device in build.devices),
        ),
    )


def _looked_up(wanted: dict[str, list[str]]) -> bytes:
    """Look up names and places, as the container's root; it may import nothing."""
    top = os.open("/", _DIRECTORY)
    targets = [os.path.realpath(f"/{target}").lstrip("/") for target in wanted["targets"]]
    users, groups = {}, {}
    for name in (*wanted["users"], *(f"0:{group}" for group in wanted["groups"])):
        try:
            account = passwd.find(top, name)
        except Exception:  # noqa: BLE001  # whatever it lacks, it is named outside
            return json.dumps({"refused": name.removeprefix("0:")}).encode()
        if name.startswith("0:"):
            groups[name.removeprefix("0:")] = account.gid
        else:
            users[name] = [account.uid, account.gid]
    return json.dumps({"targets": targets, "users": users, "groups": groups}).encode()


def _volume(
    volume: Volume, entry: MountEntry, place: str, found: dict[str, dict[str, list[int]]]
) -> MountEntry:
    shown = f"--volume {escape(volume.source)}"
    if not place or any(place == top or place.startswith(f"{top}/") for top in _RESERVED):
        raise CommandError("E_MOUNT_TARGET", shown, f"/{escape(place)} may not be covered")
    options = entry.options
    if volume.owner:
        status = os.stat(entry.source)
        user, group = found["users"][volume.owner]
        option = f"idmap=owner:{status.st_uid}:{status.st_gid}:{user}:{group}"
        options = (*(one for one in options if not one.startswith("idmap=")), option)
    return MountEntry(
        source=entry.source, target=place, kind="none", options=options, create=entry.create
    )


def _device(device: Device, found: dict[str, dict[str, int]]) -> MountEntry:
    options: tuple[str, ...] = ("bind", "rw", "nosuid", "noexec")
    if device.group:
        options = (*options, f"idmap=device:{found['groups'][device.group]}")
    return MountEntry(
        source=device.path,
        target=device.path.lstrip("/"),
        kind="none",
        options=options,
        create="file",
    )


def _allowed(device: Device) -> tuple[str, str]:
    status = os.stat(device.path)
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return "lxc.cgroup2.devices.allow", f"{kind} {number} rw"
