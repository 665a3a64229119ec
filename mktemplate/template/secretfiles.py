"""Where secrets are: given ones wait in the container's own root for its first start, others it makes there itself.

/var/lib/mktemplate/secrets/OPTION   was given; removed once the first start is over
/var/lib/mktemplate/made/OPTION      was made inside, and stays: who is root there reads it
MKTEMPLATE_OPTION                    in the environment of an exported image, taken as if it were given
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

from mktemplate.cli.arguments import SecretSource
from mktemplate.errors import CommandError
from mktemplate.template.values import Option

GIVEN = "var/lib/mktemplate/secrets"
MADE = "var/lib/mktemplate/made"
_LARGEST = 1 << 20  # bytes


def variable(option: str) -> str:
    """Return the variable of the environment that gives the secret `option` to an exported image."""
    return f"MKTEMPLATE_{option.upper()}"


def reading(name: str, option: str) -> str:
    """Return the command that prints the secret that the container `name` made for `option`."""
    return f"mktemplate exec {name} -- cat /{MADE}/{option}"


def read(
    options: Sequence[Option], sources: Sequence[SecretSource], template: str
) -> Mapping[str, bytes]:
    """Return the secrets that were given for `options`. E_PARAM for one that is unreadable, unfit or missing."""
    found: dict[str, bytes] = {}
    for source in sources:
        option = next(option for option in options if option.name == source.key)
        found[source.key] = _fit(option, _body(source))
    for option in options:
        if option.required and option.name not in found:
            raise CommandError(
                "E_PARAM",
                template,
                f'secret "{option.name}" is required',
                hints=(f"--secret {option.name}=@FILE|-|env:VAR",),
            )
    return found


def _body(source: SecretSource) -> bytes:
    shown = f"--secret {source.key}"
    try:
        if source.kind == "env":
            return os.fsencode(os.environ[source.where])
        if source.kind == "stdin":
            body = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(source.where, "rb") as file:
                body = file.read(_LARGEST + 1)
    except KeyError:
        raise CommandError("E_PARAM", shown, f"{source.where} is not in the environment") from None
    except OSError as error:
        raise CommandError("E_PARAM", shown, f"cannot be read: {error.strerror}") from None
    if len(body) > _LARGEST:
        raise CommandError("E_PARAM", shown, f"is larger than {_LARGEST} bytes")
    return body.removesuffix(b"\n").removesuffix(b"\r")


def _fit(option: Option, body: bytes) -> bytes:
    """Return the secret, if it may be one; what it is, is never said."""
    shown = f"--secret {option.name}"
    if not body:
        raise CommandError("E_PARAM", shown, "is empty")
    if option.pattern and not re.fullmatch(option.pattern.encode(), body):
        raise CommandError("E_PARAM", shown, f"does not match {option.pattern}")
    return body


def write(secrets: Mapping[str, bytes]) -> bytes:
    """Write each secret below `/`, the container's own root, as a 0600 file; its init takes and removes it."""
    os.makedirs(f"/{GIVEN}", exist_ok=True)
    os.chmod(f"/{GIVEN}", 0o700)
    for name, body in secrets.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(f"/{GIVEN}/{name}", flags, 0o600), "wb") as file:
            file.write(body + b"\n")  # a line, as the shell reads it
    return b""
