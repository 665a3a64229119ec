"""`why`: which chain of dependencies brought a package into a container, and where it came from."""

from __future__ import annotations

from mktemplate import locks
from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape, nearest
from mktemplate.places import containers_path
from provisioner.index import Package
from provisioner.lock import Lock
from provisioner.resolver import why as chain_to
from runtime import bundle


def why(request: Request, console: Console) -> int:
    """Tell the reasons for one package, from what was asked for down to it."""
    name, wanted = container_name(request.words[0]), request.words[1]
    held = locks.of_container(bundle.read(containers_path(request) / name))
    package = _find(held, wanted, name)
    reasons = chain_to(held.chosen, package.name)
    value: dict[str, object] = {
        "name": name,
        "package": package.name,
        "version": package.version,
        "arch": package.arch,
        "layer": "base" if package in held.chosen.essential else "service",
        "origin": package.origin,
        "repository": repository(package, held),
        "url": package.url or None,
        "chain": list(reasons),
    }
    where = value["repository"] or "a file that was given"
    head = f"{package.name} {package.version}, from {package.origin}: {where}"
    console.result(value, "\n".join((head, *(f"  {reason}" for reason in reasons))))
    return 0


def repository(package: Package, held: Lock) -> str | None:
    """Return the mirror and suites that a package's archive may be from; None for one that was given as a file."""
    found = [source for source in held.sources if package.url.startswith(f"{source.url}/")]
    if not found:
        return package.url or None
    return f"{found[0].url} {' or '.join(dict.fromkeys(source.suite for source in found))}"


def _find(held: Lock, wanted: str, name: str) -> Package:
    """Return the package that is meant: by its name, or by what it provides."""
    packages = held.chosen.packages
    for package in packages:
        if package.name == wanted.partition(":")[0]:
            return package
    for package in packages:
        if any(provided.name == wanted for provided in package.provides):
            return package
    close = nearest(wanted, tuple(package.name for package in packages))
    hints = (
        (f"did you mean {close[0]}?",) if close else (f"mktemplate info {name} --json lists all",)
    )
    raise CommandError("E_NOTFOUND", escape(wanted), f"is not in {name}", hints=hints)
