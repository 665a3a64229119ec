"""`upgrade` and `rollback`: today's packages under a new upper, and back to what ran before."""

from __future__ import annotations

import os
from contextlib import closing

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.life.generations import Trial, previous
from mktemplate.life.snapshots import texts_of
from mktemplate.life.upgrading import Outcome
from mktemplate.life.upgrading import upgrade as upgrade_one
from mktemplate.life.views import container_object
from mktemplate.making import workshop
from mktemplate.places import containers_path
from mktemplate.verbs.life import each
from mktemplate.verbs.lock import page
from runtime import bundle, swap
from runtime.bundle import Bundle
from runtime.container import Container
from valuetypes import asdict

_SHOWN = 12  # paths that are named on a terminal


def upgrade(request: Request, console: Console) -> int:
    """Give containers today's packages; one that does not get ready with them keeps what it had."""
    shown: list[dict[str, object]] = []

    def act(container: Container) -> None:
        outcome = upgrade_one(container, request, console)
        _tell(container, outcome, request, console)
        shown.append(
            {
                **container_object(container.path, container.name),
                "upgraded": outcome.upgraded,
                "changes": [asdict(change) for change in outcome.changes],
                "security": sum(change.security for change in outcome.changes),
                "kept": list(outcome.kept),
                "left": [{"kind": kind, "path": path} for kind, path in outcome.left],
                "downtime": round(outcome.downtime, 3),
            }
        )

    each(request, act)
    if console.json:
        console.document(shown[0] if len(shown) == 1 else shown)
    return 0


def _tell(container: Container, outcome: Outcome, request: Request, console: Console) -> None:
    name = container.name
    if not console.json and outcome.changes:
        console.text(page(outcome.changes))
    if not outcome.upgraded:
        would = "would change" if request.build.dry_run and outcome.changes else "is up to date"
        console.step(f"{name}: {would}")
        return
    for kind, path in outcome.left[:_SHOWN]:
        console.note(f"{name}: left behind: {kind} {path}")
    if len(outcome.left) > _SHOWN:
        console.note(f"{name}: and {len(outcome.left) - _SHOWN} more: all in --json")
    if outcome.left:
        console.note(f"{name}: they lie in {container.directory / swap.PREVIOUS / swap.TREE}")
    ready = f"ready again after {outcome.downtime:.2f} s" if outcome.downtime else "not running"
    console.step(f"{name}: upgraded, {ready}; mktemplate rollback {name} goes back")


def rollback(request: Request, console: Console) -> int:
    """Go back to what ran before the last upgrade; what was upgraded to is kept, so that one can go there again."""
    container = Container(containers_path(request), request.words[0])
    name, timeout = container.name, request.flags.timeout
    current = container.bundle
    with closing(workshop.store(container.path)) as store, store.lock(f"create.{name}"):
        target = _target(container)
        if None in [store.layer(digest) for digest in target.record.layers]:
            raise CommandError("E_CORRUPT", name, "a layer of what ran before is gone")
        trial = Trial(container, store, console)

        def bring() -> None:
            place = container.directory / swap.PREVIOUS
            if target.record.name != name:  # it was renamed since
                found = Bundle(path=place, record=target.record)
                for text, data in texts_of(found, container).items():
                    bundle.replace_file(place / text, data)
            swap.complete(place, container.directory)
            os.rename(place, container.directory / swap.INCOMING)

        trial.take(bring, None if timeout is None else float(timeout))
    value = {
        **container_object(container.path, name),
        "from": current.record.upgraded or current.record.created,
        "to": target.record.upgraded or target.record.created,
        "downtime": round(trial.downtime, 3),
    }
    console.result(value, "")
    console.step(f"{name}: is what it was before; mktemplate rollback {name} goes there again")
    return 0


def _target(container: Container) -> Bundle:
    found = previous(container)
    if found is None:
        raise CommandError(
            "E_NOTFOUND",
            container.name,
            "was never upgraded: there is nothing to go back to",
            hints=(f"mktemplate snapshot {container.name} list shows what else is kept",),
        )
    return found
