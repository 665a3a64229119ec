"""`create`: a container is made, not started."""

from __future__ import annotations

import time

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.life import phases
from mktemplate.life.views import container_object, timings


def create(request: Request, console: Console) -> int:
    """Make a container, all or nothing; with --start start it too."""
    begun = time.monotonic()
    if request.build.dry_run:
        from mktemplate.verbs.plan import plan

        return plan(request, console)
    container = phases.create(request, console)
    name = container.name
    if request.build.start:
        from mktemplate.verbs.up import tell

        phases.bring_up(container, request, console, begun)
        tell(container, console)
        return 0
    value = {**container_object(container.path, name), "timings": timings(console.timings)}
    console.result(value, "")
    console.step(f"{name}: created in {console.timings['total']:.1f} s; mktemplate start {name}")
    return 0
