"""Running a command inside a container: with our streams for `exec`, `shell`, `run`, or with its output kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from runtime import enter
from runtime.container import Container
from runtime.enter import Command
from runtime.errors import ContainerError
from valuetypes import dataclass


def execute(container: Container, request: Request, console: Console) -> int:
    """Run the request's command inside; a terminal is given where both ends are one, or with -t."""
    flags = request.flags
    both = sys.stdin.isatty() and sys.stdout.isatty()
    sys.stdout.flush()
    if not (flags.tty or both or flags.user or flags.cwd or flags.env or request.build.env):
        from runtime import execprogram

        execprogram.keep(container)
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
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return enter.run(container, Command(argv=tuple(argv)), (nothing, nothing, nothing)) == 0
    except ContainerError:
        return False
    finally:
        os.close(nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended, as subprocess.CompletedProcess tells it: `returncode` is 128+N for signal N.

    Output is text; bytes that are no UTF-8 come back by `.encode("utf-8", "surrogateescape")`.
    """

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def check_returncode(self) -> None:
        """Raise subprocess.CalledProcessError where the command failed, as CompletedProcess does."""
        if self.returncode:
            from subprocess import CalledProcessError

            raise CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)


def capture(
    container: Container,
    command: Command,
    input: str | bytes = b"",
    *,
    timeout: float | None = None,
) -> Result:
    """Run `command` inside with `input` on its standard input; return how it ended and what it wrote.

    Its output is kept in memory, whole. LaunchError (E_LIMIT) after `timeout` seconds: then it is killed.
    """
    with ExitStack() as stack:
        files = [
            stack.enter_context(os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC), "r+b", 0))
            for name in ("stdin", "stdout", "stderr")
        ]
        files[0].write(input.encode() if isinstance(input, str) else input)
        files[0].seek(0)
        kept = (files[0].fileno(), files[1].fileno(), files[2].fileno())
        status = enter.run(container, command, kept, timeout)
        for file in files[1:]:
            file.seek(0)
        out, err = (file.read().decode("utf-8", "surrogateescape") for file in files[1:])
    return Result(args=command.argv, returncode=status, stdout=out, stderr=err)


def as_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command; E_USAGE for a string, which would be a word a letter, and for none."""
    if isinstance(argv, str) or not argv:
        raise CommandError(
            "E_USAGE",
            "argv",
            "is a list of words",
            hints=('for a shell write ["sh", "-c", "…"]',),
        )
    return tuple(argv)
