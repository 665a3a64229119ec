"""`import` and `pull`: a container of an image from a file or a registry."""

from __future__ import annotations

import os
import re
import time

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.life import phases
from mktemplate.life.views import container_object, timings
from mktemplate.making.assembly import Made
from mktemplate.places import containers_path
from mktemplate.shipping import importing
from provisioner.image import reference as references
from runtime.container import Container

_ENDING = re.compile(r"(\.oci|\.docker)?(\.tar)?(\.gz|\.xz|\.zst|\.tgz|\.txz)?")


def import_(request: Request, console: Console) -> int:
    """Make a container of the image in a file."""
    begun = time.monotonic()
    file = request.words[0]
    bare = os.path.basename(os.path.abspath(file))
    name = container_name(request.words[1] if len(request.words) > 1 else _stem(bare))
    facts = importing.facts(name, request.build)
    path = containers_path(request)
    made = importing.import_file(file, facts, request.flags.image, request, path, console)
    return _report(made, request, console, begun)


def pull(request: Request, console: Console) -> int:
    """Make a container of an image in a registry."""
    begun = time.monotonic()
    reference = references.parse(request.words[0])
    last = reference.repository.rpartition("/")[2]
    name = container_name(request.words[1] if len(request.words) > 1 else last)
    facts = importing.facts(name, request.build)
    made = importing.pull(reference, facts, request, containers_path(request), console)
    return _report(made, request, console, begun)


def _stem(name: str) -> str:
    """Return a file's name without the endings of archives."""
    for length in range(1, len(name)):
        if _ENDING.fullmatch(name[length:]):
            return name[:length]
    return name


def _report(made: Made, request: Request, console: Console, begun: float) -> int:
    container = Container(containers_path(request), made.bundle.name)
    if request.build.start:
        from mktemplate.verbs.up import tell

        phases.bring_up(container, request, console, begun)
        tell(container, console)
        return 0
    name = container.name
    value = {**container_object(container.path, name), "timings": timings(console.timings)}
    console.result(value, "")
    console.step(f"{name}: made in {console.timings['total']:.1f} s; mktemplate start {name}")
    return 0
