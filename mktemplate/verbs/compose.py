"""`compose up|down|ps`: the containers of one file, together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from mktemplate.cli.parsing import Request, parse
from mktemplate.console import Console
from mktemplate.errors import CommandError, Several, escape, meant
from mktemplate.life import fleet, phases
from mktemplate.life.fleet import Fleet, Service
from mktemplate.life.views import container_object
from mktemplate.making.recorded import shown
from mktemplate.places import containers_path
from runtime.container import Container
from runtime.errors import StateError
from valuetypes import replace

ABSENT = "ABSENT"  # of a service that has no container yet
_OVER = ("STOPPED", "ABORTING")


def compose(request: Request, console: Console) -> int:
    """Do what is asked with every service of the file."""
    action, file = request.words
    if action not in _ACTIONS:
        hint = meant(action, tuple(_ACTIONS), f"there is {', '.join(_ACTIONS)}")
        raise CommandError("E_USAGE", f"compose {escape(action)}", "no such action", hints=(hint,))
    return _ACTIONS[action](fleet.read(file), request, console)


def _up(wanted: Fleet, request: Request, console: Console) -> int:
    """Have each service ready before those start that depend on it."""
    from mktemplate.making import asked
    from mktemplate.verbs import up

    if request.template_path:
        request = replace(request, template_path=os.path.abspath(request.template_path))
    containers = _containers(wanted, request)
    told = []
    with contextlib.chdir(wanted.file.parent):  # what the file names is seen from where it lies
        requests = {
            service.name: _request(service, wanted, request, containers[service.name].path)
            for service in wanted.services
        }
        for name, each in requests.items():
            if _made_by(containers[name]) is None:
                asked.understood(each)  # raises: nothing starts where a later one cannot be meant
        for service in wanted.services:  # a console for each: timings are one container's
            own = Console(quiet=request.quiet, verbose=request.verbose, color=request.color)
            container = phases.up(requests[service.name], own)
            told.append({**up.told(container, own), "depends_on": list(service.depends_on)})
            up.say(container, own)
    console.result({"file": str(wanted.file), "services": told}, "")
    return 0


def _request(service: Service, wanted: Fleet, request: Request, path: Path) -> Request:
    """Return the request that `up` of one service is."""
    own = parse(service.argv)
    timeout = request.flags.timeout if own.flags.timeout is None else own.flags.timeout
    return replace(
        own,
        path=str(path),
        template_path=request.template_path,
        compose=str(wanted.file),
        flags=replace(own.flags, timeout=timeout),
    )


def _containers(wanted: Fleet, request: Request) -> dict[str, Container]:
    """Return each service's container; raise E_EXISTS for one of such a name that the file did not make."""
    path = containers_path(request)
    found = {service.name: Container(path, service.name) for service in wanted.services}
    foreign = tuple(
        CommandError(
            "E_EXISTS",
            name,
            f"is a container that {wanted.file} did not make",
            hints=("give the service another name, or remove that container",),
        )
        for name, container in found.items()
        if _made_by(container) not in (None, str(wanted.file))
    )
    if foreign:
        raise Several(foreign)
    return found


def _made_by(container: Container) -> str | None:
    """Return the file that a container was made by, "" for none; None where there is no such container."""
    try:
        return shown(container.bundle.record.options).get("compose", "")
    except StateError as error:
        if error.code != "E_NOTFOUND":
            raise
        return None


def _down(wanted: Fleet, request: Request, console: Console) -> int:
    """Stop what runs, the last started first; with --destroy remove it all."""
    timeout = phases.GRACE if request.flags.timeout is None else float(request.flags.timeout)
    containers = _containers(wanted, request)
    rows, failures = [], []
    for service in reversed(wanted.services):
        container = containers[service.name]
        if _made_by(container) is None:
            continue
        try:
            if container.state() not in _OVER:
                phases.stop(container, timeout)
                console.step(f"{container.name}: stopped")
            if request.flags.destroy:
                container.destroy(force=True)
                console.step(f"{container.name}: destroyed")
        except Exception as failure:  # collected: the others must still be tried
            if not hasattr(failure, "code"):
                raise
            failures.append(failure)
        rows.append({"name": service.name, "state": _state(container)})
    if failures:
        raise Several(tuple(failures))
    console.result({"file": str(wanted.file), "services": rows}, "")
    return 0


def _state(container: Container) -> str:
    return ABSENT if _made_by(container) is None else container.state()


def _ps(wanted: Fleet, request: Request, console: Console) -> int:
    """List the services of the file, those that are not there too."""
    from mktemplate.verbs.look import listed

    path = containers_path(request)
    rows = [_row(service, path, wanted.file) for service in wanted.services]
    console.result(
        rows, listed(rows, ("name", "state", "ready", "template", "ips", "ports"), console)
    )
    return 0


def _row(service: Service, path: Path, file: Path) -> dict[str, object]:
    container = Container(path, service.name)
    about: dict[str, object] = {"name": service.name, "state": ABSENT, "ready": False}
    if _made_by(container) == str(file):
        about = container_object(path, service.name)
    else:
        about |= {"template": service.template, "ips": [], "ports": []}
    return {**about, "depends_on": list(service.depends_on)}


_ACTIONS: dict[str, Callable[[Fleet, Request, Console], int]] = {
    "up": _up,
    "down": _down,
    "ps": _ps,
}
