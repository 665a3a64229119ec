"""Single files that a template pins by their hash: brought into the cache as archives are, whoever serves them.

Nobody signed their size, so the server is asked for it first; the hash decides (D-14).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from provisioner.download import object_path
from provisioner.errors import DownloadFailed
from provisioner.fetch import Fetch
from provisioner.part import part, regular_size
from provisioner.progress import Progress
from provisioner.tree import Fetched

LARGEST = 4 << 30  # bytes of one file


class Sized(Fetch, Protocol):
    """A Fetch that can ask for a size."""

    def size(self, url: str) -> int:
        """Return the size in bytes that the server gives the file at `url`, or raise DownloadFailed (E_NET_*)."""
        ...


def bring(
    wanted: Iterable[Fetched],
    cache: Path,
    fetch: Sized,
    progress: Progress,
    *,
    offline: bool = False,
) -> None:
    """Have each file in `cache`, or raise DownloadFailed, UntrustedIndex (E_TRUST_HASH), StoreFailed."""
    for pin in wanted:
        target = object_path(cache, pin.sha256)
        if regular_size(target) >= 0:
            continue
        if offline:
            raise DownloadFailed(
                "E_NET_CONNECT", pin.url, "is not in the cache, and the run is offline",
                hints=("run once without --offline",),
            )  # fmt: skip
        size = fetch.size(pin.url)
        if size > LARGEST:
            raise DownloadFailed("E_NET_TOOBIG", pin.url, f"has {size} bytes, the limit is 4 GiB")
        with (
            progress.phase("download", size) as advance,
            part(cache / "partial" / pin.sha256, size, partial(_is_there, target)) as out,
        ):
            if out is not None:
                advance(out.length)
                fetch.download(pin.url, out, offset=out.length, size=size, advance=advance)
                out.commit(target, pin.sha256, pin.url)


def _is_there(target: Path) -> bool:
    return regular_size(target) >= 0
