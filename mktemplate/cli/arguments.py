"""The small grammars of option values: text from the command line in, typed values out. Nothing else."""

from __future__ import annotations

import re
import time

from mktemplate.errors import CommandError, escape
from runtime.bundle import Port
from valuetypes import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SIZE = re.compile(r"([1-9][0-9]{0,14})([KMGT]?)(?:i?B)?", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_PORT = re.compile(
    r"(?:(?:(?P<address>[0-9.]+|\[[0-9A-Fa-f:.]+\]):)?(?P<host>[0-9]{1,10}):)?"
    r"(?P<container>[0-9]{1,10})(?:/(?P<proto>tcp|udp))?"
)
_CPUS = re.compile(r"(?:0|[1-9][0-9]{0,3})(?:\.[0-9]{1,3})?")
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smh]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOMENT = re.compile(
    r"([0-9]{4})-?([01][0-9])-?([0-3][0-9])(?:[T ]([0-2][0-9]):?([0-5][0-9])(?::?([0-5][0-9]))?Z?)?",
    re.ASCII,
)  # RFC 3339, or the basic form of ISO 8601
_LONGEST_ENV = 128 << 10  # execve(2), MAX_ARG_STRLEN: one string


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """`--volume SRC:DST[:ro][:owner=USER]` as it was given."""

    source: str
    target: str
    read_only: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`--device PATH[:group=NAME]` as it was given."""

    path: str
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """`--secret KEY=@FILE|-|env:VAR`: where a secret is to be read, never the secret itself."""

    key: str
    kind: str  # "file", "stdin", "env"
    where: str = ""


def container_name(text: str) -> str:
    """Return `text` if it may name a container (I-10), else raise E_NAME."""
    problem = ""
    if not text:
        problem = "empty"
    elif not text.isascii():
        problem = "only ASCII A-Z a-z 0-9 . _ -"
    elif not text[0].isalnum():
        problem = "must start with a letter or digit"
    elif len(text) > 63:
        problem = f"{len(text)} characters, limit 63"
    elif ".." in text:
        problem = 'contains ".."'
    elif _NAME.fullmatch(text) is None:
        problem = "only A-Z a-z 0-9 . _ -, first a letter or digit, at most 63"
    if problem:
        raise CommandError("E_NAME", f'"{escape(text)}"', problem)
    return text


def number(text: str, what: str, lowest: int, highest: int) -> int:
    """Return the decimal integer `text` if it is in the range, else raise E_PARAM."""
    if _NUMBER.fullmatch(text) is None or not lowest <= int(text) <= highest:
        raise CommandError(
            "E_PARAM",
            what,
            f'"{escape(text)}" is not a decimal integer in {lowest}…{highest}',
        )
    return int(text)


def size(text: str, what: str = "size") -> int:
    """Return a size in bytes: `64M`, `2G`, `1048576`; K, M, G, T are powers of 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise CommandError(
            "E_PARAM", what, f'"{escape(text)}" is not a size', hints=("write 512M or 2G",)
        )
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def duration(text: str) -> int:
    """Return a time in seconds: `90`, `90s`, `10m`, `2h`; at most a week."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) * _UNITS[match[2]] > 7 * 86400:
        raise CommandError(
            "E_PARAM",
            "--idle",
            f'"{escape(text)}" is no time such as 90s, 10m or 2h, at most a week',
        )
    return int(match[1]) * _UNITS[match[2]]


def memory(text: str) -> int:
    """Return a limit on memory in bytes; E_PARAM for what is less than any program needs: its unit was forgotten."""
    found = size(text, "--memory")
    if found < 1 << 20:
        hint = f"write {text}M" if text.isdigit() else "the least is 1M"
        raise CommandError(
            "E_PARAM", "--memory", f"{found} bytes: nothing runs in that", hints=(hint,)
        )
    return found


def cpus(text: str) -> float:
    """Return a number of processors, fractions allowed."""
    if _CPUS.fullmatch(text) is None or float(text) < 0.01:
        raise CommandError(
            "E_PARAM", "--cpus", f'"{escape(text)}" is not a number such as 0.5 or 2'
        )
    return float(text)


def port(text: str) -> Port:
    """Return `[[ADDR:]HOST:]CONTAINER[/udp]`; one number is the same on the host, on 127.0.0.1."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise CommandError(
            "E_PARAM",
            "--publish",
            f'"{escape(text)}" is not [[ADDR:]HOST:]CONTAINER[/udp]',
            hints=("examples: 8080:80, 127.0.0.1:2222:22, 53/udp",),
        )
    inside = number(match["container"], "--publish", 1, 65535)
    outside = number(match["host"], "--publish", 1, 65535) if match["host"] else inside
    return Port(
        host=outside,
        container=inside,
        address=_address(match["address"] or "127.0.0.1"),
        proto=match["proto"] or "tcp",
    )


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise CommandError(
            "E_PARAM", "--publish", f'"{escape(text)}" is not an IP address'
        ) from None


