"""Whether the kernel killed a container for want of memory: told by its groups while they are, then by the kernel log.

A group that has gone takes its counters with it; the log names the group of every such kill (oom_kill.c).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from runtime import state
from runtime.cgroup import Cgroup
from runtime.container import Container

_KILLED = 137  # 128 + SIGKILL
_NEAR = 10.0  # seconds between such a kill and the end of the container that it was
_RECORD = 8192  # bytes: one read(2) of /dev/kmsg gives one record


def kills(container: Container) -> int:
    """Return how often the kernel killed in it since its start; of one that has ended, 1 if that ended it."""
    run = container.run
    if run is None:
        return 0
    if run.phase != "STOPPED":
        with suppress(OSError, ValueError):
            return Cgroup.from_json(run.cgroup).oom_kills() if run.cgroup else 0
        return 0
    if run.exit_status != _KILLED:
        return 0
    with suppress(OSError):
        ended = os.stat(state.folder(container.path) / f"{container.name}.json").st_mtime
        return int(_logged(state.key(container.path, container.name), ended))
    return 0


def _logged(key: str, ended: float) -> bool:
    """Whether the kernel log has a kill of the group `key` shortly before `ended`."""
    group = f"oom_memcg=/mktemplate/{key},".encode()
    inner = f"/mktemplate/{key}".encode()
    boot = time.time() - time.monotonic()
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(log, _RECORD)
            except BlockingIOError:
                return False
            except BrokenPipeError:  # records were overwritten while we read
                continue
            if b"oom-kill:" in record and (group in record or inner + b"," in record):
                moment = boot + int(record.split(b",")[2]) / 1e6
                if abs(ended - moment) < _NEAR:
                    return True
    finally:
        os.close(log)
