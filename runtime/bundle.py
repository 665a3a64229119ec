"""A container on disk: the directory PATH/NAME with config, fstab, seccomp, state.json, upper/ or rootfs/.

`config` and `fstab` say how it is launched and are read at every start. `state.json` is the Record of what
`create` decided and LXC has no key for: the template, the package set, published ports, the readiness check.
"""

from __future__ import annotations

import json
import os
import re
import time
import types
import typing
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from runtime.errors import ResourceError, StateError
from valuetypes import asdict, dataclass, field, fields, is_dataclass

VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)  # I-10
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A published port: `address:host` outside leads to `container` inside."""

    host: int
    container: int
    address: str = "127.0.0.1"
    proto: str = "tcp"

    @property
    def where(self) -> str:
        """Address and port outside, as one writes them: an IPv6 address in brackets."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """When a started container is ready: a port listens, a command succeeds, a file exists; or at once ("").

    A port that is to answer is told `send`, and its answer begins with `expect`; a character of theirs is a byte.
    """

    kind: str = ""  # "", "port", "command", "file"
    value: str = ""
    timeout: float = 60.0  # seconds
    send: str = ""
    expect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What `create` recorded about one container. JSON on disk, with a version."""

    name: str
    template: str
    distro: str
    release: str
    arch: str
    created: str  # RFC 3339, UTC
    image: str = ""  # of a container that was imported or pulled: where from, and its digest
    profile: str = "service"  # service, login, system
    layers: tuple[str, ...] = ()  # digests, base first
    packages: tuple[tuple[str, str, str], ...] = ()  # name, version, arch
    ports: tuple[Port, ...] = ()
    exposes: tuple[str, ...] = ()  # what the service listens on inside: "22/tcp"
    ready: Ready = field(default_factory=Ready)
    stop_signal: str = "TERM"
    connect: str = ""  # how a person reaches it, `mktemplate ssh NAME`
    login_keys: tuple[str, ...] = ()  # public ones, lines of its authorized_keys
    login_user: str = "root"  # whose they are
    upgraded: str = ""  # RFC 3339, UTC: when its present layers came; "" = with the container
    options: tuple[tuple[str, str], ...] = ()  # as given on the command line, no secrets
    secrets: tuple[str, ...] = ()  # names of those that were not given, never a secret
    shared_host: bool = False
    flat: bool = False
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    timings: tuple[tuple[str, float], ...] = ()
    id_range: tuple[int, int] = (0, 0)  # first host id, count
    restart: str = "no"  # no, on-failure[:N], always
    lent: bool = (
        False  # whoever owns it starts it again and again, and gives its network back at the end
    )
    defaults: tuple[
        tuple[str, str], ...
    ] = ()  # limits of the template's own, that nobody asked for: file, value
    sockets: str = ""  # how its service takes listening sockets: systemd, nginx; "" = not at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One container's directory, as it lies there."""

    path: Path  # PATH/NAME
    record: Record

    @property
    def name(self) -> str:
        """The container's name: the directory's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """Where its lxc.container.conf(5) lies."""
        return self.path / "config"

    @property
    def log(self) -> Path:
        """What a detached container writes to stdout and stderr."""
        return self.path / "log"


def is_name(name: str) -> bool:
    """Whether `name` can be a container's (I-10)."""
    return bool(NAME.fullmatch(name)) and ".." not in name


