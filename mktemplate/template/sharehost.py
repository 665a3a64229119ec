"""What this host is, as far as `create` must know it: its distribution, its merged /usr, its programs.

Only host facts that a container of `--share-host` depends on; they are looked at when it is made, never by a template.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence

from mktemplate.errors import CommandError

_FILES = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5), in this order


def os_release() -> Mapping[str, str]:
    """Return the fields of this host's os-release(5), empty where it has none."""
    for path in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read(65536).split("\n")
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        return {key.strip(): _unquoted(value) for key, _, value in pairs}
    return {}


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value


def merged_usr() -> bool:
    """Whether /bin, /sbin and /lib of this host are links into /usr."""
    return all(os.path.islink(path) for path in ("/bin", "/sbin", "/lib"))


def check_programs(packages: Sequence[str], programs: Iterable[str]) -> None:
    """Raise E_NOTFOUND where this host lacks one of the `programs` of a template, whose own package is the first."""
    for program in programs:
        if not os.access(program, os.X_OK):
            hint = tuple(
                f"install {package} on this host, or leave out --share-host"
                for package in packages[:1]
            )
            raise CommandError(
                "E_NOTFOUND",
                program,
                "this host does not have it, so it cannot be shared",
                hints=hint,
            )
