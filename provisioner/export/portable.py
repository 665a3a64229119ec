"""A systemd portable service (portablectl(1)): a read-only image with the unit that starts it.

What a service may change is bound from /var/lib/NAME over the image's folders; the first start copies there what the
image has for them, from /usr/lib/mktemplate/state. /run is its own: of the two mounts that the profile `trusted` and
the unit ask for there, systemd keeps the one that is not recursive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import partial

from provisioner.export.flat import Addition, Arrangement
from provisioner.export.image import Image
from provisioner.export.nspawn import quoted
from valuetypes import dataclass

CHANGING = ("etc", "home", "opt", "root", "srv", "var")  # folders that a service may change
_STATE = "usr/lib/mktemplate/state"
_UNITS = "usr/lib/systemd/system"
_OS_RELEASE = "usr/lib/os-release"
_PREPARE = "usr/lib/mktemplate/portable"
_HOSTS = ("etc/machine-id", "etc/resolv.conf")  # that the profile binds from the host, read-only
_MODES = {"root": 0o700}
_SCRIPT = f"""\
#!/bin/sh
# As a portable service: first, without words, copies what the image has for the folders that its service may change,
# once; then is what the words say, behind a pipe: the journal's socket cannot be opened as /dev/stdout.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ $# -gt 0 ]; then
    rm -f /run/.output
    mkfifo -m 622 /run/.output
    cat </run/.output &
    exec "$@" >/run/.output 2>&1
fi
for folder in {" ".join(CHANGING)}; do
    [ -e "/$folder/.mktemplate" ] && continue
    [ ! -e "/{_STATE}/$folder" ] || cp -a "/{_STATE}/$folder/." "/$folder/"
    : >"/$folder/.mktemplate"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What the unit grants and limits, in the words of systemd.exec(5) and systemd.resource-control(5)."""

    capabilities: tuple[str, ...]  # CAP_…
    calls: tuple[str, ...] = ()  # of the kernel's, that are allowed; all where none is named
    no_new_privileges: bool = True
    limits: tuple[tuple[str, str], ...] = ()


def arrangement(image: Image, rights: Rights) -> Arrangement:
    """Return how the image is laid out."""
    return Arrangement(place=_place, additions=partial(_additions, rights))


def _place(path: str) -> str | None:
    """Return where in the image a path is. Units of its packages are left out: systemd would see them."""
    if path in _HOSTS or path == _UNITS or path.startswith(f"{_UNITS}/"):
        return None
    top = path.partition("/")[0]
    return f"{_STATE}/{path}" if top in CHANGING else path


def _additions(rights: Rights, image: Image, seen: Set[str]) -> Iterator[Addition]:
    for path in (*CHANGING, *map(_stripped, _elsewhere(image)), _UNITS):
        if path in CHANGING or path not in seen:
            yield Addition(path=path, mode=_MODES.get(path, 0o755))
    for path in _HOSTS:
        yield Addition(path=path, body=b"", mode=0o644)
    if not {"etc/os-release", _OS_RELEASE} & seen:  # systemd takes nothing without one
        text = f"ID={image.distro}\nVERSION_CODENAME={image.release}\n"
        yield Addition(path=_OS_RELEASE, body=text.encode(), mode=0o644)
    yield Addition(path=_PREPARE, body=_SCRIPT.encode())
    body = unit(image, rights).encode()
    yield Addition(path=f"{_UNITS}/{image.name}.service", body=body, mode=0o644)


def _stripped(path: str) -> str:
    return path.strip("/")


def _elsewhere(image: Image) -> tuple[str, ...]:
    """Return the volumes that lie below none of the folders that a service may change."""
    return tuple(
        path for path in image.volumes if path.strip("/").partition("/")[0] not in CHANGING
    )


def unit(image: Image, rights: Rights) -> str:
    """Return the unit, with the confinement that the container has here."""
    name = image.name
    places = [(folder, f"/{folder}") for folder in CHANGING]
    places += [(path.strip("/").replace("/", "-"), path) for path in _elsewhere(image)]
    folders = " ".join((name, *(f"{name}/{folder}" for folder, _ in places)))
    user, _, group = image.user.partition(":")
    lines = [
        "[Unit]",
        f"Description={_plain(f'{name}: {image.template} on {image.distro} {image.release}')}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStartPre=!/{_PREPARE}",
        f"ExecStart=/{_PREPARE} {' '.join(map(_word, image.argv))}",
        *(f"Environment={quoted(f'{key}={value}')}" for key, value in image.environment),
        f"WorkingDirectory={_plain(image.folder)}",
        *([f"User={user}", f"Group={group}"] if user else []),
        "KillMode=mixed",
        f"KillSignal={image.stop_signal}",
        "SuccessExitStatus=143",  # of a shell that passes SIGTERM on
        f"StateDirectory={folders}",
        *(f"BindPaths=/var/lib/{name}/{folder}:{path}" for folder, path in places),
        f"RuntimeDirectory={name}",
        f"BindPaths=/run/{name}:/run:norbind",
        "MountAPIVFS=yes",
        *_confinement(rights),
        *(f"{key}={value}" for key, value in rights.limits),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _confinement(rights: Rights) -> Sequence[str]:
    filtered = [
        f"SystemCallFilter={' '.join(rights.calls)}",
        "SystemCallErrorNumber=EPERM",
        "SystemCallArchitectures=native",
    ]
    return (
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "PrivateIPC=yes",
        "ProtectHostname=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "LockPersonality=yes",
        f"CapabilityBoundingSet={' '.join(rights.capabilities)}",
        f"NoNewPrivileges={'yes' if rights.no_new_privileges else 'no'}",
        *(filtered if rights.calls else ()),
    )


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Return a word of a command line: no specifier, no variable of systemd's (systemd.service(5))."""
    return quoted(text).replace("$", "$$")
