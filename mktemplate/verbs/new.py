"""`new`: a template to begin with, commented, that works as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.template import library
from provisioner.disk import disk_error

_START = "_new"  # among the built-in ones


def new(request: Request, console: Console) -> int:
    """Write DIR/NAME; what lies there already is left alone (E_EXISTS)."""
    name = request.words[0]
    library.check_name(name)
    place = Path(request.words[1] if len(request.words) > 1 else ".") / name
    if os.path.lexists(place):
        raise CommandError("E_EXISTS", escape(str(place)), "is there already")
    try:
        files = _write(place, name)
    except OSError as problem:
        raise disk_error(problem, place) from None
    console.result({"name": name, "path": str(place.absolute()), "files": files}, "")
    console.step(f"wrote {place}: {', '.join(files)}")
    console.step(f"it works as it is: mktemplate check {place}; mktemplate test-template {place}")
    return 0


def _write(place: Path, name: str) -> list[str]:
    start = library.built_in()
    own = [each for each in start.names(_START) if each != "files"]
    files = [*own, *(f"files/{each}" for each in start.names(f"{_START}/files"))]
    (place / "files").mkdir(parents=True)
    for file in files:
        text = start.read(f"{_START}/{file}").decode()
        text = text.replace("@NAME@", name).replace("@ACCOUNT@", account(name))
        (place / file).write_text(text, encoding="utf-8")
    return files


def account(name: str) -> str:
    """Return the name of a template as that of an account may be: letters, digits, `_` and `-`, at most 31."""
    plain = re.sub(r"[^a-z0-9_-]", "-", name)[:30]
    return plain if plain[0].isalpha() else f"_{plain}"
