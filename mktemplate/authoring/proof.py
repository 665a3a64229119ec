"""Whether a template is right: rendered for every distribution and release that it names, and read back.

With an index, each package that it asks for must be there, and all of them together. Grants are no matter here: what
a template needs of them is told by those who use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from mktemplate.cli.parsing import Build, Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, Several
from mktemplate.making import asking, assembly, origins
from mktemplate.making.supply import Offer, read_offer
from mktemplate.places import containers_path
from mktemplate.template import facts, grants, library, texts
from mktemplate.template.facts import Facts, Target
from mktemplate.template.finding import Finding
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.values import Value, settle
from provisioner import distro as distros
from provisioner.errors import ProvisionError
from provisioner.resolver import resolve
from valuetypes import replace


def prove(
    place: Path, request: Request, console: Console, *, online: bool = False
) -> tuple[Finding, ...]:
    """Return what is wrong with the template in the directory `place`, in the order of its files."""
    try:
        template = library.from_directory(str(place.absolute()), "user")
        options = settle(template.spec.name, template.spec.options, ())
    except (CommandError, Several) as error:
        return tuple(findings(error, place))
    found: dict[Finding, None] = {}
    for target in targets(template.spec, request.build):
        try:
            told = _facts(template.spec, target, options)
            texts.plan(template, told)
        except Exception as error:
            if not hasattr(error, "code") and not isinstance(error, Several):
                raise  # only what the halves raise of the contract is a finding
            found |= dict.fromkeys(findings(error, place))
            continue
        if online:
            found |= dict.fromkeys(_unresolved(template, told, request, console))
    return tuple(sorted(found, key=lambda each: (each.path, each.line, each.detail)))


def targets(spec: TemplateSpec, build: Build) -> Iterator[Target]:
    """Yield each distribution and release that a template names, or those of them that `build` asks for."""
    for row in distros.DISTROS.values():
        named = row.name in spec.distros or row.family in spec.distros
        if not named or build.distro not in ("", row.name):
            continue
        wanted = distros.series(row, build.release).name if build.release else ""
        for series in row.releases:
            if wanted in ("", series.name):
                yield Target(
                    distro=row.name,
                    release=series.name,
                    arch=build.arch or "amd64",
                    family=row.family,
                )


def _facts(spec: TemplateSpec, target: Target, options: Mapping[str, Value]) -> Facts:
    """Return the facts of a container that has every grant it may want, and no option set."""
    wanted = tuple(word for word, _ in grants.wishes(spec, options))
    return facts.gather(spec, Build(grants=wanted), spec.name, target, options)


def _unresolved(
    template: library.Template, told: Facts, request: Request, console: Console
) -> Iterator[Finding]:
    """Yield why the packages of a template are not to be had, every bool option being true."""
    spec, target = template.spec, told.target
    truth = {option.name: True for option in spec.options if option.type == "bool"}
    wanted = facts.packages(spec, replace(told, options={**told.options, **truth}), ())
    where = f"{target.distro} {target.release}"
    try:
        offer = _offer(spec, target, request, console)
    except (ProvisionError, CommandError) as error:
        text = f"{where}: not asked: {error.subject}: {error.detail}"
        file = f"{spec.name}/template.toml"
        yield Finding(severity="warning", code=error.code, path=file, line=1, detail=text)
        return
    with closing(offer.fetch):
        lone = [_problem(spec.name, template, (name,), where, offer) for name in wanted]
        together = None if any(lone) else _problem(spec.name, template, wanted, where, offer)
    yield from (problem for problem in (*lone, together) if problem)


def _offer(spec: TemplateSpec, target: Target, request: Request, console: Console) -> Offer:
    build = request.build
    store = assembly.store_of(containers_path(request), build)
    store.prepare()
    groups = origins.groups(target, build, spec.repositories)
    return read_offer(asking.of(groups), target.arch, build, store, console)


def _problem(
    name: str, template: library.Template, wanted: tuple[str, ...], where: str, offer: Offer
) -> Finding | None:
    try:
        resolve(wanted, offer.index)
    except ProvisionError as error:
        return Finding(
            severity="error",
            code=error.code,
            path=f"{name}/template.toml",
            line=_line(template, wanted[0]),
            detail=f"{where}: {error.subject}: {error.detail}",
        )
    return None


def _line(template: library.Template, package: str) -> int:
    """Return the line of template.toml that names a package first."""
    lines = template.folder.read("template.toml").decode("utf-8", "replace").split("\n")
    return next((number for number, line in enumerate(lines, 1) if f'"{package}"' in line), 1)


def findings(error: Exception, place: Path) -> Iterator[Finding]:
    """Yield what an error says, one finding for each failure in it."""
    failures = (
        error.failures if isinstance(error, Several) else (error, *getattr(error, "also", ()))
    )
    for failure in failures:
        where = str(getattr(failure, "path", None) or place)
        subject = str(getattr(failure, "subject", ""))
        detail = str(getattr(failure, "detail", failure))
        yield Finding(
            severity="error",
            code=str(getattr(failure, "code", "E_IO")),
            path=where,
            line=int(getattr(failure, "line", None) or 1),
            detail=detail if subject.startswith(where) else f"{subject}: {detail}",
        )
