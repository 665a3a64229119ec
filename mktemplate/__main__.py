"""main(): the command line → one verb → an exit status. The only place that turns failures into exits."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from mktemplate.cli.parsing import Request, parse
from mktemplate.console import Console
from mktemplate.errors import BUG, CommandError, Interrupted, exit_status
from mktemplate.failures import failures_in

_LAUNCHER_FAILED = 125  # what `run` and `exec` answer for every failure of ours
_BROKEN_PIPE = 128 + signal.SIGPIPE
# Objects after which cycles are looked for: not in a create, where it took 26 ms.
_GARBAGE = 1_000_000


def main(argv: Sequence[str]) -> int:
    """Do what `argv` asks for and return the exit status; nothing is raised, whatever happens."""
    console = Console(json="--json" in argv, quiet="-q" in argv or "--quiet" in argv)
    request: Request | None = None
    try:
        request = parse(argv)
        console = Console(
            json=request.json, quiet=request.quiet, verbose=request.verbose, color=request.color
        )
        from mktemplate.verbs import perform

        status = perform(request, console)
        sys.stdout.flush()
    except BaseException as failure:  # noqa: BLE001  # the one funnel: whatever was raised becomes a status here
        return answer(failure, request, console)
    return status


def answer(failure: BaseException, request: Request | None, console: Console) -> int:
    """Tell about a failure and return the exit status that it stands for."""
    try:
        return _tell(failure, request, console)
    except OSError:  # stderr or stdout cannot take it: the status is all that is left
        return _BROKEN_PIPE if isinstance(failure, BrokenPipeError) else 7


def _tell(failure: BaseException, request: Request | None, console: Console) -> int:
    if isinstance(failure, BrokenPipeError):
        return _BROKEN_PIPE
    if isinstance(failure, KeyboardInterrupt | Interrupted):
        return _interrupted(failure, request, console)
    failures = failures_in(failure)
    if not failures:
        return _bug(failure, console)
    for number, one in enumerate(failures):
        console.error(one, to_stdout=number == 0)
    status = exit_status(str(getattr(failures[0], "code", "")))
    if request is None or request.verb not in ("run", "exec", "shell") or status == 2:
        return status
    return int(
        getattr(failures[0], "status", _LAUNCHER_FAILED)
    )  # 126, 127: the command's own fault


def _interrupted(failure: BaseException, request: Request | None, console: Console) -> int:
    number = failure.signal if isinstance(failure, Interrupted) else signal.SIGINT
    subject = request.words[0] if request and request.words else "mktemplate"
    console.error(CommandError("E_INTERRUPTED", subject, "interrupted; nothing half-made is left"))
    return 128 + number


def _bug(failure: BaseException, console: Console) -> int:
    """Write the trace of a bug to a file, name the file in one line, return 70."""
    import tempfile
    import traceback

    handle, name = tempfile.mkstemp(prefix="mktemplate-bug-", suffix=".txt")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        traceback.print_exception(failure, file=file)
    console.error(
        CommandError(
            "E_BUG", type(failure).__name__, f"a bug in mktemplate; the trace is in {name}"
        )
    )
    return BUG


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwind, so that everything half-made is undone; a second signal must not disturb that."""
    for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(caught, signal.SIG_IGN)
    raise Interrupted(number)


def _open_standard_files() -> None:
    """Fill closed descriptors 0, 1, 2 with /dev/null, so that no file of ours gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115  # it lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def run(command: Callable[[Sequence[str]], int] = main) -> NoReturn:
    """Be the program: signals, descriptors, umask, then `command`; leave without the interpreter's farewell."""
    gc.set_threshold(_GARBAGE)
    _open_standard_files()
    os.umask(0o022)  # under a user's 0002 sshd would refuse /run/sshd
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish stands
            signal.signal(number, _interrupt)
    status = command(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or _BROKEN_PIPE
    os._exit(status)


if __name__ == "__main__":
    run()
