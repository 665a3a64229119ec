"""What a container's service wrote: its log, and the one before it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from runtime.container import Container

_CHUNK = 1 << 16  # bytes
_LOOK_AGAIN = 0.2  # seconds between two looks at a log that is followed


def tail(log: Path, lines: int | None) -> bytes:
    """Return the last `lines` lines (all with None) of the log and of the one before it."""
    data = b""
    for file in (log.with_name(f"{log.name}.1"), log):
        try:
            data += file.read_bytes()
        except FileNotFoundError:
            continue
    if lines is None:
        return data
    kept = data.split(b"\n")
    ended = data.endswith(b"\n")
    last = kept[-(lines + ended) :] if lines else []
    return b"\n".join(last)


def follow(container: Container, log: Path) -> Iterator[bytes]:
    """Yield what is added to the log, until the container has stopped and all was read."""
    position, inode = _end(log)
    while True:
        stopped = container.state() == "STOPPED"
        try:
            with log.open("rb") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    position, inode = 0, os.fstat(file.fileno()).st_ino
                file.seek(position)
                while chunk := file.read(_CHUNK):
                    position += len(chunk)
                    yield chunk
        except FileNotFoundError:
            pass
        if stopped:
            return
        time.sleep(_LOOK_AGAIN)


def _end(log: Path) -> tuple[int, int]:
    try:
        about = log.stat()
    except FileNotFoundError:
        return 0, 0
    return about.st_size, about.st_ino
