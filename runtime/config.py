"""lxc.container.conf(5) text ↔ ContainerConfig, with liblxc's syntax to the byte.

    read(text)  → Lines         every line, as it stands
    expand      → Lines         lxc.include followed, in place
    examine     → config + problems, each with whether liblxc 6 would load it all the same
    parse, load → config, or ConfigError for the first problem with the others in `also`

Where liblxc takes what nobody can mean (a NUL, a BOM, a CR inside a line) we refuse it: docs/lxc-keys.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from runtime.errors import ConfigError, raise_all
from runtime.grants import check_grants, templates_may_write
from runtime.keys import BY_NAME, NET_BY_NAME, PAIR_KEYS, Key, ListKey, PairKey, nic_kind
from runtime.readers import Misread
from runtime.settings import ContainerConfig, Hook, Nic, Rlimit
from valuetypes import dataclass, fields, replace

__all__ = [
    "ContainerConfig",
    "Line",
    "Nic",
    "Problem",
    "check_grants",
    "examine",
    "expand",
    "load",
    "parse",
    "read",
    "render",
    "templates_may_write",
]

MAX_BYTES = 4 << 20  # of one file
MAX_DEPTH = 16  # of includes in includes
_NET = re.compile(r"lxc\.net\.([0-9]{1,9})(?:\.(.+))?", re.ASCII)
_DEFAULTS = ContainerConfig()
_NIC_DEFAULTS = Nic(index=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One `key = value` and where it stands."""

    key: str
    value: str
    source: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with one line; `loads` where liblxc 6 would load it all the same."""

    code: str
    path: str
    line: int
    detail: str
    loads: bool = False

    def error(self) -> ConfigError:
        """Return this as what is raised."""
        return ConfigError(
            self.code, f"{self.path}:{self.line}", self.detail, path=self.path, line=self.line
        )


@lru_cache(maxsize=64)
def read(text: str, source: str) -> tuple[tuple[Line, ...], tuple[Problem, ...]]:
    """Return the `lxc.` lines of `text` and what is no line; all other text is a comment to LXC."""
    lines, problems = [], []
    for number, raw in enumerate(text.split("\n"), 1):
        content = raw.removesuffix("\r").lstrip(" \t")
        if number == 1 and content.startswith("\ufeff"):
            problems.append(_stricter("starts with a byte order mark", source, number))
        if "\0" in content or "\r" in content:
            byte = "\\x00" if "\0" in content else "\\x0d"
            problems.append(_stricter(f"contains control byte {byte}", source, number))
        elif content.startswith("lxc."):
            key, equals, value = content.partition("=")
            key, value = key.rstrip(" \t"), value.strip(" \t")
            if equals:
                lines.append(Line(key=key, value=_unquote(value), source=source, line=number))
            else:
                detail = f'"{key}": missing "="'
                problems.append(
                    Problem(code="E_CONFIG_VALUE", path=source, line=number, detail=detail)
                )
    return tuple(lines), tuple(problems)


def expand(lines: Iterable[Line], depth: int = 0) -> tuple[tuple[Line, ...], tuple[Problem, ...]]:
    """Return `lines` with each lxc.include followed by what it includes, folders in the order of their names."""
    found: list[Line] = []
    problems: list[Problem] = []
    for line in lines:
        found.append(line)
        if line.key != "lxc.include" or not line.value:
            continue
        try:
            if depth >= MAX_DEPTH:
                raise Misread(f"{line.value}: includes are more than {MAX_DEPTH} deep")
            for path in _included(line.value):
                inner, bad = read(_text(path), path)
                more, worse = expand(inner, depth + 1)
                found += more
                problems += [*bad, *worse]
        except Misread as error:
            problems.append(_at(line, error.code, error.detail))
    return tuple(found), tuple(problems)


def examine(lines: Iterable[Line]) -> tuple[ContainerConfig, tuple[Problem, ...]]:
    """Return what expanded `lines` say, and every problem of them."""
    draft = _Draft()
    for line in lines:
        try:
            draft.take(line)
        except Misread as error:
            draft.problems.append(_at(line, error.code, error.detail, loads=error.loads))
    return draft.config(), tuple(draft.problems)


def parse(text: str, source: str = "config") -> ContainerConfig:
    """Return what `text` says; raise ConfigError for what is wrong in it or in what it includes."""
    return _parse(text, source) if "lxc.include" in text else _parsed(text, source)


@lru_cache(maxsize=64)
def _parsed(text: str, source: str) -> ContainerConfig:
    """Return what a text that includes nothing says: always the same, and a program may ask often."""
    return _parse(text, source)


def _parse(text: str, source: str) -> ContainerConfig:
    lines, problems = read(text, source)
    expanded, more = expand(lines)
    config, bad = examine(expanded)
    raise_all(
        [problem.error() for problem in sorted((*problems, *more, *bad), key=lambda p: p.line)]
    )
    return config


def load(path: str | os.PathLike[str]) -> ContainerConfig:
    """Return what the file at `path` says; raise ConfigError (E_CONFIG_VALUE) where it cannot be read."""
    try:
        return parse(_text(os.fspath(path)), os.fspath(path))
    except Misread as error:
        raise ConfigError(error.code, os.fspath(path), error.detail, path=os.fspath(path)) from None


def render(lines: Sequence[tuple[str, str]]) -> str:
    """Return `lines`, pairs of key and value, as text that parses back to them (I-9).

    ConfigError: E_CONFIG_ROUNDTRIP, where a key or a value cannot stand in such a file.
    """
    text = "".join(f"{key} = {_quote(value)}".rstrip(" ") + "\n" for key, value in lines)
    again, problems = read(text, "config")
    got = tuple((line.key, line.value) for line in again)
    wanted = tuple((key, value) for key, value in lines)
    if got != wanted or problems:
        number = next((n for n, pair in enumerate(wanted) if n >= len(got) or got[n] != pair), 0)
        key, value = wanted[number]
        raise ConfigError(
            "E_CONFIG_ROUNDTRIP", key, f"{value!r} cannot be the value of a key", line=number + 1
        )
    return text


def _quote(value: str) -> str:
    """Return `value` in quotes where LXC would strip what belongs to it."""
    needed = value != value.strip(" \t") or (
        len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    )
    return f'"{value}"' if needed else value


def _unquote(value: str) -> str:
    quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    return value[1:-1] if quoted else value


def _stricter(detail: str, source: str, number: int) -> Problem:
    return Problem(code="E_CONFIG_VALUE", path=source, line=number, detail=detail)


def _at(line: Line, code: str, detail: str, *, loads: bool = False) -> Problem:
    shown = detail if code in {"E_CONFIG_KEY", "E_SYSCTL", "E_CAP"} else f"{line.key}: {detail}"
    return Problem(code=code, path=line.source, line=line.line, detail=shown, loads=loads)


def _text(path: str) -> str:
    """Return the text of the file at `path`, bytes that are no UTF-8 as surrogates."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Misread(f"{path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise Misread(f"{path}: larger than {MAX_BYTES} bytes")
    return content.decode("utf-8", "surrogateescape")


def _included(value: str) -> tuple[str, ...]:
    """Return the files that `lxc.include = value` names: itself, or a folder's *.conf by name."""
    try:
        names = sorted(os.listdir(value))
    except NotADirectoryError:
        return (value,)
    except FileNotFoundError:
        if value.endswith("/"):  # LXC: a folder that need not be there
            return ()
        raise Misread(f"{value}: No such file or directory") from None
    except OSError as error:
        raise Misread(f"{value}: {error.strerror}") from None
    folder = value.rstrip("/")
    return tuple(f"{folder}/{name}" for name in names if name.endswith(".conf") and len(name) >= 6)


class _Draft:
    """A configuration while its lines are taken one after the other."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.nics: dict[int, dict[str, Any]] = {}
        self.seen: set[str] = set()
        self.problems: list[Problem] = []

    def take(self, line: Line) -> None:
        """Apply one line, as liblxc's jump table would."""
        self.seen.add(line.key)
        if line.key.startswith("lxc.net.") or line.key == "lxc.net":
            self._take_net(line)
        elif isinstance(row := BY_NAME.get(line.key), Key):
            self._take_plain(row, line.value)
        else:
            self._take_pair(*_pair_row(line.key), line.value)

    def config(self) -> ContainerConfig:
        """Return what was taken."""
        nics = tuple(Nic(index=index, **self.nics[index]) for index in sorted(self.nics))
        known = {field.name for field in fields(ContainerConfig)}
        values = {name: value for name, value in self.values.items() if name in known}
        return replace(_DEFAULTS, nics=nics, set_keys=frozenset(self.seen), **values)

    def _take_plain(self, row: Key, value: str) -> None:
        if not value:
            _refuse_empty(row)
            self.values.pop(row.field, None)
            if row.field == "autodev":  # liblxc: clearing it is 0, though 1 is the default
                self.values["autodev"] = False
            return
        taken = row.read(value)
        if row.field in _EXCLUSIVE and self.values.get(_EXCLUSIVE[row.field]):
            raise Misread("excludes its opposite, which stands above")
        if row.field == "cap_keep":
            self.values["cap_keep"] = _keep(self.values.get("cap_keep") or (), taken)
        elif isinstance(row, ListKey):
            self.values[row.field] = (*self.values.get(row.field, ()), *taken)
        else:
            self.values[row.field] = taken

    def _take_pair(self, row: PairKey, name: str, value: str) -> None:
        held: tuple[Any, ...] = self.values.get(row.field, ())
        if not value:
            self.values[row.field] = tuple(pair for pair in held if name and _name_of(pair) != name)
            return
        if not name:
            raise Misread(f'"{row.name}" needs a name below it', code="E_CONFIG_KEY")
        taken = row.read(name, value)
        if row.replaces:
            held = tuple(pair for pair in held if _name_of(pair) != _name_of(taken))
        self.values[row.field] = (*held, taken)

    def _take_net(self, line: Line) -> None:
        found = _NET.fullmatch(line.key)
        if found is None or found[2] is None or (found[2] not in NET_BY_NAME):
            self._clear_nets(line, found)
            return
        index, row = int(found[1]), NET_BY_NAME[found[2]]
        if not line.value and index not in self.nics:
            raise Misread(f"there is no lxc.net.{index} yet to clear it of")
        nic = self.nics.setdefault(index, {})
        kind = nic_kind(row.name)
        if kind and nic.get("kind") != kind:
            raise Misread(f"lxc.net.{index}.type = {kind} must stand before it")
        if not line.value:
            nic.pop(row.field, None)
            return
        taken = row.read(line.value)
        nic[row.field] = (*nic.get(row.field, ()), *taken) if isinstance(row, ListKey) else taken

    def _clear_nets(self, line: Line, found: re.Match[str] | None) -> None:
        if line.key == "lxc.net" and not line.value:
            self.nics.clear()
        elif found is not None and found[2] is None and not line.value:
            self.nics.pop(int(found[1]), None)
        else:
            raise _unknown(line.key)


_EXCLUSIVE = {
    "cap_drop": "cap_keep",
    "cap_keep": "cap_drop",
    "namespace_clone": "namespace_keep",
    "namespace_keep": "namespace_clone",
}


def _keep(held: tuple[str, ...], taken: tuple[str, ...]) -> tuple[str, ...]:
    """Return the capabilities to keep: `none` forgets those before it."""
    for word in taken:
        held = () if word == "none" else (*held, word)
    return held


def _name_of(pair: Hook | Rlimit | tuple[str, str]) -> str:
    if isinstance(pair, Hook):
        return pair.point
    return pair[0] if isinstance(pair, tuple) else pair.name


def _refuse_empty(row: Key) -> None:
    if row.name == "lxc.arch":
        raise Misread("an architecture is missing")
    if row.name == "lxc.mount.fstab":
        raise Misread("a path is missing (LXC refuses to load it empty)")


def _pair_row(key: str) -> tuple[PairKey, str]:
    """Return the row of a key like `lxc.sysctl.NAME`, and NAME."""
    for row in PAIR_KEYS:
        if key == row.name or key.startswith(f"{row.name}."):
            return row, key[len(row.name) + 1 :]
    raise _unknown(key)


def _unknown(key: str) -> Misread:
    return Misread(f'unknown key "{key}"{_nearest(key)}', code="E_CONFIG_KEY")


def _nearest(key: str) -> str:
    """Return a suggestion for a key that does not exist, or nothing."""
    import difflib  # only a mistake pays for it

    found = re.fullmatch(r"(lxc\.net\.[0-9]+\.)(.+)", key, re.ASCII)
    if found:
        names = difflib.get_close_matches(found[2], list(NET_BY_NAME), n=1)
        return f" (did you mean {found[1]}{names[0]}?)" if names else ""
    names = difflib.get_close_matches(key, list(BY_NAME), n=1, cutoff=0.7)
    return f" (did you mean {names[0]}?)" if names else ""
