"""`trust`: which keys vouch for each source, what was accepted last, and letting a changed name be."""

from __future__ import annotations

import time

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.places import containers_path
from provisioner import freshness
from provisioner.freshness import TrustState
from valuetypes import asdict


def trust(request: Request, console: Console) -> int:
    """List what is trusted below PATH, or accept that a suite's Origin, Label or Codename changes."""
    store = containers_path(request) / ".store"
    action, *words = request.words
    if action == "list" and not words:
        return _list(freshness.trust_list(store), console)
    if action == "accept" and len(words) == 1:
        taken = freshness.trust_accept(store, words[0])
        rows = [_row(state) for state in taken]
        console.result({"suite": words[0], "states": rows}, "")
        console.step(f"{words[0]}: the next index may say another Origin, Label and Codename")
        return 0
    raise CommandError(
        "E_USAGE",
        f"trust {escape(action)}",
        "is not understood",
        hints=("trust list|accept SUITE",),
    )


def _list(states: tuple[TrustState, ...], console: Console) -> int:
    rows = [_row(state) for state in states]
    shown: list[dict[str, object]] = [
        {
            "source": state.distro or state.mirror,
            "suite": state.suite,
            "date": _utc(state.date),
            "valid until": "-" if state.valid_until is None else _utc(state.valid_until),
            "signed by": " ".join(signer[-16:] for signer in state.signers) or "nobody",
            "mirror": state.mirror,
        }
        for state in states
    ]
    columns = ("source", "suite", "date", "valid until", "signed by", "mirror")
    console.result({"states": rows}, console.table(columns, shown))
    return 0


def _row(state: TrustState) -> dict[str, object]:
    told = asdict(state)
    del told["extract"]  # it saves us time, and tells nobody anything
    return {**told, "keys": list(state.keys), "signers": list(state.signers)}


def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(seconds))
