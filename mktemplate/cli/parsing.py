"""The command line → one frozen Request. Parsing only: nothing is looked up, read or changed here.

Options may stand anywhere before `--`. A first word that is no verb is a template: `create` is meant. The parser of
one verb alone is built, because building all of them would cost every `start` some milliseconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from mktemplate.cli.arguments import Device, SecretSource, Volume
from mktemplate.cli.grammar import ALIASES, BY_NAME, ELSEWHERE, VERBS
from mktemplate.cli.options import GLOBAL, Option
from mktemplate.cli.verb import Verb
from mktemplate.errors import CommandError, escape, meant, nearest
from runtime.bundle import Port
from valuetypes import dataclass, field, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What a container is to be, as the options of create, up, plan, render and run say it."""

    distro: str = ""
    release: str = ""
    arch: str = ""
    packages: tuple[str, ...] = ()
    recommends: bool = False
    slim: bool = False
    sets: tuple[tuple[str, str], ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    share_host: bool = False
    flat: bool = False
    lock: str = ""
    mirror: str = ""
    repos: tuple[str, ...] = ()
    keyring: str = ""
    as_of: str = ""  # YYYYMMDDTHHMMSSZ
    offline: bool = False
    allow_stale: int = 0
    solver: str = "internal"
    publish: tuple[Port, ...] = ()
    network: str = ""
    volumes: tuple[Volume, ...] = ()
    devices: tuple[Device, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    memory: int = 0
    restart: str = "no"
    cpus: float = 0.0
    pids: int = 0
    no_userns: bool = False
    single_id: bool = False
    allow_degraded: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    wait: bool = False
    keep_failed: bool = False
    no_sync: bool = False
    start: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The options of all other verbs."""

    timeout: int | None = None
    state: str = "RUNNING"
    force: bool = False
    print: bool = False
    foreground: bool = False
    idle: int = 0  # seconds
    socket: bool = False
    user: str = ""
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = ()
    tty: bool = False
    follow: bool = False
    lines: int | None = None
    escape: bytes = b""
    isolation: bool = False
    output: str = ""
    format: str = "tar"
    strict: bool = False
    layers: bool = False
    downloads: bool = False
    dry_run: bool = False
    everything: bool = False
    owner: str = ""
    stop: bool = False
    update: bool = False
    check: bool = False
    fetch: str = ""
    image: str = ""
    destroy: bool = False
    online: bool = False
    pin: str = ""
    rename: str = ""
    keep: bool = False
    man: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command line, understood."""

    verb: str
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # what stood after `--`
    path: str = ""
    template_path: str = ""
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    color: str = "auto"
    help: bool = False
    version: bool = False
    build: Build = field(default_factory=Build)
    flags: Flags = field(default_factory=Flags)
    compose: str = ""  # the file that asks for it
    given: frozenset[str] = frozenset()  # the fields that an option set
    bare: bool = False  # no word at all stood in the command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(
            "E_USAGE", self.prog, message, hints=(f"see: mktemplate help {self.prog}".rstrip(),)
        )


def parse(argv: Sequence[str]) -> Request:
    """Return what the command line asks for; raise E_USAGE, E_NAME or E_PARAM for what cannot be meant."""
    before, after, dashes = _split(argv)
    first = _first_word(before)
    verb, before = _verb(before, first)
    parser = _parser(verb)
    _check_options(verb, before)
    found = vars(parser.parse_intermixed_args(before))
    words = tuple(found.pop("words", ()))
    command: tuple[str, ...] = tuple(after)
    if not verb.command:
        words, command = (*words, *after), ()
    elif not dashes or verb.name == "ssh":
        limit = min(verb.most, 1)
        words, command = words[:limit], (*words[limit:], *after)
    help_wanted = bool(found.get("help"))
    if not help_wanted:
        _count(verb, words, command)
    bare = first < 0 and not help_wanted
    return _request(verb, words, command, found, bare)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str], bool]:
    if "--" in argv:
        at = list(argv).index("--")
        return list(argv[:at]), list(argv[at + 1 :]), True
    return list(argv), [], False


def _takers() -> frozenset[str]:
    every = [*GLOBAL, *(option for verb in VERBS for option in verb.options)]
    return frozenset(name for option in every if option.metavar for name in option.names)


def _first_word(argv: Sequence[str]) -> int:
    """Return the index of the first word that is neither an option nor an option's value, else -1."""
    takers = _takers() if argv and argv[0].startswith("-") else frozenset()
    skip = False
    for index, word in enumerate(argv):
        if skip:
            skip = False
        elif word.startswith("-") and len(word) > 1:
            skip = word in takers
        else:
            return index
    return -1


