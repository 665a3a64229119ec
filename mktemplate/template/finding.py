"""What `check` finds wrong with a text."""

from __future__ import annotations

from mktemplate.errors import escape_message
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a text."""

    severity: str  # error, warning
    code: str
    path: str
    line: int
    detail: str

    def __str__(self) -> str:
        """Return it as compilers tell such things: file, line, what."""
        detail = escape_message(self.detail)
        return f"{self.path}:{self.line}: {self.severity}[{self.code}]: {detail}"
