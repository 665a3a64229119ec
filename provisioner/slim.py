"""What a slim container leaves out: documentation, man pages, translations.

The rules are those of dpkg's --path-exclude and --path-include (dpkg(1)). They are obeyed while packages are unpacked,
and are written down in the rootfs, so that dpkg inside goes on by them. Copyright notices stay, as their licences ask,
and the C.UTF-8 locale, which needs no translation.
"""

from __future__ import annotations

import fnmatch
import re

from provisioner.tar import DIRECTORY, SYMLINK

CONFIG = "/etc/dpkg/dpkg.cfg.d/mktemplate-slim"
RULES = (
    ("exclude", "/usr/share/doc/*"),
    ("include", "/usr/share/doc/*/copyright"),
    ("exclude", "/usr/share/doc-base/*"),
    ("exclude", "/usr/share/man/*"),
    ("exclude", "/usr/share/info/*"),
    ("exclude", "/usr/share/groff/*"),
    ("exclude", "/usr/share/lintian/*"),
    ("exclude", "/usr/share/locale/*"),
    ("include", "/usr/share/locale/locale.alias"),
    ("exclude", "/usr/lib/locale/*"),
    ("include", "/usr/lib/locale/C.utf8/*"),
)  # in their order: the last one that matches decides

_SOME = (b"usr/share/", b"usr/lib/locale/")
_PATTERNS = tuple(
    (kind == "exclude", re.compile(fnmatch.translate(pattern).encode())) for kind, pattern in RULES
)
_KEPT = tuple(
    re.split(r"[*?\[\\]", pattern)[0].rstrip("/").encode()
    for kind, pattern in RULES
    if kind == "include"
)


def text() -> str:
    """Return the rules as a file of dpkg.cfg.d."""
    lines = (f"path-{kind}={pattern}\n" for kind, pattern in RULES)
    return "# Written by mktemplate --slim: what dpkg leaves out when it unpacks.\n" + "".join(
        lines
    )


def leaves_out(name: bytes, kind: bytes) -> bool:
    """Whether dpkg would leave out the member `name` (no leading slash) of a package.

    Directories and symlinks stay where something below may be included again (dpkg, src/main/filters.c).
    """
    if not name.startswith(_SOME):
        return False
    path = b"/" + name
    skipped = False
    for excludes, pattern in _PATTERNS:
        if pattern.match(path):
            skipped = excludes
    return skipped and not (kind in (DIRECTORY, SYMLINK) and path.startswith(_KEPT))
