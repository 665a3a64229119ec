"""Which keys a template may write (security.md 2.4). A container's own config may hold every key of LXC.

These lists bind what templates render and what images, archives and snapshots bring along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from runtime import fstab
from runtime.errors import ConfigError, raise_all
from runtime.fstab import Sources
from runtime.readers import Misread, integer


class _Line(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def line(self) -> int: ...


def _any(_value: str) -> bool:
    return True


def _is(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


def _at_most(most: int) -> Callable[[str], bool]:
    def fits(value: str) -> bool:
        try:
            return integer(value) <= most
        except Misread:
            return False

    return fits


# key → which values of it
_ALLOWED: dict[str, Callable[[str], bool]] = {
    "lxc.uts.name": _any,
    "lxc.mount.entry": bool,  # bound by the rules of fstab; clearing the list would unmask
    "lxc.mount.auto": _is("proc:mixed", "sys:ro", "proc", "proc:mixed sys:ro"),
    "lxc.cap.drop": bool,  # only subtracting: clearing the list would add
    "lxc.no_new_privs": _is("1"),
    "lxc.cgroup2.memory.max": _any,
    "lxc.cgroup2.memory.oom.group": _any,
    "lxc.cgroup2.pids.max": _any,
    "lxc.cgroup2.cpu.weight": _any,
    "lxc.cgroup2.cpu.max": _any,
    "lxc.environment": _any,
    "lxc.init.cmd": _any,
    "lxc.init.uid": _any,
    "lxc.init.gid": _any,
    "lxc.init.cwd": _any,
    "lxc.signal.halt": _any,
    "lxc.signal.stop": _any,
    "lxc.tty.max": _at_most(4),
    "lxc.pty.max": _at_most(64),
    "lxc.autodev": _is("1"),
    "lxc.start.auto": _any,
}
_PREFIXES = ("lxc.prlimit.", "lxc.sysctl.")


def templates_may_write(key: str, value: str | None = None) -> bool:
    """Whether a template may write `key`, and `value` for it where one is given."""
    allowed = _ALLOWED.get(key)
    if allowed is None:
        return key.startswith(_PREFIXES)
    return value is None or allowed(value)


def check_grants(lines: Iterable[_Line], sources: Sources | None = None) -> None:
    """Raise ConfigError for the first line that no template may write, with the others in `also`.

    E_CONFIG_GRANT, or the code of an fstab's rule for a mount entry; it may bind host paths below `sources` only.
    """
    raise_all([problem for line in lines for problem in _problems(line, sources)])


def _problems(line: _Line, sources: Sources | None) -> Iterator[ConfigError]:
    if not templates_may_write(line.key, line.value):
        yield _refusal(line)
    elif line.key == "lxc.mount.entry":
        try:
            fstab.parse(line.value, line.source, from_template=True, sources=sources)
        except ConfigError as error:
            for each in (error, *error.also):
                yield _told(line, each.code, each.detail)


def _refusal(line: _Line) -> ConfigError:
    allowed_key = templates_may_write(line.key)
    family = re.sub(
        r"^(lxc\.(?:hook|apparmor|selinux|seccomp|namespace|monitor|raw))\..*", r"\1.*", line.key
    )
    detail = (
        f'"{line.value}" may not be what a template gives {line.key}'
        if allowed_key
        else f"{family} may not come from a template"
    )
    return _told(line, "E_CONFIG_GRANT", detail)


def _told(line: _Line, code: str, detail: str) -> ConfigError:
    return ConfigError(code, f"{line.source}:{line.line}", detail, path=line.source, line=line.line)
