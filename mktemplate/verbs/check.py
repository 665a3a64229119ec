"""`check` and `config`: reading texts as those who consume them do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.places import containers_path
from mktemplate.template.finding import Finding
from runtime import config as configs
from runtime.bundle import replace_file
from runtime.container import Container
from valuetypes import replace


def check(request: Request, console: Console) -> int:
    """Check templates, fstabs and configurations; 2 if there is an error (with --strict also a warning)."""
    found: list[Finding] = []
    for word in request.words:
        found += _check(Path(word), request, console)
    if request.flags.strict:
        found = [replace(finding, severity="error") for finding in found]
    wrong = any(finding.severity == "error" for finding in found)
    rows = [
        {
            "severity": finding.severity,
            "code": finding.code,
            "path": finding.path,
            "line": finding.line,
            "detail": finding.detail,
        }
        for finding in found
    ]
    console.result({"ok": not wrong, "findings": rows}, "\n".join(map(str, found)))
    return 2 if wrong else 0


def _check(path: Path, request: Request, console: Console) -> Iterator[Finding]:
    if path.is_dir():
        from mktemplate.authoring.proof import prove  # here: only templates need Jinja

        yield from prove(path, request, console, online=request.flags.online)
        return
    if not os.access(path, os.R_OK) or not path.is_file():
        raise CommandError("E_USAGE", escape(str(path)), "cannot be read as a file")
    from runtime.check import check_config, check_fstab

    is_fstab = path.name == "fstab" or path.suffix == ".fstab"
    for found in check_fstab(path) if is_fstab else check_config(path):
        yield Finding(
            severity=found.severity,
            code=found.code,
            path=str(found.path or path),
            line=found.line or 1,
            detail=found.detail,
        )


def config(request: Request, console: Console) -> int:
    """Read or change the LXC configuration of a container; it is validated before it is written."""
    path, name = containers_path(request), container_name(request.words[0])
    container = Container(path, name)
    file = container.bundle.config
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    action, *rest = request.words[1:]
    lines = configs.read(text, str(file))[0]
    if action == "show":
        console.result({"name": name, "config": text}, text)
        return 0
    if action == "get" and len(rest) == 1:
        values = [line.value for line in lines if line.key == rest[0]]
        if not values:
            configs.parse(f"{rest[0]} =\n", "KEY")  # an unknown key is E_CONFIG_KEY
        console.result({"key": rest[0], "values": values}, "\n".join(values))
        return 0
    if action == "set" and len(rest) == 2:
        _write(file, text, rest[0], f"{rest[0]} = {rest[1]}\n")
        return 0
    if action == "unset" and len(rest) == 1:
        _write(file, text, rest[0], "")
        return 0
    raise CommandError(
        "E_USAGE",
        f"config {escape(action)}",
        "get KEY, set KEY VALUE, unset KEY or show",
        hints=("mktemplate help config",),
    )


def _write(file: Path, text: str, key: str, line: str) -> None:
    """Replace every line of `key` by `line`, at the place of the first; refuse what would not load."""
    if any(ord(char) < 0x20 for char in line.rstrip("\n")):
        raise CommandError("E_CONFIG_VALUE", escape(key), "contains a control byte")
    if not line:
        configs.parse(f"{text}\n{key} =\n", str(file))  # an unknown one cannot be taken out
    kept, placed = [], False
    for old in text.splitlines(keepends=True):
        if old.partition("=")[0].strip() != key:
            kept.append(old)
        elif not placed:
            kept.append(line)
            placed = True
    if not placed:
        kept.append(line)
    fresh = "".join(kept)
    configs.parse(fresh, str(file))
    replace_file(file, fresh.encode("utf-8", "surrogateescape"), 0o644)
