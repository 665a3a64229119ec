"""What a verb of the command line is: one row of the grammar's tables."""

from __future__ import annotations

from mktemplate.cli.options import Option
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: how many words it takes, which options, whether a command may follow `--`."""

    name: str
    usage: str
    help: str
    more: str = ""
    least: int = 0
    most: int = 999
    options: tuple[Option, ...] = ()
    command: bool = False
    everyday: bool = False
