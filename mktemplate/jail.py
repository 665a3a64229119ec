"""Where an untrusted template is rendered: a child of its own with limits on time and memory (T-62).

The child inherits no descriptor but its end of a pipe, can make no file and no process, and answers in JSON. What it
cannot do beyond that is the Jinja sandbox's matter: it holds the caller's rights, which are root's for `create`.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from mktemplate.errors import CommandError, Several

_SECONDS = 5  # of processor time
_WALL = 15.0  # seconds
_MEMORY = 256 << 20  # bytes beyond what the process has
_ANSWER = 64 << 20  # bytes


def confined(
    act: Callable[[], tuple[Mapping[str, str], Mapping[str, bytes]]], name: str
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the texts and bodies that `act` gives when it is called in a limited child."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(act, writing)
    os.close(writing)
    try:
        data = _read(reading, time.monotonic() + _WALL)
    finally:
        os.close(reading)
        _end(pid)
    if not data:
        raise CommandError(
            "E_TEMPLATE_LIMIT", name, f"needs more than {_SECONDS} s, or more than 256 MiB"
        )
    answer = json.loads(data)
    if "errors" in answer:
        failures = tuple(_told(failure) for failure in answer["errors"])
        raise failures[0] if len(failures) == 1 else Several(failures)
    bodies = {key: base64.b64decode(body) for key, body in answer["bodies"].items()}
    return answer["texts"], bodies


def _child(
    act: Callable[[], tuple[Mapping[str, str], Mapping[str, bytes]]], writing: int
) -> NoReturn:
    """Render and answer; never return."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _limit()
        answer = _answer(act)
        view = memoryview(json.dumps(answer).encode())
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(0)


def _limit() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _answer(
    act: Callable[[], tuple[Mapping[str, str], Mapping[str, bytes]]],
) -> dict[str, object]:
    try:
        texts, bodies = act()
    except Several as several:
        return {"errors": [_failure(one) for one in several.failures]}
    except Exception as error:  # noqa: BLE001  # it goes to the parent, which raises it
        return {"errors": [_failure(error)]}
    encoded = {key: base64.b64encode(body).decode() for key, body in bodies.items()}
    return {"texts": dict(texts), "bodies": encoded}


def _failure(error: Exception) -> dict[str, object]:
    """Return a failure of the contract as JSON has it; of another exception only its kind is told."""
    known = hasattr(error, "code") and hasattr(error, "subject")
    return {
        "code": str(getattr(error, "code", "")) if known else "E_TEMPLATE_SYNTAX",
        "subject": str(getattr(error, "subject", "")) if known else "template",
        "detail": str(getattr(error, "detail", "")) if known else type(error).__name__,
        "hints": list(getattr(error, "hints", ())),
        "path": getattr(error, "path", None),
        "line": getattr(error, "line", None),
    }


def _told(failure: Mapping[str, Any]) -> CommandError:
    return CommandError(
        failure["code"],
        failure["subject"],
        failure["detail"],
        hints=tuple(failure["hints"]),
        path=failure["path"],
        line=failure["line"],
    )


def _read(reading: int, deadline: float) -> bytes:
    """Return what the child answers; nothing where it dies, talks too much, or is too slow."""
    data = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return b""
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > _ANSWER:
            return b""


def _end(pid: int) -> None:
    """Kill what is left of the child, and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
