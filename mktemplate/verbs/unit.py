"""`unit`: a container as systemd supervises it, from boot on or from its first connection on."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.places import containers_path
from runtime import aside
from runtime.bundle import Bundle, Port
from runtime.container import Container

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,=-]+", re.ASCII)


def unit(request: Request, console: Console) -> int:
    """Print the container's systemd units, or write them into the directory of -o."""
    path, name = containers_path(request), container_name(request.words[0])
    found = Container(path, name).bundle
    if request.flags.idle and not request.flags.socket:
        raise CommandError("E_USAGE", "unit --idle", "goes with --socket")
    command = " ".join(map(_quoted, (*_command(), "--path", str(path))))
    stem = f"mktemplate-{name}"
    if request.flags.socket:
        texts = {
            f"{stem}.socket": _socket(found),
            f"{stem}.service": _service(found, command, idle=request.flags.idle, by_socket=True),
        }
        enable = f"{stem}.socket"
    else:
        texts = {f"{stem}.service": _service(found, command)}
        enable = stem
    folder, user = ("/etc/systemd/system", "") if os.geteuid() == 0 else (_USERS, " --user")
    if request.flags.output:
        for file, text in texts.items():
            (Path(request.flags.output) / file).write_text(text, encoding="utf-8")
            console.step(f"wrote {request.flags.output}/{file}")
    else:
        for file, text in texts.items():
            console.text(f"# {folder}/{file}\n{text}")
    console.note(f"systemctl{user} daemon-reload && systemctl{user} enable --now {enable}")
    return 0


_USERS = "~/.config/systemd/user"


def _service(found: Bundle, command: str, *, idle: int = 0, by_socket: bool = False) -> str:
    """Return the unit that runs the container in the foreground; systemd's own means do the rest."""
    name = found.name
    if by_socket:
        until = f" --idle {idle}s" if idle else ""
        return f"""\
[Unit]
Description={_description(found)}, from its first connection on

[Service]
Type=exec
ExecStart={command} start --foreground{until} {name}
ExecStop={command} stop {name}
{_KILL}
"""
    return f"""\
[Unit]
Description={_description(found)}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command} start --foreground {name}
ExecStop={command} stop {name}
{_KILL}
Restart=on-failure

[Install]
WantedBy={"multi-user.target" if os.geteuid() == 0 else "default.target"}
"""


_KILL = """\
KillMode=mixed
TimeoutStopSec=30
SuccessExitStatus=143
Delegate=yes"""


def _socket(found: Bundle) -> str:
    """Return the unit that listens in the container's stead."""
    record = found.record
    if record.template and not record.sockets:
        raise CommandError(
            "E_USAGE",
            f"unit {found.name} --socket",
            f"the service of {record.template} cannot be given sockets",
            hints=(f"mktemplate unit {found.name} starts it at boot",),
        )
    if not record.ports:
        raise CommandError(
            "E_USAGE",
            f"unit {found.name} --socket",
            "it publishes no port that systemd could listen on",
            hints=(f"mktemplate create {record.template or 'TEMPLATE'} NAME --publish HOST:PORT",),
        )
    if record.sockets == "nginx":
        for port in record.ports:
            _must_be_its_own(found, port)
    lines = "\n".join(map(_listen, record.ports))
    return f"""\
[Unit]
Description={_description(found)}

[Socket]
{lines}

[Install]
WantedBy=sockets.target
"""


def _must_be_its_own(found: Bundle, port: Port) -> None:
    """Raise E_USAGE for a socket that nginx would close: it keeps those with an address of its own configuration."""
    if port.address != "0.0.0.0" or port.host != port.container:  # noqa: S104  # the address that nginx listens on
        raise CommandError(
            "E_USAGE",
            f"unit {found.name} --socket",
            f"nginx takes a socket only on the address it would listen on, 0.0.0.0:{port.container}",
            hints=(
                f"create it with --set port={port.host} --publish 0.0.0.0:{port.host}:{port.host}",
            ),
        )


def _listen(port: Port) -> str:
    return f"Listen{'Stream' if port.proto == 'tcp' else 'Datagram'}={port.where}"


def _description(found: Bundle) -> str:
    template = f" ({found.record.template})" if found.record.template else ""
    return f"container {found.name}{template}"


def _command() -> tuple[str, ...]:
    """Return how this command can be called from anywhere: installed, from a checkout, or as a module."""
    installed = os.path.join(os.path.dirname(sys.executable), "mktemplate")
    packaged = aside.HOME.endswith(("site-packages", "dist-packages"))
    for program in (
        installed if packaged else "",
        os.path.join(aside.HOME, "scripts", "mktemplate"),
    ):
        if os.access(program, os.X_OK):
            return (program,)
    return ("/usr/bin/env", f"PYTHONPATH={aside.HOME}", sys.executable, "-P", "-m", "mktemplate")


def _quoted(word: str) -> str:
    """Return `word` as systemd reads it back (systemd.service(5), "Command lines")."""
    word = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
