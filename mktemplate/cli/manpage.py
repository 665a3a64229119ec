"""mktemplate(1), from the same tables as `help`: roff for man(1), on standard output."""

from __future__ import annotations

from collections.abc import Iterator

from mktemplate import __version__
from mktemplate.cli import verbexamples
from mktemplate.cli.grammar import VERBS
from mktemplate.cli.options import BUILD, GLOBAL, Option
from mktemplate.cli.verb import Verb

_ABOUT = """\
Templates turn a service and a distribution into a rootfs tree, an fstab and an LXC configuration; the distribution's
own signed packages fill the rootfs, and it runs in namespaces of its own. There is no daemon.
"""
_FILES = (
    ("/var/lib/mktemplate", "containers of root, one directory each; MKTEMPLATE_PATH or --path says otherwise"),
    ("~/.local/share/mktemplate", "containers of a normal user"),
    ("/etc/mktemplate/templates, ~/.config/mktemplate/templates", "templates beside the built-in ones"),
)  # fmt: skip
_STATUS = (
    ("0", "done"), ("1", "outdated, lock --check, test-template: there is something"), ("2", "bad input or usage"),
    ("3", "not trusted: signature, hash, expiry"), ("4", "network"), ("5", "bad archive or rootfs"),
    ("6", "the host lacks something"), ("7", "out of a resource: disk, locks, limits"),
    ("8", "wrong state: exists, not found, running"),
    ("9", "a package's own script failed, an upgrade did not get ready"),
    ("125, 126, 127", "run, exec: could not be launched, not executable, not found"),
)  # fmt: skip


def page() -> str:
    """Return the man page."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield f'.TH MKTEMPLATE 1 "" "mktemplate {__version__}" "User Commands"'
    yield from (".SH NAME", "mktemplate \\- service containers from plain text", ".SH SYNOPSIS")
    yield from (".B mktemplate", "TEMPLATE [NAME] [OPTIONS]", ".br", ".B mktemplate", "VERB \\&...")
    yield from (".SH DESCRIPTION", _escaped(_ABOUT).rstrip(), ".SH VERBS")
    for verb in VERBS:
        yield from _verb(verb)
    yield ".SH OPTIONS THAT MAKE A CONTAINER"
    yield from _options(BUILD)
    yield ".SH OPTIONS EVERYWHERE"
    yield from _options(GLOBAL)
    yield ".SH EXIT STATUS"
    yield from _rows(_STATUS)
    yield ".SH FILES"
    yield from _rows(_FILES)


def _verb(verb: Verb) -> Iterator[str]:
    yield ".TP"
    yield f".B {_escaped(f'{verb.name} {verb.usage}'.rstrip())}"
    yield _escaped(f"{verb.help[0].upper()}{verb.help[1:]}.")
    if verb.more:
        yield from (".br", *(_escaped(line) for line in verb.more.split("\n")))
    own = tuple(option for option in verb.options if option not in BUILD)
    if own or len(own) < len(verb.options):
        yield ".RS"
        yield from _options(own)
        if len(own) < len(verb.options):
            yield from (
                ".PP",
                "And the options that make a container, as far as they concern it: see below.",
            )
        yield ".RE"
    for line in verbexamples.lines(verb.name):
        yield from (".RS", ".nf", _escaped(line.strip()), ".fi", ".RE")


def _options(options: tuple[Option, ...]) -> Iterator[str]:
    for option in options:
        left = f"{', '.join(option.names)} {option.metavar}".rstrip()
        yield from (".TP", f".B {_escaped(left)}", _escaped(option.help))


def _rows(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, text in rows:
        yield from (".TP", f".B {_escaped(name)}", _escaped(text))


def _escaped(text: str) -> str:
    """Return a text as roff has it: no control line, no escape, hyphens that can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("→", "->")
    return "\n".join(
        f"\\&{line}" if line.startswith((".", "'")) else line for line in plain.split("\n")
    )
