"""`exec`, `shell`, `ssh`: into a running container."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.places import containers_path
from runtime import aside
from runtime.bundle import Bundle, replace_file
from runtime.container import Container
from runtime.kernel.mount import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)
from valuetypes import dataclass, replace

_SSH = "/usr/bin/ssh"
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key.pub"
_LARGEST = 4096


def _container(request: Request) -> Container:
    return Container(containers_path(request), container_name(request.words[0]))


def execute(request: Request, console: Console) -> int:
    """Run a command inside; its status is ours."""
    from mktemplate.life.inside import execute as run_inside

    return run_inside(_container(request), request, console)


def shell(request: Request, console: Console) -> int:
    """Open the user's login shell inside."""
    from mktemplate.life.inside import execute as run_inside
    from runtime.enter import login_shell

    container = _container(request)
    command = login_shell(container, request.flags.user)
    return run_inside(container, replace(request, command=command), console)


def at_console(request: Request, console: Console) -> int:
    """Be at the container's /dev/console: what it writes there comes, what is typed goes there."""
    from runtime import attach

    container = _container(request)
    prefix = request.flags.escape or b"\x01"
    log = Path(container.config.console_logfile or container.bundle.log)
    key = f"Ctrl-{chr(prefix[0] + 96)}"
    leave = f"{container.name}: at its console; {key} q leaves, {key} {key} types {key}"
    attach.at_console(container, log, prefix, lambda: console.note(leave))
    return 0


def ssh(request: Request, console: Console) -> int:
    """Log in over ssh with the host key that the container made and the key that it was given."""
    container = _container(request)
    found = container.bundle
    if not os.access(_SSH, os.X_OK):
        raise CommandError(
            "E_KERNEL_FEATURE", _SSH, "not found", hints=("apt install openssh-client",)
        )
    door = _door(container, found)
    argv = [
        _SSH,
        *_options(container, found),
        *("-o", f"Port={door.port}"),
        *_way_in(container, door),
        "-l",
        request.flags.user or found.record.login_user,
        door.address,
    ]
    if request.command:
        argv += ["--", *request.command]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(_SSH, argv, os.environ)  # noqa: S606  # absolute program, argv list


@dataclass(frozen=True, slots=True)
class _Door:
    """Where an sshd accepts: at the container's own address, or at one of the host's."""

    address: str
    port: str
    of_host: bool


def _way_in(container: Container, door: _Door) -> list[str]:
    """Return the options that lead ssh into the network of a normal user's container, where no address leads."""
    kinds = {nic.kind for nic in container.config.nics}
    if os.geteuid() == 0 or "none" in kinds or door.of_host:
        return []
    words = aside.command("runtime.usernet", "hand_over", str(container.pid or 0), door.port)
    command = " ".join(map(shlex.quote, words)).replace("%", "%%")
    return ["-o", f"ProxyCommand={command}", "-o", "ProxyUseFdpass=yes"]


def _door(container: Container, found: Bundle) -> _Door:
    """Return where its sshd accepts; a container that its starter gives sockets is woken."""
    ready, run = found.record.ready, container.run
    port = ready.value if ready.kind == "port" else "22"
    ours = [one for one in found.record.ports if str(one.container) == port]
    for one in ours if found.record.sockets else ():
        door = _Door(_reachable(one.address), str(one.host), of_host=True)
        if container.state() == "STOPPED":
            if _woken(door, ready.timeout):
                return door
        elif run is not None and run.sockets:
            return door
    return _Door(_address(container), port, of_host=False)


def _woken(door: _Door, timeout: float) -> bool:
    """Whether somebody listens there for the container, and its sshd answers: so its keys are made, too."""
    import socket

    try:
        with socket.create_connection((door.address, int(door.port)), timeout) as client:
            return client.recv(4) == b"SSH-"
    except OSError:
        return False


def _reachable(address: str) -> str:
    """Return where from this machine something that listens on `address` accepts."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  # not bound, looked up


def _address(container: Container) -> str:
    run = container.run
    if container.state() != "RUNNING" or run is None:
        raise CommandError(
            "E_NOTRUNNING",
            container.name,
            f"is {container.state()}",
            hints=(f"mktemplate start {container.name}",),
        )
    if run.addresses:
        return run.addresses[0]
    kinds = {nic.kind for nic in container.config.nics}
    if "none" in kinds:
        return "127.0.0.1"
    raise CommandError(
        "E_NOTRUNNING",
        container.name,
        "has no address",
        hints=(f"mktemplate shell {container.name} needs none",),
    )


def _options(container: Container, found: Bundle) -> list[str]:
    """Return the options that leave ssh nothing to ask."""
    folder = found.path / "ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    alias = f"mktemplate-{container.name}"
    known = folder / "known_hosts"
    replace_file(known, f"{alias} {_host_key(found)}\n".encode(), durable=False)
    options = {
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": os.devnull,
        "HostKeyAlias": alias,
        "HostKeyAlgorithms": "ssh-ed25519",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "PreferredAuthentications": "publickey",
        "LogLevel": "ERROR",
    }
    identities = _identities(found, folder / "key")
    pairs = [*options.items(), *(("IdentityFile", identity) for identity in identities)]
    return [word for key, value in pairs for word in ("-o", f"{key}={value}")]


def _identities(found: Bundle, own: Path) -> tuple[str, ...]:
    """Return the private keys that may fit: the pair made for the container, else those of who may log in."""
    if own.exists():
        return (str(own),)
    from mktemplate.template.keys import identities

    given = tuple(text for key, text in found.record.options if key == "ssh_keys")
    return identities(given, os.environ)


def _host_key(found: Bundle) -> str:
    """Return the container's public host key, read below its own root: no link is followed (I-1, I-11)."""
    root = found.path / ("rootfs" if found.record.flat else "upper")
    at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = openat2(
            at,
            _HOST_KEY,
            os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC,
            resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
        )
    except OSError as error:
        raise CommandError(
            "E_NOTFOUND",
            _HOST_KEY,
            f"the container has made no host key: {error.strerror}",
            hints=(f"mktemplate logs {found.name}",),
        ) from None
    finally:
        os.close(at)
    with open(handle, "rb") as file:
        words = file.read(_LARGEST).decode("ascii", "replace").split()
    if len(words) < 2 or words[0] != "ssh-ed25519" or not words[1].isascii():
        raise CommandError("E_ROOTFS_FILE", _HOST_KEY, "is no ed25519 public key")
    return f"{words[0]} {words[1]}"
