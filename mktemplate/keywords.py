"""The library's keyword arguments → the Request that the same words on the command line come to.

A keyword is an option of docs/library.md's table, `-` written `_`. Values go through the command line's own grammar,
so each is checked as there and means the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypedDict

from mktemplate.cli.parsing import Request, parse
from mktemplate.errors import CommandError, escape

Word = str | int | float | os.PathLike[str]


class Options(TypedDict, total=False):
    """What a container is to be: the options of `create` and `up`; `mktemplate help up` explains each."""

    path: str | os.PathLike[str]
    template_path: str | os.PathLike[str]
    distro: str
    release: str
    arch: str
    packages: str | Sequence[str]
    recommends: bool
    slim: bool
    set: Mapping[str, Word]
    secret: Mapping[str, str | bytes]  # the secrets themselves
    ssh_key: Word | Sequence[Word]
    share_host: bool
    flat: bool
    lock: str | os.PathLike[str]
    mirror: str
    repo: Word | Sequence[Word]
    keyring: str | os.PathLike[str]
    as_of: str
    offline: bool
    allow_stale: int
    solver: str
    publish: Word | Sequence[Word]
    network: str
    volume: str | Sequence[str]
    device: str | Sequence[str]
    env: Mapping[str, str]
    memory: int | str
    cpus: float
    pids: int
    restart: str
    no_userns: bool
    single_id: bool
    allow_degraded: str | Sequence[str]
    grant: str | Sequence[str]
    wait: bool
    keep_failed: bool
    no_sync: bool


class UpOptions(Options, total=False):
    """The options of `up`."""

    timeout: int  # seconds until it must be ready


@contextmanager
def request(
    verb: str, words: Sequence[str], options: Options, command: Sequence[str] = ()
) -> Iterator[Request]:
    """Give the Request of `verb`; secrets can be read for the length of the block. E_USAGE, E_PARAM, … as there."""
    for word in words:
        if word.startswith("-"):
            raise CommandError("E_USAGE", f'"{escape(word)}"', "is an option, not a name")
    with ExitStack() as stack:
        argv = [verb, *words]
        for name, value in options.items():
            given = _kept_secret(value, stack) if name == "secret" else value
            argv += argument(f"--{name.replace('_', '-')}", given)
        yield parse([*argv, *(("--", *command) if command else ())])


def argument(option: str, value: object) -> list[str]:
    """Return the words of the command line that give `option` the value of a keyword."""
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if isinstance(value, Mapping):
        return [f"{option}={key}={_text(item)}" for key, item in value.items()]
    if isinstance(value, str | int | float | os.PathLike):
        return [f"{option}={_text(value)}"]
    if isinstance(value, Sequence):
        return [f"{option}={_text(item)}" for item in value]
    raise CommandError("E_PARAM", option, f"a {type(value).__name__} cannot be its value")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _kept_secret(value: object, stack: ExitStack) -> dict[str, str]:
    """Put each secret where only this process can read it, and return where that is: none stands in any argv."""
    if not isinstance(value, Mapping):
        raise CommandError("E_PARAM", "secret", "must map the names of secrets to secrets")
    places = {}
    for key, secret in value.items():
        file = stack.enter_context(os.fdopen(os.memfd_create("secret", os.MFD_CLOEXEC), "wb", 0))
        file.write(secret if isinstance(secret, bytes) else str(secret).encode())
        places[str(key)] = f"@/proc/self/fd/{file.fileno()}"
    return places
