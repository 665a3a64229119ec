"""Running a command inside a container, for `exec`, `shell` and `run`: the exit statuses of cli.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

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


def succeeds(container: Container, argv: Sequence[str]) -> bool:
    """Whether `argv` succeeds inside; what it says is not heard."""
    child = os.fork()
    if child == 0:
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nothing, number)
            os._exit(enter.execute(container, argv))
        finally:
            os._exit(125)
    return os.waitpid(child, 0)[1] == 0
