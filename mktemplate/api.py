"""The functions of `import mktemplate`: what the verbs of their names do, without a word printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Unpack

from mktemplate.console import Console
from mktemplate.container import Container
from mktemplate.failures import translated
from mktemplate.keywords import Options, UpOptions, request
from mktemplate.life import owned, phases
from mktemplate.places import resolve
from runtime import container as runtime


@translated()
def create(template: str, name: str = "", **options: Unpack[Options]) -> Container:
    """Make a container of `template`, all or nothing, and do not start it. E_EXISTS where `name` is taken."""
    with request("create", _words(template, name), options) as asked:
        made = phases.create(asked, Console(quiet=True))
    return Container(made.name, made.path)


@translated()
def up(template: str, name: str = "", **options: Unpack[UpOptions]) -> Container:
    """Create it if it is absent, start it if it is stopped; return it when it is ready.

    An existing container keeps its options. E_LIMIT where it does not get ready in time.
    """
    with request("up", _words(template, name), options) as asked:
        found = phases.up(asked, Console(quiet=True))
    return Container(found.name, found.path)


@contextmanager
def ephemeral(template: str, **options: Unpack[UpOptions]) -> Iterator[Container]:
    """Lend a container under a name of its own, ready; it is destroyed at the end of the block.

    Nothing is left of it either where this process is killed.
    """
    stack = ExitStack()
    try:
        with translated():
            path = resolve(options.get("path", ""))
            owned.sweep(path)
            owned.guard(path)
            found = stack.enter_context(owned.lent(runtime.Container(path, owned.name("run"))))
            with request("up", (template, found.name), options) as asked:
                phases.up(asked, Console(quiet=True))
        yield Container(found.name, found.path)
    finally:
        with translated():
            stack.close()


@translated()
def containers(path: str | os.PathLike[str] = "") -> tuple[Container, ...]:
    """Return the containers below `path`, by default where the command looks for them, by name."""
    place = resolve(path)
    return tuple(Container(one.name, place) for one in runtime.containers(place))


def _words(template: str, name: str) -> tuple[str, ...]:
    return (template, name) if name else (template,)
