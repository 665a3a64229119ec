"""Small package indexes for tests: lines of `name version ; Field: value ; …` become verified files."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

from provisioner.deb.index import DebIndex, IndexFile, read_index


def stanza(line: str) -> str:
    """Return the stanza for `name version ; Field: value`."""
    head, *fields = line.split(" ; ")
    name, version = head.split()
    digest = hashlib.sha256(head.encode()).hexdigest()
    own = [f"Package: {name}", f"Version: {version}", "Architecture: amd64"]
    rest = [f"Filename: pool/{name}.deb", "Size: 1000", f"SHA256: {digest}"]
    return "\n".join([*own, *fields, *rest]) + "\n"


def offered(
    tmp_path: Path, text: str, *, suite: str = "trixie", only: tuple[str, ...] | None = None
) -> IndexFile:
    """Write `text` as a Packages file of `suite`."""
    plain = text.encode()
    packed = lzma.compress(plain)
    path = tmp_path / f"{hashlib.sha256(packed).hexdigest()[:8]}-{suite}.xz"
    path.write_bytes(packed)
    return IndexFile(
        path=path,
        sha256=hashlib.sha256(packed).hexdigest(),
        plain_size=len(plain),
        plain_sha256=hashlib.sha256(plain).hexdigest(),
        base_url=f"http://mirror.example/{suite}",
        origin="Debian",
        suite=suite,
        component="main",
        only=only,
    )


def index_of(tmp_path: Path, *lines: str) -> DebIndex:
    """Return the index of one suite that offers `lines`."""
    return read_index([offered(tmp_path, "\n".join(map(stanza, lines)))], tmp_path, "amd64")
