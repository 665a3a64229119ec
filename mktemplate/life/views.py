"""A container as `list`, `info`, `up`, `create` and `start` show it: the object of cli.md, Output."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Mapping
from pathlib import Path

from mktemplate.making.recorded import shown
from runtime import cgroup as cgroups
from runtime.bundle import Bundle
from runtime.container import Container
from valuetypes import asdict, replace

_KILLED = 137  # 128 + SIGKILL
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


def container_object(path: Path, name: str) -> dict[str, object]:
    """Return what is known of one container, as JSON prints it."""
    container = Container(path, name)
    return describe(container, container.bundle)


def describe(container: Container, bundle: Bundle) -> dict[str, object]:
    """Return the object of a container whose record was read."""
    record, run, state = bundle.record, container.run, container.state()
    pid = container.pid if state != "STOPPED" else None
    return {
        "name": container.name,
        "state": state,
        "ready": is_ready(container, pid) if pid and state == "RUNNING" else False,
        "template": record.template,
        "distro": record.distro,
        "release": record.release,
        "arch": record.arch,
        "pid": pid,
        "path": str(container.directory),
        "ips": list(run.addresses) if run and pid else [],
        "ports": [
            {
                "address": port.address,
                "host": port.host,
                "container": port.container,
                "proto": port.proto,
            }
            for port in record.ports
        ],
        "created": record.created,
        "started": run.started if run and run.started else None,
        "exit_status": container.exit_status,
        "oom_kills": oom_kills(container),
    }


def info(container: Container, *, isolation: bool = False) -> dict[str, object]:
    """Return everything about a container; with `isolation` also what is forbidden inside, as tried there."""
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
        "image": record.image or None,
        "profile": record.profile,
        "options": shown(record.options),
        "limits": {key: value for key, value in config.cgroup2 if not key.startswith("devices.")},
        "usage": usage(container),
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
    if isolation:
        from runtime.isolation import isolation as tried

        value["tried"] = [asdict(verdict) for verdict in tried(container)]
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError:
        return ""


def usage(container: Container) -> dict[str, object]:
    """Return what a container uses now; nothing where it does not run, or has no control group."""
    run = container.run
    if run is None or not run.cgroup or container.state() == "STOPPED":
        return {}
    try:
        return asdict(cgroups.Cgroup.from_json(run.cgroup).usage())
    except OSError:
        return {}  # it ended just now


def oom_kills(container: Container) -> int:
    """Return how often the kernel killed in the container for want of memory."""
    run = container.run
    if run is None or (run.phase == "STOPPED" and run.exit_status != _KILLED):
        return 0
    from runtime import oom

    return oom.kills(container)


def is_ready(container: Container, pid: int) -> bool:
    """Whether the service accepts now; only `up` and `wait` ask it, or run a command in it."""
    check = container.readiness
    if check.kind in ("port", "file"):
        from runtime import ready

        return ready.is_ready(replace(check, send="", expect=""), pid, lambda argv: False)
    return True


PHASES = ("index", "resolve", "download", "unpack", "configure", "launch", "ready", "total")


def timings(found: Mapping[str, float]) -> dict[str, float]:
    """Return what each phase took, in seconds to the millisecond; one that was not needed took none."""
    return {phase: round(found.get(phase, 0.0), 3) for phase in PHASES}


def age(stamp: str) -> float:
    """Return the seconds since an RFC 3339 stamp of ours, 0 for none."""
    try:
        return max(0.0, time.time() - timegm(time.strptime(stamp, _STAMP)))
    except ValueError:
        return 0.0
