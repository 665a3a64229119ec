"""`doctor`: what this host can and cannot do, found by trying, each with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.doctor import trials
from mktemplate.doctor.trials import Outcome, Trial
from mktemplate.places import containers_path


def doctor(request: Request, console: Console) -> int:
    """Try everything that containers need; 6 where something is missing that `up` cannot do without."""
    path = containers_path(request)
    table = _table()
    outcomes = [_perform(trial, path.as_posix()) for trial in table]
    rows = [
        {
            "name": trial.name,
            "ok": outcome.ok,
            "needed": trial.needed,
            "detail": outcome.detail,
            "mend": None if outcome.ok else outcome.mend or trial.mend,
        }
        for trial, outcome in zip(table, outcomes, strict=True)
    ]
    missing = [row["name"] for row in rows if row["needed"] and not row["ok"]]
    console.result({"ok": not missing, "checks": rows}, "\n".join(map(_line, rows)))
    return 6 if missing else 0


def _table() -> tuple[Trial, ...]:
    """Return what is tried: root's trials, or a normal user's."""
    if os.geteuid() == 0:
        return trials.TRIALS
    from mktemplate.doctor import usertrials

    return usertrials.TRIALS


def _perform(trial: Trial, path: str) -> Outcome:
    act: Callable[[str], Outcome] = trial.act
    try:
        return act(path)
    except OSError as error:
        return Outcome(ok=False, detail=f"{error.strerror or error}")
    except Exception as error:  # a failed trial is an answer, with the halves' own words
        if not hasattr(error, "code"):
            raise
        mend = next(iter(getattr(error, "hints", ())), "")
        return Outcome(ok=False, detail=f"{getattr(error, 'detail', error)}", mend=mend)


def _line(row: Mapping[str, object]) -> str:
    sign = "ok  " if row["ok"] else ("FAIL" if row["needed"] else "no  ")
    text = f"{sign} {row['name']}: {row['detail']}"
    return text if row["ok"] or not row["mend"] else f"{text}\n     mend: {row['mend']}"
