"""A plan's layers: where its packages are from, and the layers that the provisioner makes of them and of its tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from mktemplate.cli.parsing import Build
from mktemplate.console import Console
from mktemplate.making import workshop
from mktemplate.making.asking import Asking
from mktemplate.making.supply import Supply, supply
from mktemplate.template.plan import Plan
from provisioner import distro as distros
from provisioner import provision as provisioning
from provisioner.store import Layer, Store
from provisioner.tree import Fetched
from valuetypes import replace


def build(
    plan: Plan,
    build: Build,
    store: Store,
    console: Console,
    asked: Asking,
) -> tuple[tuple[Layer, ...], Supply | None]:
    """Return the layers of a plan, built where the store has none, and where their packages are from."""
    tools = provisioning.Tools(
        store=store,
        sandbox=workshop.sandbox(),
        progress=console,
        keep_failed=build.keep_failed,
        bring=partial(_bring, build, store, console),
        timings=console.timings,
    )
    target = plan.facts.target
    if plan.facts.shared_host or plan.facts.program:
        return (provisioning.tree_layer(plan.tree, (), tools),), None
    got = supply(plan, build, store, console, asked)
    for warning in got.warnings:
        console.warning(warning)
    row = distros.find(target.distro)
    facts = provisioning.Facts(
        distro=target.distro,
        release=target.release,
        arch=target.arch,
        merged_usr=distros.series(row, target.release).merged_usr,
        sources=got.sources,
        slim=got.slim,
        scripts=not plan.spec.static,
        preseed=plan.spec.preseed,
    )
    if not build.offline:  # else all that is missing is named at once
        tools = replace(tools, prefetch=got.prefetch)
    with closing(got.fetch):
        layers = provisioning.provision(
            got.chosen, plan.tree, facts, tools, lambda wanted: got.download(wanted, console)
        )
    return layers, got


def _bring(build: Build, store: Store, console: Console, wanted: Sequence[Fetched]) -> None:
    """Fetch what a template pins by its hash."""
    from provisioner import pinned
    from provisioner.fetch import HttpFetch

    with HttpFetch(os.environ) as fetch:
        pinned.bring(wanted, store.cache, fetch, console, offline=build.offline)
