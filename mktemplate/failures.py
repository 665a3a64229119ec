"""What was raised, in the words of the error contract: an exit status for the command, an exception for the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mktemplate.errors import CommandError, Several, exit_status

_NEEDED = frozenset(("jinja2", "debian", "tqdm", "pysequoia"))


class MktemplateError(Exception):
    """Every failure of the library: its code, its object, what is wrong with it and what to do.

    `code` and `status` (the command's exit status) are those of docs/library.md, Errors; `path` and `line` are set
    where a line of a file is to blame. What it was raised from is its `__cause__`.
    """

    def __init__(self, failure: Exception) -> None:
        """Take the fields of a failure of the contract."""
        self.code = str(getattr(failure, "code", "E_IO"))
        self.object = str(getattr(failure, "subject", ""))
        self.detail = str(getattr(failure, "detail", failure))
        self.hint = "\n".join(getattr(failure, "hints", ())[:2])
        self.path: str | None = getattr(failure, "path", None)
        self.line: int | None = getattr(failure, "line", None)
        self.status = exit_status(self.code)
        super().__init__(f"{self.code}: {self.object}: {self.detail}")


@contextmanager
def translated() -> Iterator[None]:
    """Raise MktemplateError in place of any failure of the contract; a bug stays what it is."""
    try:
        yield
    except MktemplateError:
        raise
    except Exception as failure:
        found = failures_in(failure)
        if not found:
            raise
        raise MktemplateError(found[0]) from failure


def failures_in(failure: BaseException) -> tuple[Exception, ...]:
    """Return the failures of the contract in what was raised; none where it is a bug."""
    if isinstance(failure, Several):
        return tuple(_known(one) for one in failure.failures)
    if isinstance(failure, Exception) and (
        hasattr(failure, "code") or isinstance(failure, OSError)
    ):
        return (_known(failure), *getattr(failure, "also", ()))
    if isinstance(failure, ModuleNotFoundError) and failure.name in _NEEDED:
        return (
            CommandError(
                "E_KERNEL_FEATURE",
                f"Python module {failure.name}",
                f"is missing for {sys.executable}",
                hints=("install mktemplate with pip, pipx or your distribution's package",),
            ),
        )
    return ()


def _known(failure: BaseException) -> Exception:
    """Return a failure of the contract: itself, or what an OSError means in its words."""
    if isinstance(failure, Exception) and hasattr(failure, "code") and hasattr(failure, "subject"):
        return failure
    if not isinstance(failure, OSError):
        return CommandError("E_BUG", "mktemplate", str(failure))  # a `code` of somebody else's
    import errno

    code = {
        errno.ENOSPC: "E_NOSPACE",
        errno.EDQUOT: "E_QUOTA",
        errno.EROFS: "E_READONLY",
        errno.EMFILE: "E_LIMIT",
        errno.ENFILE: "E_LIMIT",
        errno.EAGAIN: "E_LIMIT",
        errno.ENOMEM: "E_LIMIT",
    }.get(failure.errno or 0, "E_IO")
    denied = failure.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0
    return CommandError(
        code,
        os.fsdecode(failure.filename) if failure.filename else "system call",
        failure.strerror or str(failure),
        hints=("run it as root, or choose another --path",) if denied else (),
    )
