"""/sbin/init for engines that start nothing else: it says what they do not, and becomes the container's own PID 1."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Set

from provisioner.export.flat import Addition
from provisioner.export.image import Image

_HEAD = """\
#!/bin/sh
# PID 1 where the engine starts /sbin/init and nothing else: the reaper takes its signals (SIGPWR, SIGRTMIN+3) and hands
# SIGTERM on to what this container runs.
"""


def addition(image: Image, seen: Set[str]) -> Iterator[Addition]:
    """Yield /sbin/init, unless the tree that has the paths `seen` has one."""
    if {"sbin/init", "usr/sbin/init"} & seen:
        return
    merged = not any(path.startswith("sbin/") for path in seen)  # /sbin is a link into /usr
    path = "usr/sbin/init" if merged else "sbin/init"
    yield Addition(path=path, body=_script(image, seen).encode())


def _script(image: Image, seen: Set[str]) -> str:
    reaper = f"{image.argv[0].rpartition('/')[0]}/reaper"
    argv = (reaper, *image.argv) if reaper.lstrip("/") in seen else image.argv
    lines = [f"export {key}={shlex.quote(value)}\n" for key, value in image.environment]
    return f"{_HEAD}{''.join(lines)}cd {shlex.quote(image.folder)}\nexec {shlex.join(argv)}\n"
