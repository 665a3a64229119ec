"""How an init is asked to end: which signal, and whether it would notice (lxc.signal.halt)."""

from __future__ import annotations

import signal
from contextlib import suppress

SIGPWR = 30


def _mask(pid: int, field: str) -> int:
    """Return a signal mask of /proc/PID/status; 0 where it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file.read().split(b"\n"):
            name, _, value = line.partition(b":")
            if name.decode() == field:
                return int(value, 16)
    return 0


def listens(pid: int, number: int) -> bool:
    """Whether pid 1 would notice: without a handler the kernel drops a signal to it, and waiting is useless."""
    bit = 1 << (number - 1)
    return bool((_mask(pid, "SigCgt") | _mask(pid, "SigBlk")) & bit)


def default_halt(pid: int) -> int:
    """Return SIGRTMIN+3 for an init that blocks it, as systemd does; else SIGPWR (LXC's rule)."""
    systemd = signal.SIGRTMIN + 3
    return systemd if _mask(pid, "SigBlk") & 1 << (systemd - 1) else SIGPWR
