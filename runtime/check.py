"""What is wrong with a config or an fstab, all of it, without starting anything.

For a config an `error` is what liblxc 6 refuses to load, or what nobody can mean and we refuse on purpose
(STRICTER); a `warning` is what LXC 7 refuses, what LXC ignores silently, and what a start of ours refuses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from runtime import config, fstab
from runtime.config import Line, Problem
from runtime.errors import ConfigError
from runtime.keys import IGNORED, REFUSED, VERSION
from runtime.refuse import refuse
from valuetypes import dataclass

ERROR, WARNING = "error", "warning"

# Where liblxc 6 loads what we refuse, and why. docs/lxc-keys.md lists it.
STRICTER = {
    "a NUL byte": "liblxc cuts the value there and ignores the rest of the file",
    "a byte order mark": "liblxc takes the first line for a comment and drops it",
    "a carriage return inside a line": "liblxc takes what follows for a line of its own",
    "lxc.mount.entry of fewer than four fields": "liblxc fails at start, or mounts with no options at all",
    "a missing seccomp file": "liblxc fails at start only",
    "lxc.prlimit. with no name after the dot": "liblxc fails at start",
    "includes that are more than 16 deep": "liblxc follows a loop until it crashes",
}
_STRICT_ENTRY = "E_FSTAB_SYNTAX"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where."""

    severity: str  # "error" or "warning"
    code: str
    path: str
    line: int
    detail: str


def check_config(path: str | os.PathLike[str]) -> list[Finding]:
    """Return what is wrong with the config at `path`, in the order of its lines."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            text = file.read(config.MAX_BYTES + 1).decode("utf-8", "surrogateescape")
    except OSError as error:
        return [_finding(ERROR, "E_USAGE", name, 0, error.strerror or "cannot be read")]
    if len(text) > config.MAX_BYTES:
        return [_finding(ERROR, "E_CONFIG_VALUE", name, 0, f"larger than {config.MAX_BYTES} bytes")]
    lines, problems = config.read(text, name)
    expanded, more = config.expand(lines)
    settings, bad = config.examine(expanded)
    findings = [_of_problem(problem) for problem in (*problems, *more, *bad)]
    findings += _strays(text, name)
    for line in expanded:
        findings += _of_key(line)
    findings += _seccomp(expanded, settings.seccomp_profile)
    try:
        refuse(settings)
    except ConfigError as error:
        key = error.subject.split(" ")[0]
        where = next((line for line in expanded if line.key.startswith(key)), None)
        if where is not None and error.subject not in REFUSED:
            detail = f"start refuses {error.subject}: {error.detail}"
            findings.append(_finding(WARNING, error.code, where.source, where.line, detail))
    return sorted(findings, key=lambda found: (found.path != name, found.path, found.line))


def check_fstab(path: str | os.PathLike[str]) -> list[Finding]:
    """Return what is wrong with the fstab at `path`, a user's own."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            text = file.read(config.MAX_BYTES).decode("utf-8", "surrogateescape")
        fstab.parse(text, name)
    except OSError as error:
        return [_finding(ERROR, "E_USAGE", name, 0, error.strerror or "cannot be read")]
    except ConfigError as error:
        return [
            _finding(ERROR, one.code, name, one.line or 0, one.detail)
            for one in (error, *error.also)
        ]
    return []


def _finding(severity: str, code: str, path: str, line: int, detail: str) -> Finding:
    return Finding(severity=severity, code=code, path=path, line=line, detail=detail)


def _of_problem(problem: Problem) -> Finding:
    strict = problem.code == _STRICT_ENTRY and "fields" in problem.detail
    severity = WARNING if problem.loads and not strict else ERROR
    ours = "; liblxc 6 loads it all the same" if problem.loads else ""
    return _finding(severity, problem.code, problem.path, problem.line, problem.detail + ours)


def _strays(text: str, path: str) -> Iterator[Finding]:
    """Yield the lines that LXC takes for comments though they are none."""
    for number, raw in enumerate(text.split("\n"), 1):
        content = raw.strip(" \t\r")
        if content and not content.startswith(("#", "lxc.", "\ufeff")) and "\0" not in content:
            detail = "LXC ignores a line that does not begin with lxc. (write # before a comment)"
            yield _finding(WARNING, "E_CONFIG_KEY", path, number, detail)


def _of_key(line: Line) -> Iterator[Finding]:
    for name, reason in REFUSED.items():
        if line.key == name:
            yield _finding(
                WARNING, "E_CONFIG_KEY", line.source, line.line, f"start refuses {name}: {reason}"
            )
    for name, reason in IGNORED.items():
        if line.key == name:
            yield _finding(
                WARNING, "E_CONFIG_KEY", line.source, line.line, f"{name} has no effect: {reason}"
            )
    for name, version in VERSION.items():
        below = line.key == name or line.key.startswith(f"{name}.")
        ours = name != "lxc.cgroup" or not line.key.startswith(
            ("lxc.cgroup.dir", "lxc.cgroup.relative")
        )
        if below and ours and version == 6:
            detail = f'LXC 7 does not know "{line.key}" (write lxc.cgroup2.*)'
            yield _finding(WARNING, "E_CONFIG_KEY", line.source, line.line, detail)
        elif below and version == 7:
            detail = f'"{line.key}" is known to LXC 7 only; start does it'
            yield _finding(ERROR, "E_CONFIG_KEY", line.source, line.line, detail)


def _seccomp(lines: Sequence[Line], profile: str) -> Iterator[Finding]:
    if profile and not os.path.isfile(profile):
        line = next(line for line in reversed(lines) if line.key == "lxc.seccomp.profile")
        yield _finding(
            ERROR, "E_CONFIG_VALUE", line.source, line.line, f"{profile}: there is no such file"
        )
