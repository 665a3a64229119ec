"""The values of which a distribution's row is made. Rows are data: nothing here reads the host or the network."""

from __future__ import annotations

from collections.abc import Mapping

from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Where the archive is served: a pattern with the distribution's `{name}` and, of its past, the `{timestamp}`."""

    url: str
    security: str = ""  # where the -security suites are; "" = at `url` too
    arches: tuple[str, ...] = ()  # the architectures that are there; () = all


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One folder below dists/, with what its Release file must say and whose signature it must bear."""

    name: str
    role: str = "release"  # release, updates, security
    keys: tuple[str, ...]  # fingerprints of the primary keys that may sign it, upper case hex
    origin: str
    label: str = ""  # "" = not checked, here and below
    codename: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One release of a distribution: trixie, noble, kali-rolling."""

    name: str
    suites: tuple[Suite, ...]
    aliases: tuple[str, ...] = ()
    merged_usr: bool = False  # make the links /bin, /sbin, /lib* to usr/ before the first package


@dataclass(frozen=True, slots=True, kw_only=True)
class Distro:
    """A distribution, as one row."""

    name: str
    title: str
    family: str = "deb"
    release: str  # the default: its current stable
    releases: tuple[Series, ...]
    mirrors: tuple[Mirror, ...]
    snapshot: Mirror | None = None  # where the archive can be had as it was on another day
    components: tuple[str, ...]  # taken by default
    arches: Mapping[str, str]  # machine (uname -m) → the distribution's own name
    keyring: str = ""  # file in provisioner/keyrings; "" = none is shipped
    keyring_package: str
    keyring_files: tuple[str, ...]  # where that package puts it on a host
    shared_host: bool = True  # whether a host of it can lend its /usr (`--share-host`)
