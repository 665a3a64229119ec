"""Where an untrusted template is rendered: a child of its own that can do nothing but compute and answer (T-62).

It has no descriptor but its end of a pipe, limits on time and memory, and a seccomp filter that leaves it what an
allocator and a clock need: it opens no file, no socket and no program, whatever a template may do to Jinja's sandbox.
So what it renders from is in memory (`held`), and what it may need of Python is imported before.
"""

from __future__ import annotations

import base64
import codecs
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, NoReturn

from mktemplate.errors import CommandError, Several
from runtime import confinement, perform, seccomp
from runtime.kernel import process
from runtime.program import Call

_SECONDS = 5  # of processor time
_WALL = 60.0  # seconds: a busy machine gives little of them
_MEMORY = 256 << 20  # bytes beyond what the process has
_ANSWER = 64 << 20  # bytes
# What is imported only when it is needed: by Jinja's filters and errors, by `nearest`, by the tree's parser.
_LATER = ("difflib", "textwrap", "jinja2.debug", "provisioner.treetext")
_CALLS = """
    brk mmap munmap mremap mprotect madvise read write close lseek exit exit_group futex rt_sigaction rt_sigprocmask
    rt_sigreturn sigaltstack clock_gettime gettimeofday getrandom getpid gettid sched_yield rseq membarrier getrusage
"""


def confined(
    act: Callable[[], tuple[Mapping[str, str], Mapping[str, bytes]]], name: str
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the texts and bodies that `act` gives when it is called in a limited child."""
    steps = _confinement()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(act, writing, steps)
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
    act: Callable[[], tuple[Mapping[str, str], Mapping[str, bytes]]],
    writing: int,
    steps: Sequence[Call],
) -> NoReturn:
    """Render and answer; never return."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _limit()
        _shut(writing)
        perform.perform(steps, {})
        answer = _answer(act)
        view = memoryview(json.dumps(answer).encode())
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(0)


@lru_cache(maxsize=1)
def _confinement() -> tuple[Call, ...]:
    """Return what loads the filter: all that is not listed fails with EPERM. What the child may import is imported."""
    profile = "\n".join(("2", "allowlist errno 1", *_CALLS.split(), ""))
    for module in _LATER:
        import_module(module)
    codecs.lookup("unicode-escape")  # which Jinja's lexer asks for
    no_new_privs = Call(name="prctl", args=(process.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return (no_new_privs, *confinement.seccomp(seccomp.compile_profile(profile, "jail")))


def _shut(writing: int) -> None:
    """Close every descriptor but `writing`; the first three lead nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    process.close_range(3, writing - 1)
    process.close_range(writing + 1, 2**32 - 1)


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
