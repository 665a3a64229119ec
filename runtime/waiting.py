"""Waiting for what becomes of a container, woken by the kernel: its run state changed, its monitor or init ended."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from runtime import state
from runtime.kernel import process
from runtime.state import RunState


def until(
    path: Path, holds: Callable[[], bool], run: Callable[[], RunState | None], timeout: float | None
) -> bool:
    """Wait until `holds()` of a container below `path`, whose run state is `run()`; False after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    watch = process.inotify_init1(process.IN_CLOEXEC)
    try:
        folder = state.directory(path)
        process.inotify_add_watch(watch, str(folder), process.IN_MOVED_TO | process.IN_DELETE)
        while not holds():
            now = run()
            monitor, init = (now.monitor, now.init) if now else (state.NOBODY, state.NOBODY)
            with monitor.alive() as watching, init.alive() as running:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                awaited = [watch, *(fd for fd in (watching, running) if fd is not None)]
                if watch in select.select(awaited, [], [], left)[0]:
                    os.read(watch, 64 << 10)
        return True
    finally:
        os.close(watch)
