"""`list`, `info`, `logs`: what there is. They change nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console, age_text, bytes_text
from mktemplate.errors import CommandError, escape
from mktemplate.life import logged, views
from mktemplate.places import containers_path
from runtime.container import Container, containers


def list_all(request: Request, console: Console) -> int:
    """List the containers below PATH; one that is damaged is named, the others are still shown."""
    rows: list[dict[str, object]] = []
    for container in containers(containers_path(request)):
        try:
            found = container.bundle
            row = views.describe(container, found)
        except Exception as failure:  # one damaged container must not hide the others
            if not hasattr(failure, "code"):
                raise
            console.error(failure, to_stdout=False)
            continue
        row["memory"] = views.usage(container).get("memory")
        row["age"] = round(views.age(found.record.created), 1)
        rows.append(row)
    if console.json:
        console.document(rows)
        return 0
    console.text(listed(rows, _COLUMNS, console))
    return 0


_COLUMNS = ("name", "state", "template", "distro", "ips", "ports", "pid", "memory", "age")


def listed(rows: list[dict[str, object]], columns: Sequence[str], console: Console) -> str:
    """Return a table of containers' objects, as people read them."""
    shown = []
    for row in rows:
        memory, seconds = row.get("memory"), row.get("age")
        shown.append(
            {
                **row,
                "distro": f"{row['distro']}/{row['release']}" if row.get("distro") else "",
                "state": f"{row['state']} (oom)" if row.get("oom_kills") else row["state"],
                "ready": "yes" if row.get("ready") else "",
                "ips": " ".join(_strings(row["ips"])),
                "ports": " ".join(_port_text(port) for port in _dicts(row["ports"])),
                "memory": bytes_text(memory) if isinstance(memory, int) else "",
                "age": age_text(seconds) if isinstance(seconds, float) else "",
            }
        )
    return console.table(columns, shown)


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _port_text(port: dict[str, object]) -> str:
    address = str(port["address"])
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port['host']}->{port['container']}/{port['proto']}"


def info(request: Request, console: Console) -> int:
    """Tell everything about one container; --isolation tries from inside what is forbidden."""
    path, name = containers_path(request), container_name(request.words[0])
    container = Container(path, name)
    value = views.info(container, isolation=request.flags.isolation)
    console.result(value, _info_page(value))
    return 0


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
    raw.write(logged.tail(log, request.flags.lines))
    raw.flush()
    if request.flags.follow:
        for chunk in logged.follow(container, log):
            raw.write(chunk)
            raw.flush()
    return 0
