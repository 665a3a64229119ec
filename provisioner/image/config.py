"""An image's configuration → ImageConfig: the closed list of inert things that an image may say (T-63).

All else in it (labels, host settings, hooks of builders) is never read; what is no part of the format is named in a
note. Every value is still only text of a stranger: who renders it checks it against the grammar of its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from provisioner.errors import ProvisionError, UntrustedIndex
from provisioner.image import document
from provisioner.image.manifest import Platform
from valuetypes import dataclass

_PORT = re.compile(r"([1-9][0-9]{0,4})(?:/(tcp|udp|sctp))?", re.ASCII)
_MOST = 1_000  # words, variables, ports or volumes
_READ = frozenset(
    ("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "StopSignal", "ExposedPorts", "Volumes")
)
# Parts of the two formats that mean nothing here, and say nothing of a host.
_PASSED_OVER = frozenset(
    (
        *("Labels", "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty"),
        *("OpenStdin", "StdinOnce", "Image", "OnBuild", "ArgsEscaped", "Healthcheck", "Shell"),
        *("Memory", "MemorySwap", "CpuShares", "NetworkDisabled", "MacAddress", "StopTimeout"),
    )
)
_TOP = frozenset(
    (
        *("created", "author", "architecture", "os", "os.version", "os.features", "variant"),
        *("config", "rootfs", "history", "docker_version", "container", "container_config", "id"),
        *("parent", "comment", "moby.buildkit.buildinfo.v1", "moby.buildkit.cache.v0"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says of itself."""

    platform: Platform
    diff_ids: tuple[str, ...] = ()  # digests of the layers, uncompressed, bottom first
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""  # NAME[:GROUP] or UID[:GID]
    workdir: str = ""
    stop_signal: str = ""
    ports: tuple[tuple[int, str], ...] = ()  # number, protocol
    volumes: tuple[str, ...] = ()  # absolute paths
    notes: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """What its first process is."""
        return (*self.entrypoint, *self.cmd)


def parse(body: bytes, subject: str) -> ImageConfig:
    """Return what the configuration `body` says.

    Raises BadArchive (E_IMAGE_FORMAT, E_ARCHIVE_LIMIT), ProvisionError (E_ENV), UntrustedIndex (E_TRUST_FIELD).
    """
    data = document.parse(body, subject)
    said = document.table(data, "config", subject)
    return ImageConfig(
        platform=Platform(
            os=document.text(data, "os", subject),
            architecture=document.text(data, "architecture", subject),
            variant=document.text(data, "variant", subject),
        ),
        diff_ids=_diff_ids(data, subject),
        entrypoint=_bounded(document.texts(said, "Entrypoint", subject), subject),
        cmd=_bounded(document.texts(said, "Cmd", subject), subject),
        env=environment(document.texts(said, "Env", subject), subject),
        user=document.text(said, "User", subject),
        workdir=document.text(said, "WorkingDir", subject),
        stop_signal=document.text(said, "StopSignal", subject),
        ports=tuple(_ports(said, subject)),
        volumes=_bounded(tuple(document.table(said, "Volumes", subject)), subject),
        notes=_notes(data, said, subject),
    )


def check(found: ImageConfig, layers: int, wanted: Platform, subject: str) -> None:
    """Refuse a configuration that does not belong to its manifest of so many layers, or is for another machine.

    Raises UntrustedIndex: E_TRUST_MISMATCH, E_TRUST_ARCH.
    """
    if len(found.diff_ids) != layers:
        detail = f"its config names {len(found.diff_ids)} layers, its manifest {layers}"
        raise UntrustedIndex("E_TRUST_MISMATCH", subject, detail)
    there = found.platform
    if (there.os, there.architecture) != (wanted.os, wanted.architecture):
        shown = str(there).encode("ascii", "backslashreplace").decode()[:80]
        raise UntrustedIndex("E_TRUST_ARCH", subject, f"is for {shown}, this machine is {wanted}")


def _diff_ids(data: Mapping[str, object], subject: str) -> tuple[str, ...]:
    rootfs = document.table(data, "rootfs", subject)
    if rootfs.get("type") != "layers":
        raise document.malformed(subject, "its rootfs does not consist of layers")
    return tuple(
        document.digest(each, subject) for each in document.texts(rootfs, "diff_ids", subject)
    )


def _bounded(words: tuple[str, ...], subject: str) -> tuple[str, ...]:
    if len(words) > _MOST:
        raise document.malformed(subject, f"a list of more than {_MOST} entries")
    return words


def environment(words: tuple[str, ...], subject: str) -> tuple[tuple[str, str], ...]:
    """Return `NAME=VALUE` words as pairs, the last of each name; ProvisionError E_ENV for what is none (T-34)."""
    found: dict[str, str] = {}
    for word in _bounded(words, subject):
        name, equals, value = word.partition("=")
        shown = name[:80].encode("ascii", "backslashreplace").decode()
        if not equals:
            # Docker hands on the host's variable of this name; nothing of this host goes inside.
            raise ProvisionError("E_ENV", subject, f'"{shown}": missing "="')
        if not name or any(ord(char) <= 0x20 or ord(char) == 0x7F for char in name):
            raise ProvisionError("E_ENV", subject, f'"{shown}" is no name of a variable')
        found[name] = value
    return tuple(found.items())


def _ports(said: Mapping[str, object], subject: str) -> list[tuple[int, str]]:
    found = []
    for word in _bounded(tuple(document.table(said, "ExposedPorts", subject)), subject):
        match = _PORT.fullmatch(word)
        if match is None or int(match[1]) > 65535:
            shown = word[:40].encode("ascii", "backslashreplace").decode()
            raise document.malformed(subject, f'"{shown}" is no port')
        found.append((int(match[1]), match[2] or "tcp"))
    return sorted(found)


def _notes(data: Mapping[str, object], said: Mapping[str, object], subject: str) -> tuple[str, ...]:
    foreign = [*(set(data) - _TOP), *(set(said) - _READ - _PASSED_OVER)]
    shown = sorted(key[:40].encode("ascii", "backslashreplace").decode() for key in foreign)
    if not shown:
        return ()
    return (f"{subject}: ignored what an image may not say: {', '.join(shown[:20])}",)
