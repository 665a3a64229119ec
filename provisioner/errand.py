"""Errands: functions that are sent into a root and answer in JSON; what they refuse there is raised here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from provisioner import errors
from provisioner.disk import disk_error
from provisioner.errors import ProvisionError
from provisioner.sandbox import Root, Sandbox

T = TypeVar("T")  # JSON values


def send(sandbox: Sandbox, root: Root, function: Callable[[], T]) -> T:
    """Return what `function` returns when it is called inside `root`.

    Raises the ProvisionError that it raised, with its class, and StoreFailed for an OSError.
    """
    with begin(sandbox, root, function) as answered:
        return answered()


@contextmanager
def begin(sandbox: Sandbox, root: Root, function: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Have `function` called inside `root` beside the block; what is yielded waits and answers as `send` does."""
    with sandbox.begin(root, lambda: packed(function)) as answered:
        yield lambda: opened(answered(), root)


def opened(told: bytes, root: Root) -> Any:  # noqa: ANN401  # any JSON value
    """Return what was `packed` in the child, or raise as `send` does."""
    answer = json.loads(told)
    if "refused" in answer:
        kind, code, subject, detail, hints = answer["refused"]
        raise getattr(errors, kind, ProvisionError)(code, subject, detail, hints=tuple(hints))
    if "errno" in answer:
        raise disk_error(OSError(answer["errno"], answer["detail"]), root.upper)
    return answer["done"]


def packed(function: Callable[[], Any]) -> bytes:
    """Return what `function` returns or refuses. Run in the child, which may import nothing and raise nothing."""
    return tried(function)[1]


def tried(function: Callable[[], Any]) -> tuple[bool, bytes]:
    """Return whether `function` returned, and what it returned or refused, `packed`."""
    answer: dict[str, Any]
    try:
        answer = {"done": function()}
    except ProvisionError as refused:
        words = [
            type(refused).__name__,
            refused.code,
            refused.subject,
            refused.detail,
            refused.hints,
        ]
        answer = {"refused": words}
    except OSError as problem:
        detail = f"{problem.strerror}: {problem.filename!r}" if problem.filename else str(problem)
        answer = {"errno": problem.errno or 0, "detail": detail}
    return "done" in answer, json.dumps(answer).encode()