def read(path: Path) -> Bundle:
    """Return the container in the directory `path`.

    StateError: E_NOTFOUND where there is none. ResourceError: E_CORRUPT where its record cannot be read.
    A directory with a `config` and no record is taken as it is: somebody else's LXC container.
    """
    try:
        with open(path / "state.json", "rb") as file:
            data = file.read(_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        if not os.access(path / "config", os.R_OK):
            raise StateError(
                "E_NOTFOUND", path.name, "there is no such container", hints=_others(path)
            ) from None
        return Bundle(path=path, record=_foreign(path))
    try:
        return Bundle(path=path, record=_record(data, path.name))
    except _Unknown as error:
        raise ResourceError(
            "E_STORE_VERSION",
            path.name,
            f"state.json was written by a newer version: it has {error}",
            hints=(f"mktemplate destroy --force {path.name}, where it is no longer needed",),
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ResourceError("E_CORRUPT", path.name, f"state.json: {error}") from None


def read_to_remove(path: Path) -> Bundle:
    """Return the container in the directory `path`; a record that cannot be read counts as none.

    StateError: E_NOTFOUND.
    """
    try:
        return read(path)
    except ResourceError:
        return Bundle(path=path, record=_foreign(path))


@lru_cache(maxsize=64)
def _others(path: Path) -> tuple[str, ...]:
    """Return the hint for a container that is not there: one that is called nearly so, or where to look."""
    from difflib import get_close_matches  # only on the way out

    try:
        there = [each.name for each in path.parent.iterdir() if (each / "config").exists()]
    except OSError:
        there = []
    near = get_close_matches(path.name, there, n=1, cutoff=0.6)
    return (f"did you mean {near[0]}?",) if near else ("mktemplate list shows what there is",)


@lru_cache(maxsize=8)
def _record(data: bytes, name: str) -> Record:
    """Return what `data` says: always the same, and a program asks often, of one container after the other."""
    value = json.loads(data)
    if value.pop("version") != VERSION:
        raise ResourceError("E_STORE_VERSION", name, "state.json was written by another version")
    record: Record = _build(Record, value)
    return record


def write(bundle: Bundle) -> None:
    """Write the record of a bundle that is being put together: whoever gives it its place has all of it on disk."""
    replace_file(bundle.path / "state.json", encode(bundle.record), durable=False)


def encode(record: Record) -> bytes:
    """Return what stands in state.json: one line for each fact. With an indent, json takes ten times as long."""
    facts = [
        ("version", VERSION),
        *((each.name, getattr(record, each.name)) for each in fields(record)),
    ]
    lines = [f' "{name}": {json.dumps(value, default=asdict)}' for name, value in facts]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def now() -> str:
    """Return the time as records have it: RFC 3339, UTC, in seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def replace_file(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put `data` at `path` by one rename; with `durable` it is on disk when this returns."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class _Unknown(Exception):
    """A record has fields that we do not know."""


def _foreign(path: Path) -> Record:
    return Record(name=path.name, template="", distro="", release="", arch="", created="")


def _build(kind: Any, value: Any) -> Any:  # noqa: ANN401  # whatever the field's type says
    """Return `value`, as JSON has it, as the type `kind` of a record's field; TypeError where it is none."""
    if kind is type(value):  # most are: a text, a number, true or false
        return value
    if is_dataclass(kind):
        return _build_fields(kind, value)
    if kinds := _kinds(kind):
        return _build_tuple(kinds, value)
    if isinstance(kind, types.UnionType):
        return None if value is None else _build(typing.get_args(kind)[0], value)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _build_fields(kind: Any, value: object) -> Any:  # noqa: ANN401  # as in _build
    hints = _fields(kind)
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    if unknown := value.keys() - hints.keys():
        raise _Unknown(", ".join(sorted(unknown)))
    return kind(**{name: _build(hints[name], item) for name, item in value.items()})


@cache
def _kinds(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401  # as in _build
    """Return what a tuple type holds, () for another type."""
    return typing.get_args(kind) if typing.get_origin(kind) is tuple else ()


@cache
def _fields(kind: type) -> Mapping[str, Any]:
    """Return the fields of a record's dataclass with their types."""
    return typing.get_type_hints(kind)


def _build_tuple(kinds: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    if len(kinds) == 2 and kinds[1] is ...:
        return _rows(kinds[0], value) or tuple([_build(kinds[0], item) for item in value])
    if tuple(map(type, value)) == kinds:
        return tuple(value)
    return tuple(_build(kind, item) for kind, item in zip(kinds, value, strict=True))


def _rows(kind: Any, value: list[Any]) -> tuple[Any, ...]:  # noqa: ANN401  # as in _build
    """Return rows of texts, as `packages` has hundreds; () where they are anything else."""
    texts = _kinds(kind)
    if set(texts) != {str} or {*map(type, value)} != {list} or {*map(len, value)} != {len(texts)}:
        return ()
    return tuple(map(tuple, value)) if {*map(type, chain(*value))} == {str} else ()
