"""Functions of ours that a Python of their own runs: as what a start program executes, as a guard, as ssh's proxy."""

from __future__ import annotations

import sys
from pathlib import Path

HOME = str(Path(__file__).parent.parent)  # the folder that our packages lie in


def command(module: str, function: str, *words: str, site: bool = False) -> tuple[str, ...]:
    """Return the command that calls `function` of `module` with `words`, and with whatever is put behind it.

    Its Python takes nothing from its caller's environment and directory; without `site` it starts without
    site-packages, too, which is faster.
    """
    code = (
        f"import sys; sys.path.insert(0, sys.argv[1]); from {module} import {function}; "
        f"{function}(*sys.argv[2:])"
    )
    return (sys.executable, "-I", *(() if site else ("-S",)), "-c", code, HOME, *words)