def pair(text: str, what: str) -> tuple[str, str]:
    """Return KEY and VALUE of `KEY=VALUE`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CommandError("E_PARAM", what, f'"{escape(text)}" is not KEY=VALUE')
    return key, value


def environment(text: str) -> tuple[str, str]:
    """Return name and value of `--env K=V`, else raise E_ENV."""
    key, equals, value = text.partition("=")
    shown = f'"{escape(text[:80])}"'
    if not equals:
        raise CommandError("E_ENV", shown, 'missing "="')
    if not key:
        raise CommandError("E_ENV", shown, "name is empty")
    if _VARIABLE.fullmatch(key) is None:
        raise CommandError("E_ENV", shown, "the name may hold A-Z a-z 0-9 _")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise CommandError("E_ENV", shown, "contains a control byte")
    if len(text.encode("utf-8", "surrogateescape")) > _LONGEST_ENV:
        raise CommandError("E_ENV", shown, "longer than 128 KiB")
    return key, value


def secret(text: str) -> SecretSource:
    """Return where a secret comes from: `KEY=@FILE`, `KEY=-` or `KEY=env:VAR`."""
    key, value = pair(text, "--secret")
    if value == "-":
        return SecretSource(key=key, kind="stdin")
    if value.startswith("@") and len(value) > 1:
        return SecretSource(key=key, kind="file", where=value[1:])
    if value.startswith("env:") and _VARIABLE.fullmatch(value[4:]):
        return SecretSource(key=key, kind="env", where=value[4:])
    raise CommandError(
        "E_PARAM",
        f"--secret {escape(key)}",
        "a secret never stands in the command line",
        hints=(
            f"write {escape(key)}=@FILE, {escape(key)}=- (standard input) or {escape(key)}=env:VAR",
        ),
    )


def volume(text: str) -> Volume:
    """Return `SRC:DST[:ro][:owner=USER]`."""
    source, *rest = text.split(":")
    if not source or not rest or not rest[0].startswith("/"):
        raise CommandError(
            "E_PARAM",
            "--volume",
            f'"{escape(text)}" is not SRC:DST[:ro][:owner=USER], DST absolute',
        )
    read_only, owner = False, ""
    for word in rest[1:]:
        if word == "ro":
            read_only = True
        elif word.startswith("owner=") and _NAME.fullmatch(word[6:]):
            owner = word[6:]
        else:
            raise CommandError(
                "E_PARAM", "--volume", f'"{escape(word)}" is neither ro nor owner=USER'
            )
    return Volume(source=source, target=rest[0], read_only=read_only, owner=owner)


def restart(text: str) -> str:
    """Return a restart policy: `no`, `always`, `on-failure` or `on-failure:N`."""
    if re.fullmatch(r"no|always|on-failure(:[1-9][0-9]{0,5})?", text, re.ASCII) is None:
        raise CommandError(
            "E_PARAM", "--restart", f'"{escape(text)}" is none of no, on-failure[:N], always'
        )
    return text


def device(text: str) -> Device:
    """Return `PATH[:group=NAME]`."""
    path, colon, rest = text.partition(":")
    group = rest.removeprefix("group=")
    known = not colon or (rest.startswith("group=") and _NAME.fullmatch(group))
    if not path.startswith("/") or not known:
        raise CommandError("E_PARAM", "--device", f'"{escape(text)}" is not PATH[:group=NAME]')
    return Device(path=path, group=group if colon else "")


def words(text: str) -> tuple[str, ...]:
    """Return the words of a comma-separated list."""
    return tuple(word for word in text.split(",") if word)


def is_package_file(word: str) -> bool:
    """Whether a word of --packages is the path of a file, not a name."""
    return word.endswith(".deb") or "/" in word


def moment(text: str) -> str:
    """Return a moment as archives of the past spell it: `2026-11-24`, with or without a time, → 20261124T000000Z."""
    found = _MOMENT.fullmatch(text)
    digits = "".join(part or "" for part in found.groups()).ljust(14, "0") if found else ""
    try:
        time.strptime(digits, "%Y%m%d%H%M%S")
    except ValueError:
        raise CommandError(
            "E_PARAM",
            "--as-of",
            f'"{escape(text)}" is no moment',
            hints=("write 2026-11-24 or 20261124T070000Z (UTC)",),
        ) from None
    return f"{digits[:8]}T{digits[8:]}Z"


def solver(text: str) -> str:
    """Return the name of the solver whose choices are matched."""
    if text == "3.0":
        raise CommandError(
            "E_PARAM",
            "--solver",
            "3.0 is not in this version",
            hints=("internal matches apt-get --solver internal, package by package",),
        )
    if text != "internal":
        raise CommandError("E_PARAM", "--solver", f'"{escape(text)}" is neither internal nor 3.0')
    return text


def control_key(text: str) -> bytes:
    """Return the byte of a key with Ctrl: `a`, `^a`, as lxc-console takes it."""
    letter = text.removeprefix("^").lower()
    if len(letter) != 1 or not "a" <= letter <= "z":
        raise CommandError("E_PARAM", "-e", f'"{escape(text)}" is no letter')
    return bytes((ord(letter) - 96,))
