"""`[[volume]]`, `[[device]]`, `keep`, `[preseed]` of template.toml: what outlives a service's packages, what it needs.

Owners and groups are names inside: numbers differ between hosts and releases, so they stand in no template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mktemplate.errors import escape
from mktemplate.template import schema
from mktemplate.template.report import Report
from valuetypes import dataclass

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_PLACE = re.compile(r"(?:/[A-Za-z0-9._@+-]+){1,32}", re.ASCII)
_KEPT = re.compile(r"(?:/[A-Za-z0-9._@+-]+){0,32}/[A-Za-z0-9._@+*-]+", re.ASCII)
_VOLATILE = ("/run/", "/tmp/", "/dev/", "/proc/", "/sys/")  # noqa: S108  # names, not uses


@dataclass(frozen=True, slots=True, kw_only=True)
class DataVolume:
    """`[[volume]]`: a directory of the service's data, kept beside the container's layers."""

    name: str
    path: str  # inside
    owner: str = "root"  # a user inside
    group: str = ""  # a group inside; empty = the owner's
    mode: int = 0o755
    fresh: bool = False  # begins empty, whatever the packages have at `path`
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededDevice:
    """`[[device]]`: a device of the host."""

    path: str
    group: str = ""  # a group inside, that may use it
    optional: bool = False  # the service works without it
    help: str = ""


def volumes(value: object, report: Report) -> tuple[DataVolume, ...]:
    """Return what `[[volume]]` says."""
    found = [
        _volume(table, f"volume[{number}]", report)
        for number, table in enumerate(report.tables(value, "volume"))
    ]
    for number, volume in enumerate(found):
        if any(volume.name == other.name for other in found[:number]):
            report.add(f"volume[{number}].name", f'"{escape(volume.name)}" is another one\'s')
        if any(volume.path == other.path for other in found[:number]):
            report.add(f"volume[{number}].path", f'"{escape(volume.path)}" is another one\'s')
    return tuple(found)


def _volume(table: Mapping[str, object], where: str, report: Report) -> DataVolume:
    report.known(table, where, schema.VOLUME.names)
    defaults = {"name": "", "path": "", "owner": "root", "group": "", "mode": "0755", "help": ""}
    text = {
        key: report.text(table, key, f"{where}.{key}", default) for key, default in defaults.items()
    }
    if _NAME.fullmatch(text["name"]) is None:
        report.add(f"{where}.name", "must be a-z 0-9 _ -, first a letter or digit, at most 32")
    if not is_place(text["path"]):
        report.add(f"{where}.path", "must be an absolute path without .., outside /run and /tmp")
    for key in ("owner", "group"):
        if text[key] and ACCOUNT.fullmatch(text[key]) is None:
            report.add(f"{where}.{key}", "is no account's name")
    if _MODE.fullmatch(text["mode"]) is None:
        report.add(f"{where}.mode", 'must be octal, such as "0750"')
        text["mode"] = "0755"
    return DataVolume(
        name=text["name"],
        path=text["path"],
        owner=text["owner"],
        group=text["group"],
        mode=int(text["mode"], 8),
        fresh=report.truth(table, "fresh", f"{where}.fresh"),
        help=text["help"],
    )


def is_place(path: str) -> bool:
    """Whether `path` is absolute, plain, and on no file system that is made at each start."""
    plain = _PLACE.fullmatch(path) and not {".", ".."} & set(path.split("/"))
    return bool(plain) and not f"{path}/".startswith(_VOLATILE)


def devices(value: object, report: Report) -> tuple[NeededDevice, ...]:
    """Return what `[[device]]` says."""
    return tuple(
        _device(table, f"device[{number}]", report)
        for number, table in enumerate(report.tables(value, "device"))
    )


def _device(table: Mapping[str, object], where: str, report: Report) -> NeededDevice:
    report.known(table, where, schema.DEVICE.names)
    path = report.text(table, "path", f"{where}.path")
    group = report.text(table, "group", f"{where}.group")
    if not path.startswith("/dev/") or not _PLACE.fullmatch(path) or ".." in path.split("/"):
        report.add(f"{where}.path", "must be a path below /dev, without ..")
    if group and ACCOUNT.fullmatch(group) is None:
        report.add(f"{where}.group", "is no group's name")
    return NeededDevice(
        path=path,
        group=group,
        optional=report.truth(table, "optional", f"{where}.optional"),
        help=report.text(table, "help", f"{where}.help"),
    )


def kept(value: object, report: Report) -> tuple[str, ...]:
    """Return what `keep` says: absolute paths; the last part may hold `*`."""
    found = report.strings(value, "keep")
    for path in found:
        if _KEPT.fullmatch(path) is None or {".", ".."} & set(path.split("/")):
            report.add(
                "keep", f'"{escape(path)}" is no absolute path (only its last part may hold *)'
            )
    return found


def preseed(value: object, report: Report) -> Mapping[str, str]:
    """Return what `[preseed]` says: paths below /etc, each with the text of its lines."""
    if not isinstance(value, dict):
        report.add("preseed", "must be a table: path → list of lines")
        return {}
    found = {}
    for path, lines in value.items():
        if not is_place(path) or not path.startswith("/etc/"):
            report.add(f"preseed.{path}", "must be a path below /etc, without ..")
        found[path] = "".join(f"{line}\n" for line in report.strings(lines, f"preseed.{path}"))
    return found
