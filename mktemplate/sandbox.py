"""One command in a container of its own, for Python programs: `mktemplate.sandbox.run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from mktemplate.console import Console
from mktemplate.failures import translated
from mktemplate.keywords import Options, request
from mktemplate.life import owned
from mktemplate.life.inside import Result, as_argv, capture
from mktemplate.places import containers_path
from runtime.enter import Command


@translated()
def run(
    argv: Sequence[str],
    *,
    template: str = "base",
    user: str = "",
    input: str | bytes = b"",
    timeout: float | None = None,
    **options: Unpack[Options],
) -> Result:
    """Run a command in an ephemeral container of `template`, or of an existing container's layers.

    It has no network but where `network` says so. E_LIMIT after `timeout` seconds: then it is killed. Nothing is left
    of it, either where this process is killed.
    """
    command = as_argv(argv)
    options.setdefault("network", "none")
    with request("run", (template,), options, command) as asked:
        owned.guard(containers_path(asked))
        with owned.idle(asked, Console(quiet=True)) as container:
            return capture(container, Command(argv=command, user=user), input, timeout=timeout)
