"""What a bill of materials is about, and what both formats say alike."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from urllib.parse import quote

from provisioner.sbom.database import Installed
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The container."""

    name: str
    distro: str  # debian
    release: str  # trixie
    epoch: int  # seconds; the latest time in its layers: when it counts as made
    tool: str  # `mktemplate 0.1.0`

    @property
    def version(self) -> str:
        """What it stands on."""
        return "-".join(filter(None, (self.distro, self.release))) or "unknown"

    @property
    def moment(self) -> str:
        """When it was made, as RFC 3339 has it."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.epoch))


def purl(each: Installed, subject: Subject) -> str:
    """Return the package URL (purl-spec, PURL-TYPES: deb, apk)."""
    qualifiers = {"arch": each.arch, "distro": f"{subject.distro}-{subject.release}".strip("-")}
    told = "&".join(f"{key}={quote(value, safe='')}" for key, value in qualifiers.items() if value)
    words = (subject.distro or "unknown", each.name.lower())
    path = "/".join(quote(word, safe="+.~-_") for word in words).replace("+", "%2B")
    version = quote(each.version, safe=".~-_")
    return f"pkg:{each.kind}/{path}@{version}{f'?{told}' if told else ''}"


def identity(content: object) -> str:
    """Return a UUID that is the content's own, so that equal documents are called the same."""
    return str(uuid.UUID(bytes=hashlib.sha256(encode(content)).digest()[:16], version=5))


def encode(value: object) -> bytes:
    """Return JSON in one form, with a last newline."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"
