"""A container's configuration in memory, line by line: what python3-lxc's get, set, append and clear work on.

Every key says what liblxc 6 says for it. Comments stay where they stand; nothing is on disk until it is saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runtime import config as configs
from runtime.keys import BY_NAME, NET_BY_NAME, VERSION, Key, ListKey, PairKey, nic_kind
from valuetypes import dataclass

_HOOKS = (
    *("autodev", "clone", "destroy", "mount", "post-stop", "pre-mount", "pre-start"),
    *("start", "start-host", "stop"),
)
_NET = re.compile(r"lxc\.net\.([0-9]+)(?:\.(.+))?", re.ASCII)
# Keys whose lines hold several words, each of which is a value of its own to liblxc.
_WORDS = ("lxc.cap.drop", "lxc.cap.keep", "lxc.namespace.keep", "lxc.namespace.clone")
# Keys whose values come back as one string.
_JOINED = {"lxc.mount.auto": " ", "lxc.init.groups": ",", "lxc.idmap": "\n"}
_UNREADABLE = ("lxc.hook", "lxc.include")
# What an unset key says, where it is not "".
_UNSET = {
    **dict.fromkeys(
        (
            *("lxc.apparmor.allow_incomplete", "lxc.apparmor.allow_nesting", "lxc.cgroup.relative"),
            *("lxc.autodev.tmpfs.size", "lxc.console.buffer.size", "lxc.console.rotate"),
            *("lxc.console.size", "lxc.sched.core", "lxc.ephemeral", "lxc.hook.version"),
            *("lxc.init.gid", "lxc.init.uid", "lxc.keyring.session", "lxc.monitor.unshare"),
            *("lxc.no_new_privs", "lxc.pty.max", "lxc.seccomp.allow_nesting", "lxc.signal.halt"),
            *("lxc.signal.reboot", "lxc.signal.stop", "lxc.start.auto", "lxc.start.delay"),
            *("lxc.start.order", "lxc.tty.max"),
        ),
        "0",
    ),
    "lxc.autodev": "1",
    "lxc.log.level": "NOTSET",
    "lxc.monitor.signal.pdeath": "9",
    "lxc.rootfs.managed": "1",
    "lxc.time.offset.boot": "0ns",
    "lxc.time.offset.monotonic": "0ns",
}


@dataclass(frozen=True, slots=True)
class _Line:
    text: str  # of a comment
    key: str = ""
    value: str = ""


class Settings:
    """The lines of a configuration."""

    def __init__(self, text: str = "") -> None:
        """Read `text`; ValueError where liblxc would not load it."""
        self._lines: list[_Line] = []
        self.load(text)

    def load(self, text: str) -> None:
        """Read `text` on top of what is there; ValueError where liblxc would not load it."""
        found, problems = configs.read(text, "config")
        if bad := [one for one in problems if not one.loads]:
            raise ValueError(bad[0].detail)
        by_number = {line.line: line for line in found}
        for number, raw in enumerate(text.rstrip("\n").split("\n") if text else (), 1):
            if line := by_number.get(number):
                if not self.take(line.key, line.value):
                    raise ValueError(f"{line.key} = {line.value}")
            else:
                self._lines.append(_Line(raw))

    def text(self) -> str:
        """Return what parses back to this."""
        return "".join(
            configs.render([(line.key, line.value)]) if line.key else f"{line.text}\n"
            for line in self._lines
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self._lines == other._lines

    __hash__ = None  # type: ignore[assignment]  # it changes

    def take(self, key: str, value: str) -> bool:
        """Do what a line `key = value` does: add to a list, replace another value, clear by nothing; whether it may."""
        if not value:
            return self.clear(key)
        new = configs.Line(key=key, value=value, source="config", line=1)
        type_ = _type_before(self.pairs(), key)
        _, problems = configs.examine((*type_, new))
        if any(not one.loads for one in problems):
            return False
        if not _adds_up(key):
            self._drop(key)
        self._lines.append(_Line("", key, value))
        return True

    def clear(self, key: str) -> bool:
        """Forget what `key` says, and with a family like lxc.net.0 or lxc.cgroup2 what each of it says."""
        match = _NET.fullmatch(key)
        nets = key == "lxc.net" or (match is not None and match[2] is None)
        if not nets and not _known(key):
            return False
        family = nets or _is_family(key)
        gone = {line.key for line in self._lines if family and line.key.startswith(f"{key}.")}
        for one in (key, *gone):
            self._drop(one)
        return True

    def get(self, key: str) -> str | list[str]:
        """Return what liblxc's get says of `key`; KeyError where there is no such key, or none that can be read."""
        if not self._lines or not _known(key) or key in _UNREADABLE:
            raise KeyError("Invalid configuration key")
        if match := _NET.fullmatch(key):
            return self._get_net(key, match)
        if _is_family(key):
            return self._family(key) or ""
        values = self._values(key)
        if key in _JOINED:
            return _JOINED[key].join(values)
        if _adds_up(key):
            return values or ""
        return _told(key, values[-1]) if values else _UNSET.get(key, "")

    def _family(self, key: str) -> list[str]:
        """Return the types of all nics, or each line of a family as it is written."""
        if key == "lxc.net":
            return [value for name, value in self.pairs() if name.endswith(".type")]
        return [f"{name} = {value}" for name, value in self.pairs() if name.startswith(f"{key}.")]

    def keys(self, key: str | None = None) -> list[str]:
        """Return the keys there are, or what may follow lxc.net.N; KeyError where that nic is not there."""
        if not key:
            pairs = [f"lxc.hook.{name}" for name in _HOOKS]
            return [*pairs, "lxc.net", *(name for name in BY_NAME if VERSION.get(name) != 7)]
        match = _NET.fullmatch(key)
        if match is not None and match[2] is None and (kind := self._values(f"{key}.type")):
            return [name for name in NET_BY_NAME if _has(kind[-1], name)]
        below = [name.removeprefix(f"{key}.") for name in BY_NAME if name.startswith(f"{key}.")]
        if not below:
            raise KeyError("Invalid configuration key")
        return below

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return its lines, without comments."""
        return tuple((line.key, line.value) for line in self._lines if line.key)

    def _values(self, key: str) -> list[str]:
        found = [value for name, value in self.pairs() if name == key]
        return [word for value in found for word in value.split()] if key in _WORDS else found

    def _get_net(self, key: str, match: re.Match[str]) -> str:
        if match[2] not in NET_BY_NAME or not self._values(f"lxc.net.{match[1]}.type"):
            raise KeyError("Invalid configuration key")
        return "\n".join(self._values(key))

    def _drop(self, key: str) -> None:
        self._lines = [line for line in self._lines if line.key != key]


def _type_before(pairs: tuple[tuple[str, str], ...], key: str) -> Iterator[configs.Line]:
    """Yield the line that says of which type a nic is: without it its other keys mean nothing."""
    if match := _NET.fullmatch(key):
        for name, value in pairs:
            if name == f"lxc.net.{match[1]}.type":
                yield configs.Line(key=name, value=value, source="config", line=1)


def _is_family(key: str) -> bool:
    return key == "lxc.net" or isinstance(BY_NAME.get(key), PairKey)


def _known(key: str) -> bool:
    if match := _NET.fullmatch(key):
        return match[2] in NET_BY_NAME
    return (
        key == "lxc.net"
        or (key in BY_NAME and VERSION.get(key) != 7)
        or any(
            key.startswith(f"{name}.") for name, row in BY_NAME.items() if isinstance(row, PairKey)
        )
    )


def _adds_up(key: str) -> bool:
    """Whether a further line of `key` adds to what is there."""
    if match := _NET.fullmatch(key):
        return isinstance(NET_BY_NAME.get(match[2]), ListKey)
    if row := BY_NAME.get(key):
        return isinstance(row, ListKey)
    family = max((name for name in BY_NAME if key.startswith(f"{name}.")), key=len, default="")
    found = BY_NAME.get(family)
    return isinstance(found, PairKey) and not found.replaces


def _has(kind: str, name: str) -> bool:
    """Whether a nic of the type `kind` has the subkey `name`."""
    if name == "type" or name.startswith("script."):
        return True
    return nic_kind(name) in {"", kind} and kind not in {"empty", "none"}


def _told(key: str, value: str) -> str:
    """Return a value as liblxc tells it: signals and sizes as numbers, a level by its name."""
    row = BY_NAME.get(key)
    if isinstance(row, Key) and (".signal." in key or key.endswith(".size")):
        return str(row.read(value))
    if isinstance(row, Key) and key == "lxc.log.level":
        return str(row.read(value)).upper()
    return value.removeprefix("dir:") if key == "lxc.rootfs.path" else value
