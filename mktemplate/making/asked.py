"""What a request for a template comes to, for render, plan, create, up and run: the template and its facts."""

from __future__ import annotations

import os

from mktemplate.cli import parsing
from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.errors import CommandError
from mktemplate.template import facts, library, sharehost
from mktemplate.template.facts import Facts, Target
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.values import settle
from provisioner import distro as distros


def template(name: str, request: Request) -> library.Template:
    """Return the template `name`, or raise E_USAGE with the nearest names."""
    found = library.load(name, request.template_path, os.environ)
    if found is None:
        raise parsing.unknown_word(name, library.names(request.template_path, os.environ))
    return found


def target(request: Request, spec: TemplateSpec) -> Target:
    """Return the distribution, release and architecture that are meant; the host's where nothing is said."""
    build = request.build
    if build.lock:
        from mktemplate.making import locks

        return locks.target(build)
    host = sharehost.os_release()
    name = build.distro or _default_distro(host.get("ID", ""), spec)
    row = distros.find(name)
    hosts = host.get("VERSION_CODENAME", "") if name == host.get("ID") else ""
    known = {series.name for series in row.releases}
    release = distros.series(row, build.release or (hosts if hosts in known else "")).name
    arch = distros.architecture(row, build.arch or os.uname().machine)
    return Target(distro=name, release=release, arch=arch, family=row.family)


def supported(spec: TemplateSpec) -> tuple[str, ...]:
    """Return the names of the distributions that a template has a part for, by name or by family."""
    return tuple(
        row.name
        for row in distros.DISTROS.values()
        if row.name in spec.distros or row.family in spec.distros
    )


def words(value: object) -> list[str]:
    """Return the words of a list out of a JSON value, none where it is none."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _default_distro(host: str, spec: TemplateSpec) -> str:
    return host if host in supported(spec) else "debian"


def understood(request: Request) -> tuple[library.Template, Facts]:
    """Return the template and the facts of a request, without keys and without facts of this host."""
    name = container_name(request.words[1]) if len(request.words) > 1 else ""
    found = template(request.words[0], request)
    name = name or container_name(request.words[0])
    options = settle(found.spec.name, found.spec.options, request.build.sets)
    _check_secrets(found.spec, request)
    meant = target(request, found.spec)
    return found, facts.gather(found.spec, request.build, name, meant, options)


def _check_secrets(spec: TemplateSpec, request: Request) -> None:
    for secret in request.build.secrets:
        if all(option.name != secret.key for option in spec.secrets):
            known = ", ".join(option.name for option in spec.secrets) or "none"
            raise CommandError(
                "E_PARAM",
                secret.key,
                f"template {spec.name} has no secret of this name (it has {known})",
            )
