"""One template and its facts → the texts that a container is made of, checked by who will read them.

Each text is rendered and at once parsed by the module that consumes it: a wrong template is found before the first
byte is downloaded. What is known from an earlier container is neither rendered nor parsed.
"""

from __future__ import annotations

from pathlib import Path

from mktemplate.template import facts as facts_
from mktemplate.template import known, library
from mktemplate.template.facts import Facts
from mktemplate.template.keeping import Kept, kept
from mktemplate.template.plan import Plan, Rendered
from valuetypes import replace

__all__ = ["Plan", "Rendered", "plan"]


def plan(
    template: library.Template,
    facts: Facts,
    more: tuple[str, ...] = (),
    cache: Path | None = None,
) -> Plan:
    """Return the rendered texts of `template`, read back; raise what is wrong in them, with file and line.

    `more` packages are added. Below `cache` is kept what templates that are trusted came to.
    """
    place = kept(cache, known.FOLDER) if cache and template.spec.trusted else None
    found = known.find(place, template, facts) if place else None
    made = found or _made(template, facts, cache, place)
    packages = facts_.packages(template.spec, facts, more)
    return replace(made, rendered=replace(made.rendered, packages=packages))


def _made(template: library.Template, facts: Facts, cache: Path | None, place: Kept | None) -> Plan:
    """Render and read back, and keep what it came to in `place`."""
    # Jinja takes 40 ms to load: here, where it is used.
    from mktemplate.template import checking, rendering
    from mktemplate.template.compiled import compiled
    from runtime import fstab as fstabs

    own, shared = known.Noted(template.folder), known.Noted(library.shared())
    noted = replace(template, folder=own) if place else template
    made = rendering.render(noted, facts, compiled(cache), shared)
    rendered = made.rendered
    tree = checking.tree(template.spec, facts, rendered)
    fstabs.parse(
        rendered.fstab,
        "fstab",
        from_template=True,
        sources=checking.sources(template.spec, facts),
    )
    config = checking.config(template, facts, rendered.config, made.common)
    checked = Plan(
        spec=template.spec,
        facts=facts,
        rendered=rendered,
        tree=tree,
        no_new_privs=config.no_new_privs,
        mount_entries=config.mount_entries,
    )
    if place:
        known.keep(place, checked, (own, shared), made.named, template)
    return checked
