"""A container on disk: the directory PATH/NAME with config, fstab, seccomp, state.json, upper/ or rootfs/.

`config` and `fstab` say how it is launched and are read at every start. `state.json` is the Record of what
`create` decided and LXC has no key for: the template, the package set, published ports, the readiness check.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A published port: `address:host` outside leads to `container` inside."""

    host: int
    container: int
    address: str = "127.0.0.1"
    proto: str = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """When a started container is ready: a port listens, a command succeeds, a file exists; or at once ("")."""

    kind: str = ""  # "", "port", "command", "file"
    value: str = ""
    timeout: float = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What `create` recorded about one container. JSON on disk, with a version."""

    name: str
    template: str
    distro: str
    release: str
    arch: str
    created: str  # RFC 3339, UTC
    profile: str = "service"  # service, login, system
    layers: tuple[str, ...] = ()  # digests, base first
    packages: tuple[tuple[str, str, str], ...] = ()  # name, version, arch
    ports: tuple[Port, ...] = ()
    ready: Ready = field(default_factory=Ready)
    stop_signal: str = "TERM"
    connect: str = ""  # how a person reaches it, `mktemplate ssh NAME`
    options: tuple[tuple[str, str], ...] = ()  # as given on the command line, no secrets
    shared_host: bool = False
    flat: bool = False
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    timings: tuple[tuple[str, float], ...] = ()
    id_range: tuple[int, int] = (0, 0)  # first host id, count


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One container's directory, as it lies there."""

    path: Path  # PATH/NAME
    record: Record

    @property
    def name(self) -> str:
        """The container's name: the directory's."""
        return self.path.name
