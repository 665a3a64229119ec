"""Which keys a template may write (security.md 2.4). A container's own config may hold every key of LXC.

These lists bind what templates render and what images, archives and snapshots bring along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol

from runtime.errors import ConfigError
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
    "lxc.mount.entry": _any,  # bound by the rules of fstab
    "lxc.mount.auto": _is("proc:mixed", "sys:ro", "proc", "proc:mixed sys:ro"),
    "lxc.net.0.type": _is("veth", "empty"),  # never none: in LXC that is the host's network
    "lxc.net.0.flags": _any,
    "lxc.net.0.link": _is("mkt0"),
    "lxc.net.0.name": _any,
    "lxc.net.0.ipv4.address": _any,
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
_PREFIXES = ("lxc.rootfs.", "lxc.prlimit.", "lxc.sysctl.")


def templates_may_write(key: str, value: str | None = None) -> bool:
    """Whether a template may write `key`, and `value` for it where one is given."""
    allowed = _ALLOWED.get(key)
    if allowed is None:
        return key.startswith(_PREFIXES)
    return value is None or allowed(value)


def check_grants(lines: Iterable[_Line], granted: frozenset[str] = frozenset()) -> None:
    """Raise ConfigError (E_CONFIG_GRANT) for the first line that no template may write and nobody has granted.

    `granted` holds whole keys; `lxc.no_new_privs` there is the template's own `needs_setuid`.
    """
    problems = [_refusal(line) for line in lines if not _may(line, granted)]
    if problems:
        first, *others = problems
        first.also = tuple(others)
        raise first


def _may(line: _Line, granted: frozenset[str]) -> bool:
    return line.key in granted or templates_may_write(line.key, line.value)


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
    return ConfigError(
        "E_CONFIG_GRANT", f"{line.source}:{line.line}", detail, path=line.source, line=line.line
    )
