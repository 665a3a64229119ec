"""hosts, hostname and resolv.conf of one container: written anew, bound read-only; no file of the host's is inside."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from runtime.fstab import MountEntry

_SOURCES = (
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
)  # the second: resolved's own servers
_DOMAIN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_-]+)*\.?", re.ASCII)
_MAX_BYTES = 64 << 10
_OPTIONS = ("bind", "ro", "nosuid", "nodev", "noexec")
_NAMES = ("hosts", "hostname", "resolv.conf")


def resolvers(sources: Sequence[str] = _SOURCES) -> str:
    """Return the host's name servers and search list; a server on its loopback is none for a container."""
    for source in sources:
        try:
            with open(source, encoding="utf-8", errors="replace") as file:
                lines = file.read(_MAX_BYTES).split("\n")
        except OSError:
            continue
        servers = [f"nameserver {address}" for address in _servers(lines)]
        if servers:
            return "\n".join([*_search(lines), *servers]) + "\n"
    return ""


def _servers(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ValueError):
                address = ipaddress.ip_address(words[1])
                if not address.is_loopback and not address.is_unspecified:
                    yield str(address)


def _search(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] in {"search", "domain"}:
            names = [word for word in words[1:7] if _DOMAIN.fullmatch(word)]
            if names:
                yield f"search {' '.join(names)}"


def hosts(hostname: str, ips: Sequence[str]) -> str:
    """Return an /etc/hosts in which the container finds itself."""
    own = "\n".join(f"{ip.partition('/')[0]} {hostname}" for ip in ips) or f"127.0.1.1 {hostname}"
    return f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}\n"


def write(
    folder: Path, hostname: str, ips: Sequence[str], nameserver: str = ""
) -> tuple[MountEntry, ...]:
    """Write the files below `folder` and return the entries that bind them. Written in place: binds pin the inode.

    `nameserver` answers in the container's network, where the host has none that a container could reach.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    known = f"nameserver {nameserver}\n" if nameserver else resolvers()
    texts = (hosts(hostname, ips), f"{hostname}\n", known)
    for name, text in zip(_NAMES, texts, strict=True):
        descriptor = os.open(
            folder / name,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o644,
        )
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(folder / name, 0o644)  # whatever the umask
    return entries(folder)


def entries(folder: Path) -> tuple[MountEntry, ...]:
    """Return the entries that bind the files below `folder`."""
    return tuple(
        MountEntry(
            source=str(folder / name),
            target=f"etc/{name}",
            kind="none",
            options=_OPTIONS,
            create="file",
            optional=True,
        )
        for name in _NAMES
    )


def remove(folder: Path) -> None:
    """Remove the files and their folder. Idempotent."""
    for name in _NAMES:
        with suppress(FileNotFoundError):
            os.unlink(folder / name)
    with suppress(FileNotFoundError):
        os.rmdir(folder)
