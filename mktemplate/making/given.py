"""What --volume, --device and `[[device]]` give: places and names inside, settled once, in the container's own root."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from mktemplate.cli.arguments import Device, Volume
from mktemplate.cli.parsing import Build
from mktemplate.errors import CommandError, escape
from mktemplate.making import hostpart, volumes, workshop
from mktemplate.making.volumes import Place
from mktemplate.template import grants, secretfiles
from mktemplate.template.declared import NeededDevice
from mktemplate.template.plan import Plan
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.values import read as read_value
from provisioner.sandbox import Root
from runtime import fstab as fstabs
from runtime import passwd
from runtime.fstab import MountEntry
from valuetypes import dataclass, field, replace

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RESERVED = ("proc", "sys", "dev", "run/mktemplate")  # F-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines for the container's files."""

    fstab: str = ""
    config: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is given, where it belongs."""

    volumes: tuple[MountEntry, ...] = ()
    devices: tuple[MountEntry, ...] = ()
    allowed: tuple[tuple[str, str], ...] = ()  # lines of the config


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What the caller and this host hand in, read and checked before anything is built."""

    asked: tuple[Volume, ...]  # --volume, and the template's options that are mounts
    volumes: tuple[MountEntry, ...]  # what these mean on this host
    devices: tuple[Device, ...]
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def found(spec: TemplateSpec, build: Build, store: Path, *, userns: bool) -> Handed:
    """Return what is handed in, without secrets; refuse what can never be given."""
    wanted = devices(spec, build)
    check(build, wanted, flat=build.flat)
    asked = (*build.volumes, *mounts(spec, build))
    return Handed(
        asked=asked,
        volumes=hostpart.volumes(asked, store, build.grants, userns=userns),
        devices=wanted,
    )


def mounts(spec: TemplateSpec, build: Build) -> tuple[Volume, ...]:
    """Return the options of type mount as volumes, read-only; --volume at the same place takes theirs.

    Files of the host's owner are the option's owner's, where this user and this container can have it so.
    """
    taken = {volume.target.rstrip("/") for volume in build.volumes}
    owned = os.geteuid() == 0 and not build.flat
    values = dict(build.sets)
    return tuple(
        Volume(
            source=str(read_value(option, values[option.name])),
            target=option.at,
            read_only=True,
            owner=option.owner if owned else "",
        )
        for option in spec.options
        if option.type == "mount" and values.get(option.name) and option.at not in taken
    )


def read(spec: TemplateSpec, build: Build, store: Path, *, userns: bool) -> Handed:
    """Return what is handed in, with the secrets; refuse what can never be given."""
    secrets = secretfiles.read(spec.secrets, build.secrets, spec.name)
    return replace(found(spec, build, store, userns=userns), secrets=secrets)


def hand_over(plan: Plan, handed: Handed, build: Build, place: Place) -> Lines:
    """Put what is handed in, and the volumes of the template, where they belong; return the lines of it."""
    if handed.secrets:
        workshop.sandbox().call(place.root, lambda: secretfiles.write(handed.secrets))
    settled = settle(handed.asked, handed.volumes, handed.devices, place.root)
    taken = {entry.target for entry in settled.volumes}
    managed = volumes.lay(plan.spec.volumes, taken, place, userns=plan.facts.userns)
    return lines(settled, managed, plan.mount_entries)


def devices(spec: TemplateSpec, build: Build) -> tuple[Device, ...]:
    """Return the devices that a container gets: the caller's, and those that its template needs and this host has."""
    found = [_needed(spec, device, build) for device in spec.devices]
    own = {device.path for device in build.devices}
    return (*build.devices, *(device for device in found if device and device.path not in own))


def _needed(spec: TemplateSpec, needed: NeededDevice, build: Build) -> Device | None:
    """Return a device of the template's, None where it is optional and cannot be had."""
    granted = f"device:{needed.path}" in grants.given(spec, build.grants)
    if needed.optional and not (spec.trusted or granted):
        return None
    device = Device(path=needed.path, group=needed.group)
    if needed.optional:
        try:
            _check_device(device, flat=build.flat)
        except CommandError:
            return None
    return device


def check(build: Build, wanted: Sequence[Device], *, flat: bool) -> None:
    """Refuse what can never be given, before anything is built; `wanted` are the devices."""
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
    for device in wanted:
        _check_device(device, flat=flat)


def _check_device(device: Device, *, flat: bool) -> None:
    shown = f"--device {escape(device.path)}"
    try:
        kind = os.stat(device.path).st_mode
    except OSError as error:
        raise CommandError("E_MOUNT_SOURCE", shown, f"{error.strerror}") from None
    if not (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)):
        raise CommandError("E_MOUNT_SOURCE", shown, "is no device")
    if device.group and (flat or os.geteuid() != 0):
        raise CommandError(
            "E_IDMAP", shown, "a group needs root, and a container that is not --flat"
        )


def settle(
    given: Sequence[Volume], entries: Sequence[MountEntry], wanted: Sequence[Device], root: Root
) -> Given:
    """Return what is given, settled inside `root`: `entries` are the volumes `given` as they were understood."""
    if not entries and not wanted:
        return Given()
    names = {
        "targets": [entry.target for entry in entries],
        "users": [volume.owner for volume in given if volume.owner],
        "groups": [device.group for device in wanted if device.group],
    }
    found = json.loads(workshop.sandbox().call(root, lambda: _looked_up(names)))
    if "refused" in found:
        raise CommandError("E_USER", found["refused"], "is neither a user nor a group inside")
    return Given(
        volumes=tuple(
            _volume(volume, entry, place, found)
            for volume, entry, place in zip(given, entries, found["targets"], strict=True)
        ),
        devices=tuple(_device(device, found) for device in wanted),
        allowed=tuple(_allowed(device) for device in wanted),
    )


def lines(given: Given, managed: Sequence[MountEntry], mounted: Sequence[MountEntry]) -> Lines:
    """Return the lines of what is given and of the `managed` volumes, parents before children.

    What lies below a place that the config has `mounted` must be mounted after it, so it stands there, too.
    """
    bound = sorted((*managed, *given.volumes), key=lambda entry: entry.target.count("/"))
    tops = tuple(f"{entry.target.strip('/')}/" for entry in mounted)
    late = [entry for entry in bound if f"{entry.target}/".startswith(tops)]
    first = [entry for entry in bound if entry not in late]
    return Lines(
        fstab=fstabs.render([*first, *given.devices]) if first or given.devices else "",
        config=(
            *(("lxc.mount.entry", fstabs.render([entry]).rstrip("\n")) for entry in late),
            *given.allowed,
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
