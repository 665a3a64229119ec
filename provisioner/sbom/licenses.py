"""Debian's short names of licenses (copyright-format 1.0) → SPDX license expressions, where both mean the same."""

from __future__ import annotations

import re

_SAME = frozenset((
    "0BSD", "Apache-2.0", "Artistic-1.0", "Artistic-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause",
    "BSD-4-Clause", "BSL-1.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0",
    "CDDL-1.0", "CPL-1.0", "EPL-1.0", "EPL-2.0", "FSFAP", "FSFUL", "FSFULLR", "FTL", "HPND", "ICU", "ISC",
    "Libpng", "MIT", "MIT-0", "MPL-1.1", "MPL-2.0", "NCSA", "OFL-1.1", "OLDAP-2.8", "OpenSSL", "PSF-2.0",
    "PostgreSQL", "Python-2.0", "Ruby", "Sleepycat", "TCL", "TCP-wrappers", "Unicode-3.0", "Unlicense", "Vim",
    "W3C", "WTFPL", "X11", "Zlib", "bzip2-1.0.6", "curl",
))  # fmt: skip
_KNOWN = {
    "expat": "MIT", "mit": "MIT", "mit/x11": "MIT", "x11": "X11", "zlib": "Zlib", "isc": "ISC",
    "apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0", "bsd-2": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause", "bsd-3": "BSD-3-Clause", "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause", "artistic": "Artistic-1.0", "artistic-1": "Artistic-1.0",
    "artistic-2": "Artistic-2.0", "cc0": "CC0-1.0", "mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0",
    "mpl-2": "MPL-2.0", "boost-1.0": "BSL-1.0", "openldap-2.8": "OLDAP-2.8", "python": "Python-2.0",
    "psf-2": "PSF-2.0", "unicode": "Unicode-3.0", "sil-1.1": "OFL-1.1", "ofl-1.1": "OFL-1.1",
}  # fmt: skip
_GNU = re.compile(r"(A?GPL|LGPL|GFDL)-?v?([123](?:\.[0-9])?)(\+?)(?:-or-later|-only)?", re.I)
_VERSIONS = {
    "GPL": ("1.0", "2.0", "3.0"), "LGPL": ("2.0", "2.1", "3.0"), "AGPL": ("3.0",), "GFDL": ("1.1", "1.2", "1.3"),
}  # fmt: skip
IDENTIFIERS = _SAME | frozenset(_KNOWN.values())


def identifier(name: str) -> str:
    """Return the SPDX identifier of one license by its short name, "" where there is none that is surely meant."""
    if name in _SAME:
        return name
    known = _KNOWN.get(name.lower())
    if known:
        return known
    found = _GNU.fullmatch(name)
    if found is None:
        return ""
    family, version = found[1].upper(), found[2] if "." in found[2] else f"{found[2]}.0"
    later = bool(found[3]) or name.lower().endswith("-or-later")
    if version not in _VERSIONS[family]:
        return ""
    return f"{family}-{version}-{'or-later' if later else 'only'}"


def expression(text: str) -> str:
    """Return the SPDX expression of a `License:` line such as `GPL-2+ or Artistic`, "" where a part is unknown."""
    words = re.split(r"\s+(or|and|OR|AND)\s+", text.strip())
    parts = [identifier(word) for word in words[::2]]
    if not all(parts):
        return ""
    joined = [parts[0]]
    for operator, part in zip(words[1::2], parts[1:], strict=True):
        joined += [operator.upper(), part]
    return " ".join(joined)
