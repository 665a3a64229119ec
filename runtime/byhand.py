"""What PATH/NAME/start becomes where it is stale or has a network to attach: Python, which starts the container."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from runtime import failurewords
from runtime.container import Container
from runtime.errors import ContainerError, LaunchError


def main(path: str, name: str, *more: str) -> NoReturn:
    """Start the container NAME below PATH; one word more says not to wait for its end."""
    container = Container(path, name)
    try:
        program = container.start_program()
        if program and not (program.wired or program.grouped):
            os.execv(program.path, [str(program.path), *more])  # noqa: S606  # there is no shell
        begun = container.start(foreground=not more)
    except ContainerError as error:
        sys.stderr.write(failurewords.text(error.code, error.subject, error.detail, error.hints))
        os._exit(error.status if isinstance(error, LaunchError) else 125)
    if more:
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(begun.monitor, 0)[1])
    os._exit(status if status >= 0 else 128 - status)
