"""The Jinja side: template files and typed values in, text out. Pure: no clock, no host, no network.

The environment is sandboxed and immutable, undefined names are errors, no filter reaches attributes or formats. What
an untrusted template may cost is limited in `mktemplate.template.jail`.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from jinja2 import BaseLoader, BytecodeCache, Environment, StrictUndefined, Template
from jinja2.exceptions import (
    SecurityError,
    TemplateNotFound,
    TemplateRuntimeError,
    TemplateSyntaxError,
    UndefinedError,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mktemplate.errors import CommandError, escape
from mktemplate.template import library
from mktemplate.template.extending import Folder
from valuetypes import dataclass

Value = str | int | bool | None | list[Any] | dict[str, Any]
_BANNED = ("attr", "map", "format", "pprint", "xmlattr", "tojson", "urlize", "random")
_LONGEST_RANGE = 10_000
_LARGEST_OUTPUT = 4 << 20
_SHARED = ("_distro", "_image", "_macros", "_init", library.MOUNTS)


class _Context(Context):
    """Where a template's code finds values; it notes which code looked at the container's name."""

    def resolve_or_missing(self, key: str) -> object:
        """Return the value that is called `key`."""
        if key == "name" and isinstance(self.environment, Sandbox):
            self.environment.named.add(sys._getframe(1).f_code.co_filename)  # as traceback does
        return super().resolve_or_missing(key)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without str.format, without attribute filters, with short ranges."""

    context_class = _Context
    named: set[str]  # which files looked at `name`

    intercepted_binops = frozenset(("*", "**", "%"))

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Refuse what formats: its fields reach attributes (CVE-2016-10745, CVE-2024-56326)."""
        if isinstance(obj, str) and attr in ("format", "format_map", "__mod__"):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: object) -> None:
        """Offer no safe variant of str.format either: `is_safe_attribute` then refuses it."""

    def call_binop(self, context: object, operator: str, left: object, right: object) -> object:
        """Refuse products and powers that only fill memory, and `%` on text, which formats."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with % is not allowed")
        sizes = [len(side) for side in (left, right) if isinstance(side, str | list | tuple)]
        times = max((side for side in (left, right) if isinstance(side, int)), default=1)
        if operator == "**" or sum(sizes) * max(times, 1) > _LARGEST_OUTPUT:
            raise _limit(f"output larger than {_LARGEST_OUTPUT >> 20} MiB")
        return super().call_binop(context, operator, left, right)  # type: ignore[arg-type]  # as Jinja calls it


class _Limit(TemplateRuntimeError):
    pass


def _limit(message: str) -> _Limit:
    return _Limit(message)


def _range(*args: int) -> range:
    found = range(*args)
    if len(found) > _LONGEST_RANGE:
        raise _limit(f"range larger than {_LONGEST_RANGE}")
    return found


class _Loader(BaseLoader):
    """Finds a template's own files by name, the library's shared ones, mount lists, other built-in templates' files."""

    def __init__(self, folder: Folder, name: str, shared: Folder) -> None:
        self._folder = folder
        self._name = name
        self._shared = shared

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        """Return text, shown name and freshness; raise E_TEMPLATE_PATH for what is no file of the template."""
        first, slash, rest = template.partition("/")
        if slash and first not in ("files", self._name):
            body, shown = self._shared.read(template), template
        else:
            own = rest if first == self._name and slash else template
            body, shown = self._folder.read(own), f"{self._name}/{own}"
        try:
            return body.decode("utf-8"), shown, lambda: True
        except UnicodeDecodeError:
            raise CommandError("E_TEMPLATE_SYNTAX", shown, "is not UTF-8", path=shown) from None


class _Given(BaseLoader):
    """Finds one text, whatever it is called: as a file of a template, its code is kept."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        """Return the text, with its name as it is shown."""
        return self._text, template, lambda: True


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders the files of one template with one set of values."""

    environment: Sandbox
    name: str
    values: Mapping[str, Value]

    def file(self, file: str, **more: Value) -> str:
        """Return the text of one file of the template, or of a shared one."""
        with _told(self.name, file):
            return self._bounded(self.environment.get_template(file), file, more)

    def text(self, source: str, shown: str) -> str:
        """Return what a template that is given as text renders to."""
        with _told(self.name, shown):
            template = _Given(source).load(
                self.environment, shown, self.environment.make_globals(None)
            )
            return self._bounded(template, shown, {})

    def _bounded(self, template: Template, shown: str, more: Mapping[str, Value]) -> str:
        parts, length = [], 0
        for part in template.generate({**self.values, **more}):
            length += len(part)
            if length > _LARGEST_OUTPUT:
                raise _limit(f"output larger than {_LARGEST_OUTPUT >> 20} MiB")
            parts.append(part)
        text = "".join(parts)
        if "\x00" in text or "\r" in text:
            raise CommandError("E_TEMPLATE_SYNTAX", shown, "renders a NUL or carriage return byte")
        return text


