"""`autostart` and `unit`: containers that come and go with their host."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console
from mktemplate.errors import Several
from mktemplate.places import containers_path
from runtime.container import Container, containers

_GRACE = 10.0  # seconds between asking and killing
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,=-]+", re.ASCII)


def autostart(request: Request, console: Console) -> int:
    """Start what is marked lxc.start.auto, lowest lxc.start.order first; or stop it, the other way round."""
    failures: list[Exception] = []
    marked: list[tuple[int, str, int, Container]] = []
    for container in containers(containers_path(request)):
        with _collected(failures):
            config = container.config
            if config.start_auto:
                order = (config.start_order, container.name)
                marked.append((*order, config.start_delay, container))
    marked.sort(key=lambda one: one[:2], reverse=request.flags.stop)
    act, word = (_stop, "stopped") if request.flags.stop else (_start, "started")
    done: list[dict[str, object]] = []
    for _, name, delay, container in marked:
        with _collected(failures):
            if act(container):
                console.step(f"{name}: {word}")
                done.append({"name": name, "state": container.state()})
                time.sleep(0 if request.flags.stop else delay)  # what lxc.start.delay asks for
    if console.json:
        console.document(done)
    if failures:
        raise Several(tuple(failures))
    return 0


@contextmanager
def _collected(failures: list[Exception]) -> Iterator[None]:
    """Keep a failure of the contract for later: the others must still be tried."""
    try:
        yield
    except Exception as failure:
        if not hasattr(failure, "code"):
            raise
        failures.append(failure)


def _start(container: Container) -> bool:
    if container.state() not in {"STOPPED", "ABORTING"}:
        return False
    container.start()
    return True


def _stop(container: Container) -> bool:
    if container.state() == "STOPPED":
        return False
    container.stop(_GRACE)
    return True


def unit(request: Request, console: Console) -> int:
    """Print a systemd unit that runs the container in the foreground; systemd's own means do the rest."""
    path, name = containers_path(request), container_name(request.words[0])
    found = Container(path, name).bundle
    command = " ".join(map(_quoted, (*_command(), "--path", str(path))))
    what = f" ({found.record.template})" if found.record.template else ""
    console.text(
        f"""\
# mktemplate unit {name} >/etc/systemd/system/mktemplate-{name}.service
# systemctl daemon-reload && systemctl enable --now mktemplate-{name}
[Unit]
Description=container {name}{what}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command} start --foreground {name}
ExecStop={command} stop {name}
KillMode=mixed
TimeoutStopSec=30
SuccessExitStatus=143
Restart=on-failure
Delegate=yes

[Install]
WantedBy={"multi-user.target" if os.geteuid() == 0 else "default.target"}
"""
    )
    return 0


def _command() -> tuple[str, ...]:
    """Return how this command can be called from anywhere: installed, from a checkout, or as a module."""
    installed = os.path.join(os.path.dirname(sys.executable), "mktemplate")
    packaged = _home().endswith(("site-packages", "dist-packages"))
    for program in (installed if packaged else "", os.path.join(_home(), "scripts", "mktemplate")):
        if os.access(program, os.X_OK):
            return (program,)
    return ("/usr/bin/env", f"PYTHONPATH={_home()}", sys.executable, "-P", "-m", "mktemplate")


def _home() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _quoted(word: str) -> str:
    """Return `word` as systemd reads it back (systemd.service(5), "Command lines")."""
    word = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
