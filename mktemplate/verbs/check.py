"""`check` and `config`: reading texts as those who consume them do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, Several, escape, escape_message
from mktemplate.places import containers_path
from runtime import config as configs
from runtime.bundle import replace_file
from runtime.container import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a text."""

    severity: str  # error, warning
    code: str
    path: str
    line: int
    detail: str


def check(request: Request, console: Console) -> int:
    """Check templates, fstabs and configurations; 2 if there is an error (with --strict also a warning)."""
    found: list[Finding] = []
    for word in request.words:
        found += _check(Path(word))
    if request.flags.strict:
        found = [_as_error(finding) for finding in found]
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
    lines = (
        f"{finding.path}:{finding.line}: {finding.severity}[{finding.code}]: "
        f"{escape_message(finding.detail)}"
        for finding in found
    )
    console.result({"ok": not wrong, "findings": rows}, "\n".join(lines))
    return 2 if wrong else 0


def _as_error(finding: Finding) -> Finding:
    from dataclasses import replace

    return replace(finding, severity="error")


def _check(path: Path) -> Iterator[Finding]:
    if path.is_dir():
        yield from _check_template(path)
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


def _check_template(path: Path) -> Iterator[Finding]:
    """Render a template for every distribution and release that it names, and read everything back."""
    from mktemplate import facts, library, texts
    from mktemplate.cli import Build
    from mktemplate.values import settle
    from provisioner import distro as distros

    try:
        template = library.from_directory(str(path.absolute()), "user")
        spec = template.spec
        options = settle(spec.name, spec.options, ())
    except (CommandError, Several) as error:
        yield from _as_findings(error, path)
        return
    seen: set[Finding] = set()
    for row in distros.DISTROS.values():
        if row.name not in spec.distros and row.family not in spec.distros:
            continue
        for series in row.releases:
            target = facts.Target(
                distro=row.name, release=series.name, arch="amd64", family=row.family
            )
            try:
                texts.plan(template, facts.gather(spec, Build(), spec.name, target, options))
            except Exception as error:  # whatever the halves raise of the contract is a finding
                if not hasattr(error, "code") and not isinstance(error, Several):
                    raise
                seen.update(_as_findings(error, path))
    yield from sorted(seen, key=lambda finding: (finding.path, finding.line, finding.detail))


def _as_findings(error: Exception, path: Path) -> Iterator[Finding]:
    failures = (
        error.failures if isinstance(error, Several) else (error, *getattr(error, "also", ()))
    )
    for failure in failures:
        where = str(getattr(failure, "path", None) or path)
        subject = str(getattr(failure, "subject", ""))
        detail = str(getattr(failure, "detail", failure))
        yield Finding(
            severity="error",
            code=str(getattr(failure, "code", "E_IO")),
            path=where,
            line=int(getattr(failure, "line", None) or 1),
            detail=detail if subject.startswith(where) else f"{subject}: {detail}",
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
    configs.parse(line or f"{key} =\n", "VALUE")
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