def _verb(argv: list[str], first: int) -> tuple[Verb, list[str]]:
    """Return the verb and the arguments without its word; a template's name means `create`."""
    if first < 0:
        return BY_NAME["help"], argv
    word = ALIASES.get(argv[first], argv[first])
    if word in BY_NAME:
        return BY_NAME[word], argv[:first] + argv[first + 1 :]
    return BY_NAME["create"], argv


def _parser(verb: Verb) -> _Parser:
    parser = _Parser(
        prog=verb.name,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("words", nargs="*", default=[])
    for option in (*GLOBAL, *verb.options):
        _add(parser, option)
    return parser


def _add(parser: _Parser, option: Option) -> None:
    if option.count:
        parser.add_argument(*option.names, dest=option.field, action="count")
    elif not option.metavar:
        parser.add_argument(*option.names, dest=option.field, action="store_true")
    else:
        parser.add_argument(
            *option.names,
            dest=option.field,
            action="append" if option.many else "store",
            type=option.convert,
            choices=option.choices or None,
            metavar=option.metavar,
        )


def _check_options(verb: Verb, argv: Sequence[str]) -> None:
    """Raise E_USAGE for an option that is none, with the nearest; argparse would only say that it is unknown."""
    known = tuple(name for option in (*GLOBAL, *verb.options) for name in option.names)
    takers = {
        name for option in (*GLOBAL, *verb.options) if option.metavar for name in option.names
    }
    skip = False
    for word in argv:
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif word.startswith("--") and name not in known:
            hint = meant(name, known, f"mktemplate help {verb.name}")
            raise CommandError(
                "E_USAGE", f"{verb.name} {escape(name)}", "no such option", hints=(hint,)
            )
        else:
            skip = word in takers


def _count(verb: Verb, words: tuple[str, ...], command: tuple[str, ...]) -> None:
    if len(words) < verb.least:
        missing = verb.usage.split(" --")[0].split("[OPTIONS]")[0].strip()
        raise CommandError(
            "E_USAGE", verb.name, f"needs {missing}", hints=(f"mktemplate help {verb.name}",)
        )
    if len(words) > verb.most:
        raise CommandError(
            "E_USAGE",
            verb.name,
            f'"{escape(words[verb.most])}" is one word too many',
            hints=(f"usage: mktemplate {verb.name} {verb.usage}".rstrip(),),
        )
    if verb.name in ("exec", "run") and not command:
        raise CommandError(
            "E_USAGE", verb.name, "no command given", hints=(f"usage: {verb.name} {verb.usage}",)
        )


def _request(
    verb: Verb,
    words: tuple[str, ...],
    command: tuple[str, ...],
    found: dict[str, object],
    bare: bool,
) -> Request:
    many = {option.field for option in verb.options if option.many}
    values: dict[str, object] = {}
    for key, value in found.items():
        if key == "packages" and isinstance(value, list):
            values[key] = tuple(name for group in value for name in group)
        elif key in many and isinstance(value, list):
            values[key] = tuple(value)
        else:
            values[key] = value
    own = {f.name for f in fields(Request)} - {
        "verb",
        "words",
        "command",
        "build",
        "flags",
        "compose",
        "given",
    }
    build = {f.name: values[f.name] for f in fields(Build) if f.name in values}
    flags = {f.name: values[f.name] for f in fields(Flags) if f.name in values}
    top = {name: values[name] for name in own if name in values}
    return Request(
        verb=verb.name,
        words=words,
        command=command,
        build=Build(**build),  # type: ignore[arg-type]  # each option's convert gives its field's type
        flags=Flags(**flags),  # type: ignore[arg-type]  # as above
        given=frozenset(values),
        bare=bare,
        **top,  # type: ignore[arg-type]  # as above
    )


def unknown_word(word: str, templates: tuple[str, ...]) -> CommandError:
    """Return the error for a first word that is neither a verb nor a template."""
    close = nearest(word, (*(verb.name for verb in VERBS), *templates), 3)
    hints = (f"did you mean {' or '.join(close)}?",) if close else ()
    if word in ELSEWHERE:
        hints = (f"what others call {word} is here: mktemplate {ELSEWHERE[word]}",)
    return CommandError(
        "E_USAGE",
        f'"{escape(word)}"',
        "neither a verb nor a template",
        hints=(*hints, "mktemplate help lists the verbs, mktemplate templates the templates"),
    )
