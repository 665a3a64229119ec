"""`top`: what the running containers use, live."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mktemplate.cli.parsing import Request
from mktemplate.console import Console, bytes_text
from mktemplate.places import containers_path
from runtime.cgroup import Cgroup, Usage
from runtime.container import containers
from valuetypes import dataclass

_EVERY = 1.0  # seconds between two looks: a share of a processor needs two
_CLEAR = "\x1b[H\x1b[J"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    usage: Usage
    oom_kills: int
    when: float


def top(request: Request, console: Console) -> int:
    """Show usage every second on a terminal, until q or Ctrl-C; elsewhere once."""
    path = containers_path(request)
    live = sys.stdout.isatty() and sys.stdin.isatty() and not console.json
    before = _look(path)
    with _keys(live):
        while True:
            stopped = _wait(live)
            now = _look(path)
            rows = _rows(before, now)
            if not live:
                console.result(rows, _table(rows, console))
                return 0
            console.text(_CLEAR + _table(rows, console) + "\n\nq ends this")
            if stopped:
                return 0
            before = now


def _look(path: Path) -> dict[str, _Look]:
    found = {}
    for container in containers(path):
        run = container.run
        if run is None or not run.cgroup or container.state() == "STOPPED":
            continue
        group = Cgroup.from_json(run.cgroup)
        try:
            look = _Look(usage=group.usage(), oom_kills=group.oom_kills(), when=time.monotonic())
        except OSError:
            continue  # it ended just now
        found[container.name] = look
    return found


def _rows(before: dict[str, _Look], now: dict[str, _Look]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, look in now.items():
        share = None
        past = before.get(name)
        if past and look.usage.cpu is not None and past.usage.cpu is not None:
            share = round(
                100 * (look.usage.cpu - past.usage.cpu) / max(look.when - past.when, 1e-3), 1
            )
        rows.append(
            {
                "name": name,
                "cpu_percent": share,
                "cpu": look.usage.cpu,
                "memory": look.usage.memory,
                "memory_peak": look.usage.memory_peak,
                "pids": look.usage.pids,
                "oom_kills": look.oom_kills,
            }
        )
    return sorted(rows, key=lambda row: -float(str(row["cpu_percent"] or 0)))


def _table(rows: list[dict[str, object]], console: Console) -> str:
    shown = [
        {
            **row,
            "cpu%": "" if row["cpu_percent"] is None else f"{row['cpu_percent']:.1f}",
            "memory": _bytes(row["memory"]),
            "peak": _bytes(row["memory_peak"]),
            "oom": row["oom_kills"],
        }
        for row in rows
    ]
    return console.table(("name", "cpu%", "memory", "peak", "pids", "oom"), shown)


def _bytes(value: object) -> str:
    return bytes_text(value) if isinstance(value, int) else ""


def _wait(live: bool) -> bool:
    """Wait until it is time for the next look; say whether a key was pressed that ends it."""
    ready = select.select([sys.stdin] if live else [], [], [], _EVERY)[0]
    return bool(ready) and sys.stdin.read(1) in {"q", "Q", ""}


@contextmanager
def _keys(live: bool) -> Iterator[None]:
    """Let single keys come through while the block lasts."""
    if not live:
        yield
        return
    import termios
    import tty

    kept = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)
