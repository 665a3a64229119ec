"""The only place that writes for people: results on stdout; steps, progress, notes and errors on stderr.

Untrusted bytes are escaped before they get here or by `error` itself (I-22). Progress bars are for terminals only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mktemplate.errors import escape_message, exit_status

if TYPE_CHECKING:
    from collections.abc import Callable

_RED, _YELLOW, _DIM, _OFF = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
_COUNTED_IN_BYTES = ("index", "download", "push")


class Console:
    """Writes what a command has to say, as `--json`, `--quiet`, `--verbose` and `--color` ask for it."""

    def __init__(
        self, *, json: bool = False, quiet: bool = False, verbose: int = 0, color: str = "auto"
    ) -> None:
        """Look once at what stderr is; NO_COLOR counts (https://no-color.org)."""
        import os

        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.terminal = sys.stderr.isatty()
        wanted = self.terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._color = wanted if color == "auto" else color == "always"
        self.timings: dict[str, float] = {}

    def text(self, text: str) -> None:
        """Print a result as it is; a missing last newline is added."""
        sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")
        sys.stdout.flush()

    def document(self, value: object) -> None:
        """Print the one JSON document of `--json`."""
        import json

        self.text(json.dumps(value, ensure_ascii=True))

    def result(self, value: object, text: str) -> None:
        """Print `value` as JSON with `--json`, else `text`."""
        if self.json:
            self.document(value)
        else:
            self.text(text)

    def table(self, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
        """Return rows as aligned columns with a heading; missing and empty cells are `-`."""
        cells = [[str(row.get(column, "") or "-") for column in columns] for row in rows]
        heads = [column.upper() for column in columns]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in [heads, *cells])
        return "\n".join(lines)

    def note(self, text: str) -> None:
        """Tell something that is worth knowing; `--quiet` leaves it out."""
        if not self.quiet:
            self._say(f"note: {escape_message(text)}", _DIM)

    def warning(self, text: str) -> None:
        """Tell something that should be looked at; `--quiet` leaves it out."""
        if not self.quiet:
            self._say(f"warning: {escape_message(text)}", _YELLOW)

    def step(self, text: str) -> None:
        """Tell what is done now; `--quiet` leaves it out."""
        if not self.quiet:
            self._say(escape_message(text), _DIM)

    def detail(self, text: str) -> None:
        """Tell what only `--verbose` shows."""
        if self.verbose and not self.quiet:
            self._say(escape_message(text), _DIM)

    def error(self, failure: Exception, *, to_stdout: bool = True) -> None:
        """Print an error of the contract: text on stderr, and with `--json` its object on stdout."""
        code = getattr(failure, "code", "E_IO")
        subject = str(getattr(failure, "subject", ""))
        detail = str(getattr(failure, "detail", failure))
        hints = tuple(getattr(failure, "hints", ()))[:2]
        first, *more = detail.split("\n")
        self._say(f"error[{code}]: {_one(subject)}: {_one(first)}", _RED)
        for line in more:  # of a script's output
            sys.stderr.write(f"    {_one(line)}\n")
        for hint in hints:
            self._say(f"hint: {_one(hint)}", "")
        if self.json and to_stdout:
            self.document(error_object(failure))

    def _say(self, text: str, color: str) -> None:
        head, colon, rest = text.partition(": ")
        if self._color and color and colon:
            text = f"{color}{head}:{_OFF} {rest}"
        sys.stderr.write(f"mktemplate: {text}\n")
        sys.stderr.flush()

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show the phase `name` of `total` units: a bar on a terminal, else one line."""
        if self.quiet:
            yield lambda n: None
        elif self.terminal:
            with _bar(name, total) as advance:
                yield advance
        else:
            self.step(name + (f" ({_amount(name, total)})" if total else ""))
            yield lambda n: None


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its watching thread and our forks do not go together
    in_bytes = name in _COUNTED_IN_BYTES
    with tqdm(
        desc=f"{name:<10}",
        total=total,
        unit="B" if in_bytes else "",
        unit_scale=in_bytes,
        unit_divisor=1024,
        leave=False,
        file=sys.stderr,
        dynamic_ncols=True,
        disable=None,
    ) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


def error_object(failure: Exception) -> dict[str, object]:
    """Return an error of the contract as `--json` prints it."""
    code = str(getattr(failure, "code", "E_IO"))
    hints = tuple(getattr(failure, "hints", ()))[:2]
    return {
        "error": {
            "code": code,
            "exit": exit_status(code),
            "object": escape_message(str(getattr(failure, "subject", ""))),
            "detail": escape_message(str(getattr(failure, "detail", failure))),
            "path": getattr(failure, "path", None),
            "line": getattr(failure, "line", None),
            "hint": "\n".join(hints) if hints else None,
        }
    }


def _one(text: str) -> str:
    return escape_message(text)


def _amount(name: str, total: int) -> str:
    return bytes_text(total) if name in _COUNTED_IN_BYTES else str(total)


def bytes_text(count: float) -> str:
    """Return a number of bytes as people write it: `12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def age_text(seconds: float) -> str:
    """Return an age as people write it: `3 min`, `2 h`, `5 d`."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / divisor)} {unit}"
    return f"{int(seconds / 86400)} d"
