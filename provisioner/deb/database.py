"""dpkg's database of an unpacked package: info/*, status, triggers, as `dpkg --unpack` would have left them.

Runs inside the root (paths are absolute there). dpkg itself reads all of it next, in `dpkg --configure -a`, and
writes it anew in its own order, so stanzas are given as the packages' control files have them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence

from provisioner.deb.archive import Control
from provisioner.index import Package
from provisioner.inside import append, is_there, listed, put, read
from provisioner.tar import printable
from valuetypes import dataclass, field

ADMIN = b"/var/lib/dpkg/"
_FLAG = b"remove-on-upgrade"
_STATUS = re.compile(
    rb"^Package: (.*)\n(?:[^\n].*\n)*?Status: [a-z]+ ([a-z-]+) ([a-z-]+)$", re.MULTILINE
)
_ENDS = (b"installed", b"config-files", b"not-installed")  # dpkg(1), package states


@dataclass(slots=True, kw_only=True)
class Unpacked:
    """A package on its way into the root: what it brought and which paths are its own."""

    package: Package
    control: Control
    paths: dict[bytes, None] = field(default_factory=dict)  # archive order, without leading slash

    @property
    def stem(self) -> str:
        """Its file name in info/: with the architecture where several may be installed side by side."""
        return stem(self.package.name, self.control.fields)


def stem(name: str, fields: dict[str, str]) -> str:
    """Return dpkg's unambiguous name of a package."""
    same = fields.get("Multi-Arch") == "same"
    return f"{name}:{fields['Architecture']}" if same else name


def conffiles(control: Control) -> list[tuple[bytes, bool]]:
    """Return (path without leading slash, remove-on-upgrade) of each conffile (deb-conffiles(5))."""
    listed = control.files.get("conffiles")
    found = []
    for line in listed.body.split(b"\n") if listed else ():
        words = line.split()
        if words and words[-1].startswith(b"/"):
            found.append((words[-1].lstrip(b"/"), _FLAG in words[:-1]))
    return found


def write(installed: Sequence[Unpacked], digests: dict[bytes, str]) -> None:
    """Record `installed` as unpacked. `digests`: md5 of the files of packages that ship no md5sums."""
    for directory in (b"", b"info", b"updates", b"triggers", b"alternatives", b"parts"):
        os.makedirs(ADMIN + directory, 0o755, exist_ok=True)
    if not is_there(ADMIN + b"info/format"):
        put(ADMIN + b"info/format", b"1\n")
    for one in installed:
        _write_info(one, digests)
    append(ADMIN + b"status", b"".join(map(_stanza, installed)))
    _register_interests(installed)


def _write_info(one: Unpacked, digests: dict[bytes, str]) -> None:
    base = ADMIN + b"info/" + one.stem.encode() + b"."
    for name, (body, mode, mtime) in one.control.files.items():
        put(base + name.encode(), body, mode, mtime)
    listing = b"".join(b"/" + (path or b".") + b"\n" for path in one.paths)
    put(base + b"list", listing)
    if "md5sums" not in one.control.files:  # dpkg makes it, empty too: `dpkg --audit` asks for it
        lines = [f"{digests[p]}  ".encode() + p + b"\n" for p in one.paths if p in digests]
        put(base + b"md5sums", b"".join(lines))


def _stanza(one: Unpacked) -> bytes:
    """Return the status stanza of `one`: its control file, its state, its conffiles still to be placed."""
    first, _, rest = one.control.stanza.partition(b"\n")
    lines = [first, b"Status: install ok unpacked", rest.rstrip(b"\n")]
    pending = conffiles(one.control)
    if pending:
        lines.append(b"Conffiles:")
    for path, removed in pending:
        lines.append(b" /" + path + b" newconffile" + (b" " + _FLAG if removed else b""))
    return b"\n".join(lines) + b"\n\n"


def _register_interests(installed: Sequence[Unpacked]) -> None:
    """Write what triggers each package wants to hear of (deb-triggers(5)): triggers/File and triggers/NAME."""
    files: list[bytes] = []
    for one in installed:
        for verb, name in directives(one.control):
            if not verb.startswith(b"interest"):
                continue
            who = one.stem.encode() + (b"/noawait" if verb.endswith(b"-noawait") else b"")
            if name.startswith(b"/"):
                files.append(name + b" " + who + b"\n")
            else:
                append(ADMIN + b"triggers/" + os.path.basename(name), who + b"\n")
    if files:
        append(ADMIN + b"triggers/File", b"".join(files))


def unfinished(status: bytes) -> list[str]:
    """Return `package: state` of each in the file `status` that dpkg has begun with and not brought to an end.

    Of what `dpkg --audit` looks for it is all that scripts decide; the command reads every file list for the rest.
    """
    found = _STATUS.findall(status)
    return [
        f"{printable(name)}: {printable(want + b' ' + state)}"
        for name, want, state in found
        if want != b"ok" or state not in _ENDS
    ]


def directives(control: Control) -> list[tuple[bytes, bytes]]:
    """Return (directive, trigger) of each line of a package's triggers file."""
    listed = control.files.get("triggers")
    words = (line.split(b"#")[0].split() for line in (listed.body.split(b"\n") if listed else ()))
    return [(pair[0], pair[1]) for pair in words if len(pair) == 2]


def activate(paths: Iterable[bytes], interests: bytes) -> bytes:
    """Return triggers/Unincorp for `paths` that came onto a configured system with the `interests` of triggers/File.

    dpkg does this while it unpacks; `dpkg --configure -a` takes the rest from here. `-`: no package awaits it.
    """
    wanted = {line.rpartition(b" ")[0] for line in interests.split(b"\n") if b" " in line}
    hit = set()
    for path in paths:
        here = b"/" + path
        while here:
            if here in wanted:
                hit.add(here)
            here = here.rpartition(b"/")[0]
    return b"".join(name + b" -\n" for name in sorted(hit))


def owners() -> dict[bytes, bytes]:
    """Return path → package stem of everything that info/*.list records."""
    found: dict[bytes, bytes] = {}
    for name in listed(ADMIN + b"info"):
        if name.endswith(b".list"):
            for line in read(ADMIN + b"info/" + name).split(b"\n"):
                found[line.lstrip(b"/")] = name.removesuffix(b".list")
    return found


def diversions() -> dict[bytes, tuple[bytes, bytes]]:
    """Return path → (where it goes instead, the package it is not for) of dpkg-divert(1)'s database."""
    lines = read(ADMIN + b"diversions").split(b"\n")
    triples = zip(lines[0::3], lines[1::3], lines[2::3], strict=False)
    return {old.lstrip(b"/"): (new.lstrip(b"/"), package) for old, new, package in triples}


def disown(stem_: bytes, path: bytes) -> None:
    """Take `path` out of the list of the package that another one replaces it in."""
    name = ADMIN + b"info/" + stem_ + b".list"
    lines = read(name).split(b"\n")
    put(name, b"\n".join(line for line in lines if line != b"/" + path))


def md5(view: memoryview) -> str:
    """Return the md5 that dpkg's md5sums want; it protects nothing."""
    return hashlib.md5(view, usedforsecurity=False).hexdigest()