def renderer(
    folder: Folder,
    name: str,
    values: Mapping[str, Value],
    compiled: BytecodeCache | None = None,
    shared: Folder | None = None,
) -> Renderer:
    """Return the renderer for the template `name` whose files are in `folder`; `compiled` keeps its code.

    `shared` is what came with mktemplate, where it is not to be read from its place.
    """
    environment = Sandbox(
        loader=_Loader(folder, name, shared or library.shared()),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        newline_sequence="\n",
        bytecode_cache=compiled,
    )
    environment.named = set()
    for banned in _BANNED:
        environment.filters.pop(banned, None)
    environment.filters["quote"] = shlex.quote
    environment.globals = {"range": _range, "namespace": environment.globals["namespace"]}
    return Renderer(environment, name, values)


class _told:  # noqa: N801  # reads as a word at its use: with told(…)
    """Turn what Jinja raises into errors of the contract, with the template's file and line."""

    def __init__(self, name: str, file: str) -> None:
        self._name = name
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TemplateSyntaxError):
            self._syntax(error)
        if isinstance(error, TemplateNotFound):
            raise CommandError(
                "E_TEMPLATE_PATH", f'"{escape(str(error.name))}"', "is not a file of this template"
            ) from None
        code = _code(error)
        if code and error is not None:
            shown, line = _where(error, self._shown(self._file))
            detail = error.message if isinstance(error, TemplateRuntimeError) else str(error)
            raise CommandError(
                code, f"{shown}:{line}", _words(code, detail), path=shown, line=line
            ) from None

    def _shown(self, file: str) -> str:
        first = file.partition("/")[0]
        return file if first in (*_SHARED, self._name) else f"{self._name}/{file}"

    def _syntax(self, error: TemplateSyntaxError) -> NoReturn:
        shown = error.filename or self._shown(error.name or self._file)
        message = error.message or "cannot be read"
        banned = next((name for name in _BANNED if f"No filter named '{name}'" in message), "")
        raise CommandError(
            "E_TEMPLATE_SANDBOX" if banned else "E_TEMPLATE_SYNTAX",
            f"{shown}:{error.lineno}",
            f'filter "{banned}" is not available' if banned else escape(message),
            path=shown,
            line=error.lineno,
        ) from None


def _code(error: BaseException | None) -> str:
    """Return the error code for what rendering raised, "" for what is not Jinja's."""
    for kind, code in (
        (_Limit, "E_TEMPLATE_LIMIT"),
        (RecursionError, "E_TEMPLATE_LIMIT"),
        (MemoryError, "E_TEMPLATE_LIMIT"),
        (OverflowError, "E_TEMPLATE_LIMIT"),
        (SecurityError, "E_TEMPLATE_SANDBOX"),
        (UndefinedError, "E_TEMPLATE_UNDEFINED"),
        (TemplateRuntimeError, "E_TEMPLATE_SYNTAX"),
        (TypeError, "E_TEMPLATE_SYNTAX"),
        (ValueError, "E_TEMPLATE_SYNTAX"),
        (ArithmeticError, "E_TEMPLATE_SYNTAX"),
        (LookupError, "E_TEMPLATE_SYNTAX"),
    ):
        if isinstance(error, kind):
            return code
    return ""


def _words(code: str, message: str | None) -> str:
    text = escape(message or "") or {"E_TEMPLATE_LIMIT": "nested too deep or too large"}.get(
        code, "fails"
    )
    if code == "E_TEMPLATE_SANDBOX" and "is unsafe" in text:
        attribute = text.split("'")[1] if "'" in text else text
        return f'access to "{attribute}" is not allowed'
    if code == "E_TEMPLATE_UNDEFINED" and text.startswith("'"):
        name, _, rest = text[1:].partition("'")
        return f'"{name}"{rest.replace("is undefined", "is not defined")}'
    return text


def _where(error: BaseException, fallback: str) -> tuple[str, int]:
    """Return the template file and line in which `error` arose: Jinja puts them into the traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith((".j2", ".toml")) and not frame.filename.startswith("/"):
            return frame.filename, frame.lineno or 1
    return fallback, 1
