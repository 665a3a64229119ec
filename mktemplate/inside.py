"""Running a command inside a container, for `exec`, `shell` and `run`: the exit statuses of cli.md."""

from __future__ import annotations

import sys

from mktemplate.cli import Request
from mktemplate.console import Console
from runtime import enter
from runtime.container import Container


def execute(container: Container, request: Request, console: Console) -> int:
    """Run the request's command inside; a terminal is given where both ends are one, or with -t."""
    flags = request.flags
    both = sys.stdin.isatty() and sys.stdout.isatty()
    sys.stdout.flush()
    return enter.execute(
        container,
        request.command,
        user=flags.user,
        cwd=flags.cwd,
        env=dict(flags.env or request.build.env),
        tty=flags.tty or both,
    )
