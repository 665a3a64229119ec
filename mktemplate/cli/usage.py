"""The help texts, made from the grammar's tables so that they cannot be wrong about it."""

from __future__ import annotations

import textwrap

from mktemplate.cli import verbexamples
from mktemplate.cli.grammar import ALIASES, BY_NAME, VERBS
from mktemplate.cli.options import BUILDING, FROM, GLOBAL, LIMITS, REACH, START, WHAT, Option
from mktemplate.cli.verb import Verb
from mktemplate.errors import CommandError, escape, meant

_GROUPS = (
    ("What", WHAT),
    ("From where", FROM),
    ("Reach", REACH),
    ("Limits and rights", LIMITS),
    ("Building", BUILDING),
    ("Then", START),
    ("Everywhere", GLOBAL),
)
_EXAMPLES = """\
Start here:
  mktemplate up sshd            a Debian container with an ssh server, ready to log in
  mktemplate ssh sshd           … and this logs in
  mktemplate render nginx       the three texts a container is made of; needs no root
  mktemplate doctor             what this host lacks, with the commands that mend it
"""


def overview(everything: bool) -> str:
    """Return the page for the whole command: the everyday verbs, or all of them."""
    shown = [verb for verb in VERBS if everything or verb.everyday]
    width = max(len(verb.name) for verb in shown)
    lines = [
        "mktemplate: service containers from plain text",
        "",
        "  mktemplate TEMPLATE [NAME] [OPTIONS]     make a container (the same as: create)",
        "  mktemplate VERB …",
        "",
        _EXAMPLES,
        "Verbs:",
        *(f"  {verb.name:<{width}}  {verb.help}" for verb in shown),
        "",
        "mktemplate help VERB explains one"
        + (" of them." if everything else "; help --all lists all verbs."),
    ]
    return "\n".join(lines) + "\n"


def verb_page(name: str) -> str:
    """Return the page for one verb; raise E_USAGE for a word that is none."""
    verb = BY_NAME.get(ALIASES.get(name, name))
    if verb is None:
        hints = tuple(filter(None, (meant(name, tuple(BY_NAME)),)))
        raise CommandError("E_USAGE", f'"{escape(name)}"', "no such verb", hints=hints)
    lines = [
        f"mktemplate {verb.name} {verb.usage}".rstrip(),
        "",
        f"  {verb.help[0].upper()}{verb.help[1:]}.",
    ]
    if verb.more:
        lines.append(textwrap.indent(verb.more, "  "))
    if verbexamples.EXAMPLES.get(verb.name):
        lines += ["", "Examples:", *verbexamples.lines(verb.name)]
    for title, options in _sections(verb):
        lines += ["", f"{title}:", *(_line(option) for option in options)]
    return "\n".join(lines) + "\n"


def _sections(verb: Verb) -> list[tuple[str, list[Option]]]:
    left = list(verb.options)
    sections: list[tuple[str, list[Option]]] = []
    for title, group in _GROUPS[:-1]:
        mine = [option for option in group if option in left]
        if mine and len(mine) == len(group):
            sections.append((title, mine))
            left = [option for option in left if option not in mine]
    if left:
        sections.insert(0, ("Options", left))
    return [*sections, (_GROUPS[-1][0], list(GLOBAL))]


def _line(option: Option) -> str:
    names = ", ".join(option.names)
    text = f"{names} {option.metavar}".rstrip()
    if len(text) > 28:
        return f"  {text}\n  {'':<28} {option.help}"
    return f"  {text:<28} {option.help}"
