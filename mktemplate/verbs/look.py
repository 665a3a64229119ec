"""`list`, `info`, `logs`: what there is. They change nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console, age_text, bytes_text
from mktemplate.errors import CommandError, escape
from mktemplate.places import containers_path
from mktemplate.views import age, describe
from runtime import cgroup as cgroups
from runtime.container import Container, containers

_CHUNK = 1 << 16
_CONSOLE_LINES = 24
_LOOK_AGAIN = 0.2  # seconds between two looks at a log that is followed


def list_all(request: Request, console: Console) -> int:
    """List the containers below PATH; one that is damaged is named, the others are still shown."""
    rows: list[dict[str, object]] = []
    for container in containers(containers_path(request)):
        try:
            found = container.bundle
            row = describe(container, found)
        except Exception as failure:  # one damaged container must not hide the others
            if not hasattr(failure, "code"):
                raise
            console.error(failure, to_stdout=False)
            continue
        row["memory"] = _usage(container).get("memory")
        row["age"] = round(age(found.record.created), 1)
        rows.append(row)
    if console.json:
        console.document(rows)
        return 0
    console.text(_list_table(rows, console))
    return 0


def _list_table(rows: list[dict[str, object]], console: Console) -> str:
    shown = []
    for row in rows:
        memory, seconds = row["memory"], row["age"]
        shown.append(
            {
                **row,
                "distro": f"{row['distro']}/{row['release']}" if row["distro"] else "",
                "state": f"{row['state']} (oom)" if row["oom_kills"] else row["state"],
                "ips": " ".join(_strings(row["ips"])),
                "ports": " ".join(_port_text(port) for port in _dicts(row["ports"])),
                "memory": bytes_text(memory) if isinstance(memory, int) else "",
                "age": age_text(seconds) if isinstance(seconds, float) else "",
            }
        )
    columns = ("name", "state", "template", "distro", "ips", "ports", "pid", "memory", "age")
    return console.table(columns, shown)


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _port_text(port: dict[str, object]) -> str:
    return f"{port['address']}:{port['host']}->{port['container']}/{port['proto']}"


def _usage(container: Container) -> dict[str, object]:
    run = container.run
    if run is None or not run.cgroup or container.state() == "STOPPED":
        return {}
    try:
        return asdict(cgroups.Cgroup.from_json(run.cgroup).usage())
    except OSError:
        return {}  # it ended just now


def info(request: Request, console: Console) -> int:
    """Tell everything about one container; --isolation tries from inside what is forbidden."""
    path, name = containers_path(request), container_name(request.words[0])
    container = Container(path, name)
    found = container.bundle
    config = container.config
    record, run = found.record, container.run
    value: dict[str, object] = {
        **describe(container, found),
        "config": _text(found.config),
        "mounts": [
            line for line in _text(found.path / "fstab").split("\n") if line and line[0] != "#"
        ],
        "layers": list(record.layers),
        "packages": [
            {"name": package, "version": version, "arch": arch}
            for package, version, arch in record.packages
        ],
        "profile": record.profile,
        "options": dict(record.options),
        "limits": {key: value for key, value in config.cgroup2 if not key.startswith("devices.")},
        "usage": _usage(container),
        "isolation": {
            "user_namespace": bool(config.idmap),
            "id_range": list(record.id_range),
            "no_new_privs": config.no_new_privs,
            "capabilities_dropped": list(config.cap_drop),
            "seccomp": config.seccomp_profile or None,
        },
        "degraded": [*record.degraded, *(run.degraded if run else ())],
        "notes": [*record.notes, *(run.notes if run else ())],
        "timings": {key: round(seconds, 3) for key, seconds in record.timings},
        "connect": record.connect,
    }
    if request.flags.isolation:
        from runtime.isolation import isolation

        value["tried"] = [asdict(verdict) for verdict in isolation(container)]
    console.result(value, _info_page(value))
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError:
        return ""


def _info_page(value: dict[str, object]) -> str:
    """Return an info object as lines; what is long is counted."""
    return "\n".join(f"{key}: {_cell(key, item, value) or '-'}" for key, item in value.items())


def _cell(key: str, item: object, value: dict[str, object]) -> str:
    if key == "config":
        return f"{value['path']}/config"
    if key == "packages" and isinstance(item, list):
        return f"{len(item)} (mktemplate info --json lists them)"
    if isinstance(item, dict):
        return ", ".join(f"{name}={_short(part)}" for name, part in item.items())
    if isinstance(item, list):
        return "".join(f"\n    {_short(part)}" for part in item)
    return "" if item is None else str(item)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def logs(request: Request, console: Console) -> int:
    """Print what the service wrote; -f goes on until the container stops."""
    path, name = containers_path(request), container_name(request.words[0])
    container = Container(path, name)
    log = container.bundle.log
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:
        raise CommandError("E_IO", escape(name), "standard output takes no bytes")
    raw.write(_tail(log, request.flags.lines))
    raw.flush()
    if request.flags.follow:
        for chunk in _follow(container, log):
            raw.write(chunk)
            raw.flush()
    return 0


def console(request: Request, screen: Console) -> int:
    """Show what the container writes to its console as it comes: no terminal of ours is inside, so none can type."""
    from dataclasses import replace

    flags = replace(request.flags, follow=True, lines=request.flags.lines or _CONSOLE_LINES)
    if Container(containers_path(request), container_name(request.words[0])).state() == "STOPPED":
        flags = replace(flags, follow=False)
    screen.note("the console is written, not read; `mktemplate shell` gives a terminal inside")
    return logs(replace(request, flags=flags), screen)


def _tail(log: Path, lines: int | None) -> bytes:
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


def _follow(container: Container, log: Path) -> Iterator[bytes]:
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
