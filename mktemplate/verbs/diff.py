"""`diff`: what a container has written over the layers that it is made of."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.life import written
from mktemplate.making import workshop
from mktemplate.places import containers_path
from provisioner import errand
from provisioner.sandbox import Root
from runtime import bundle

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def diff(request: Request, console: Console) -> int:
    """Tell what was added, modified and deleted below a container's upper layer."""
    path, name = containers_path(request), container_name(request.words[0])
    found = bundle.read(path / name)
    if found.record.flat or not found.record.layers:
        raise CommandError(
            "E_PARAM", name, "has no layers to compare with: its rootfs/ is all that it is"
        )
    with ExitStack() as opened, closing(workshop.store(path)) as store:
        layers = [store.layer(digest) for digest in found.record.layers]
        if None in layers:
            raise CommandError("E_CORRUPT", name, "one of its layers is gone")
        places = [found.path / "upper", *(layer.path for layer in reversed(layers) if layer)]
        handles = [os.open(place, _OPEN) for place in places]
        for handle in handles:
            opened.callback(os.close, handle)
        sandbox = workshop.owners()
        if sandbox is None:
            rows = written.changes(handles[0], handles[1:])
        else:  # what subordinate ids own opens only for their root
            rows = errand.send(
                sandbox,
                Root(upper=places[0]),
                lambda: written.changes(handles[0], handles[1:]),
            )
    value = {"name": name, "changes": [{"kind": kind, "path": where} for kind, where in rows]}
    console.result(value, "\n".join(f"{kind} {where}" for kind, where in rows))
    return 0
