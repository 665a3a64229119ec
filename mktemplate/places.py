"""Where containers live: --path, MKTEMPLATE_PATH, else the place of root or of the user (cli.md)."""

from __future__ import annotations

import os
from pathlib import Path

from mktemplate.cli.parsing import Request

_ROOTS = "/var/lib/mktemplate"


def containers_path(request: Request) -> Path:
    """Return the PATH of a request, absolute; nothing is made."""
    return resolve(request.path)


def resolve(given: str | os.PathLike[str] = "") -> Path:
    """Return PATH where `given` may say where it is, absolute; nothing is made."""
    given = given or os.environ.get("MKTEMPLATE_PATH", "")
    if given:
        return Path(os.path.abspath(given))
    if os.geteuid() == 0:
        return Path(_ROOTS)
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "mktemplate"
