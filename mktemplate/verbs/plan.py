"""`plan`: what a container would hold; nothing is made."""

from __future__ import annotations

from mktemplate.cli.parsing import Request
from mktemplate.console import Console, bytes_text
from mktemplate.making import asked, asking, assembly, origins
from mktemplate.making.supply import Supply, is_cached, supply
from mktemplate.places import containers_path
from mktemplate.template import texts
from provisioner.index import Package


def plan(request: Request, console: Console) -> int:
    """Resolve what a container would hold; change nothing but what was downloaded of indexes."""
    path = containers_path(request)
    template, facts = asked.understood(request)
    store = assembly.store_of(path, request.build)
    store.prepare()
    checked = texts.plan(template, facts, request.build.packages, store.cache)
    groups = origins.groups(facts.target, request.build, template.spec.repositories)
    got = supply(checked, request.build, store, console, asking.of(groups))
    got.tell(console)
    rows = _rows(got)
    total = sum(package.size for package in got.chosen.packages if not is_cached(package, store))
    installed = sum(package.installed_size for package in got.chosen.packages)
    value = {"packages": rows, "download_size": total, "installed_size": installed}
    text = console.table(("name", "version", "size", "layer", "origin"), rows)
    summary = f"\n{len(rows)} packages, {bytes_text(total)} to download, {bytes_text(installed)} installed"
    console.result(value, text + summary)
    return 0


def _rows(got: Supply) -> list[dict[str, object]]:
    return [
        _row(package, layer, got)
        for layer, packages in (("base", got.chosen.essential), ("service", got.chosen.added))
        for package in packages
    ]


def _row(package: Package, layer: str, got: Supply) -> dict[str, object]:
    return {
        "name": package.name,
        "version": package.version,
        "arch": package.arch,
        "size": package.size,
        "sha256": package.sha256,
        "url": package.url,
        "origin": package.origin,
        "layer": layer,
        "cached": is_cached(package, got.store),
    }
