"""The typed options of a template: what each type accepts, and what it gives the template. The grammar of Z2."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from mktemplate.cli.arguments import size
from mktemplate.errors import CommandError, escape, nearest
from valuetypes import dataclass

Value = str | int | bool | list[str]
TYPES = ("str", "int", "bool", "port", "size", "path", "choice", "list", "mount", "secret")
_LONGEST = 4096
# Everything that some reader of some sink may take for the end of a line, or hides from a reader's eye.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]|[\ud800-\udfff]")
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a template, as template.toml declares it."""

    name: str
    type: str
    default: object = None
    help: str = ""
    choices: tuple[str, ...] = ()
    pattern: str = ""  # what a str, a secret or each word of a list must match as a whole
    packages: tuple[str, ...] = ()  # added when a bool option is true
    required: bool = False
    at: str = ""  # where a mount is, inside
    owner: str = ""  # whose a mount's files are, a user inside
    made: bool = False  # a secret that is made inside where none was given


def problem(text: str) -> str:
    """Return why `text` may reach no sink ("" if it may): control characters, or more than 4096 bytes."""
    found = _CONTROL.search(text)
    if found:
        return f"contains control byte {_shown(found[0])}"
    if len(text.encode("utf-8", "surrogateescape")) > _LONGEST:
        return f"longer than {_LONGEST} bytes"
    return ""


def _shown(char: str) -> str:
    return (
        escape(char) if ord(char) < 0x80 or 0xD800 <= ord(char) < 0xE000 else f"U+{ord(char):04X}"
    )


def check(option: Option) -> Iterator[str]:
    """Yield what is wrong with the declaration of an option."""
    if option.type == "choice" and not option.choices:
        yield "a choice needs choices"
    if (option.type == "mount") != bool(option.at):
        yield "a mount, and nothing else, needs at"
    if option.packages and option.type != "bool":
        yield "only a bool option brings packages"
    try:
        re.compile(option.pattern)
    except re.error as error:
        yield f"pattern: {error}"
        return
    if option.default is None:
        if not option.required and option.type != "secret":
            yield "needs a default, or required = true"
        return
    try:
        read(option, _as_text(option.default))
    except CommandError as error:
        yield f"default: {error.detail}"


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def read(option: Option, text: str) -> Value:
    """Return the typed value that `text` gives `option`, or raise E_PARAM."""
    wrong = problem(text)
    if wrong:
        raise CommandError("E_PARAM", option.name, wrong)
    return _READERS[option.type](option, text)


def _text(option: Option, text: str) -> Value:
    if option.pattern and re.fullmatch(option.pattern, text, re.ASCII) is None:
        raise CommandError(
            "E_PARAM", option.name, f'"{escape(text)}" does not match {option.pattern}'
        )
    return text


def _integer(option: Option, text: str) -> Value:
    return _decimal(option, text, 0, 2**31 - 1)


def _port(option: Option, text: str) -> Value:
    return _decimal(option, text, 1, 65535)


def _decimal(option: Option, text: str, lowest: int, highest: int) -> int:
    if re.fullmatch("0|[1-9][0-9]{0,9}", text) and lowest <= int(text) <= highest:
        return int(text)
    raise CommandError(
        "E_PARAM",
        option.name,
        f'"{escape(text)}" is not a decimal integer in {lowest}…{highest}',
    )


def _bool(option: Option, text: str) -> Value:
    if text not in _TRUTH:
        raise CommandError("E_PARAM", option.name, f'"{escape(text)}" is neither true nor false')
    return _TRUTH[text]


def _size(option: Option, text: str) -> Value:
    return size(text, option.name)


def _path(option: Option, text: str) -> Value:
    parts = text.split("/")
    if not text.startswith("/") or ".." in parts or len(parts) > 64:
        raise CommandError(
            "E_PARAM", option.name, f'"{escape(text)}" is not an absolute path without ..'
        )
    return _text(option, text)


def _choice(option: Option, text: str) -> Value:
    if text not in option.choices:
        raise CommandError(
            "E_PARAM", option.name, f'"{escape(text)}" is none of {", ".join(option.choices)}'
        )
    return text


def _list(option: Option, text: str) -> Value:
    items = [item for item in text.split(",") if item]
    for item in items:
        _text(option, item)
    return items


def _mount(option: Option, text: str) -> Value:
    """Return the absolute path of the host, "" for none; what is there is looked at when it is mounted."""
    return os.path.abspath(os.path.expanduser(text)) if text else ""


def _secret(option: Option, text: str) -> Value:
    raise CommandError(
        "E_PARAM",
        option.name,
        "is a secret",
        hints=(f"--secret {option.name}=@FILE|-|env:VAR",),
    )


_READERS = {
    "str": _text,
    "int": _integer,
    "bool": _bool,
    "port": _port,
    "size": _size,
    "path": _path,
    "choice": _choice,
    "list": _list,
    "mount": _mount,
    "secret": _secret,
}


def settle(
    template: str, options: tuple[Option, ...], given: tuple[tuple[str, str], ...]
) -> Mapping[str, Value]:
    """Return the value of every option but the secrets: what was given, else its default. Raise E_PARAM."""
    known = {option.name: option for option in options}
    settled: dict[str, Value] = {}
    for key, text in given:
        if key not in known:
            close = nearest(key, tuple(known))
            hint = f' (did you mean "{close[0]}"?)' if close else ""
            raise CommandError(
                "E_PARAM", escape(key), f"template {template} has no such option{hint}"
            )
        settled[key] = read(known[key], text)
    for option in options:
        if option.name in settled or option.type == "secret":
            continue
        if option.default is None:
            raise CommandError("E_PARAM", template, f'option "{option.name}" is required')
        settled[option.name] = read(option, _as_text(option.default))
    return settled
