"""ssh keys: which public keys may log in, and the pair that is made where the caller has none.

`--ssh-key` first; else ~/.ssh/*.pub of the caller (of the user behind sudo) and the keys of the agent; else a pair
of the container's own in PATH/NAME/ssh/, which `mktemplate ssh` uses.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mktemplate.errors import CommandError, escape
from mktemplate.template.values import problem
from valuetypes import dataclass

_KEY = re.compile(
    r"(?P<kind>ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9-]+@openssh\.com)"
    r" (?P<data>[A-Za-z0-9+/]{16,16000}={0,3})(?: (?P<comment>.*))?"
)
_LARGEST = 65536
KEYGEN = "/usr/bin/ssh-keygen"
_ADD = "/usr/bin/ssh-add"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The public keys that may log in; `private` is the file of the pair that was made, "" for the caller's own."""

    lines: tuple[str, ...]
    made: bool = False


def choose(files: tuple[str, ...], environ: Mapping[str, str]) -> Keys:
    """Return the keys of `files`, else the caller's; none of either means that a pair must be made."""
    if files:
        return Keys(lines=_unique(key for file in files for key in read(file)))
    own = [key for file in _callers_files(environ) for key in _tolerant(file)]
    lines = _unique((*own, *_agent(environ)))
    return Keys(lines=lines, made=not lines)


def _unique(lines: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))  # type: ignore[call-overload]  # any iterable of str


def read(file: str) -> tuple[str, ...]:
    """Return the public keys in `file`; raise E_PARAM for what is no public key, E_IO where it cannot be read."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            text = opened.read(_LARGEST)
    except OSError as error:
        raise CommandError(
            "E_PARAM", f"--ssh-key {escape(file)}", error.strerror or "cannot be read"
        ) from None
    lines = [line.strip() for line in text.split("\n") if line.strip() and line[:1] != "#"]
    keys = tuple(checked for line in lines if (checked := _checked(line)))
    if not keys or len(keys) != len(lines):
        hint = (
            "that is a private key: name its .pub" if "PRIVATE KEY" in text else "name a .pub file"
        )
        raise CommandError(
            "E_PARAM", f"--ssh-key {escape(file)}", "is no public key", hints=(hint,)
        )
    return keys


def _checked(line: str) -> str:
    """Return the key of `line` without options, "" where it is no key (or one of DSA)."""
    match = _KEY.fullmatch(line)
    if match is None or problem(line):
        return ""
    comment = match["comment"] or ""
    return f"{match['kind']} {match['data']} {comment}".strip()


def _callers_files(environ: Mapping[str, str]) -> list[Path]:
    home = Path(environ.get("HOME") or "/root")
    user = environ.get("SUDO_USER", "")
    if os.geteuid() == 0 and user and user != "root":
        with contextlib.suppress(KeyError):
            home = Path(pwd.getpwnam(user).pw_dir)
    try:
        found = sorted((home / ".ssh").iterdir())
        return [path for path in found if path.name.endswith(".pub") and path.is_file()]
    except OSError:
        return []


def identities(files: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the private keys beside the public ones of `files`, or of the caller: what ssh is to try."""
    public = [Path(file) for file in files] or _callers_files(environ)
    private = (path.with_name(path.name.removesuffix(".pub")) for path in public)
    return tuple(str(path) for path in private if path.suffix != ".pub" and path.is_file())


def _tolerant(file: Path) -> tuple[str, ...]:
    try:
        return read(str(file))
    except CommandError:
        return ()  # what lies there need not be for us


def _agent(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the public keys that the caller's ssh agent holds."""
    socket = environ.get("SSH_AUTH_SOCK")
    if not socket or not os.path.exists(_ADD):
        return ()
    try:
        answer = subprocess.run(
            [_ADD, "-L"],
            env={"SSH_AUTH_SOCK": socket, "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if answer.returncode != 0:
        return ()
    lines = answer.stdout[:_LARGEST].decode("utf-8", "surrogateescape").split("\n")
    return tuple(checked for line in lines if (checked := _checked(line.strip())))


def make_pair(folder: Path, name: str) -> str:
    """Make a key pair in `folder` (0700) and return its public line."""
    if not os.path.exists(KEYGEN):
        raise CommandError(
            "E_KERNEL_FEATURE",
            KEYGEN,
            "not found, and needed to make a key pair",
            hints=("apt install openssh-client", "or name a public key: --ssh-key FILE"),
        )
    folder.mkdir(mode=0o700)
    subprocess.run(
        [
            KEYGEN,
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"mktemplate {name}",
            "-f",
            str(folder / "key"),
        ],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/root"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    return read(str(folder / "key.pub"))[0]
