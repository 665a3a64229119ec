"""One repository of a registry, over distribution-spec 1.1: manifests and blobs in, manifests and blobs out.

What comes is bounded by what was promised and held against its digest before it leaves this module.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from provisioner.download import object_path
from provisioner.errors import DownloadFailed, UntrustedIndex
from provisioner.fetch import Redirect, check_status
from provisioner.image import blob as blobs
from provisioner.image import document, manifest
from provisioner.image.login import Identity
from provisioner.image.manifest import Descriptor
from provisioner.image.reference import Reference
from provisioner.image.wire import Ask, Wire, require
from provisioner.part import Part, part, regular_size
from provisioner.progress import Advance
from provisioner.transfer import Transfer, body
from valuetypes import dataclass, replace

_ACCEPT = {"Accept": ", ".join(manifest.ACCEPTED)}
_PULL, _PUSH = "pull", "pull,push"
_RANGE = "Range"
_BINARY = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A manifest or an index as a registry gave it."""

    body: bytes
    media_type: str  # as it was told

    @property
    def digest(self) -> str:
        """What it is."""
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"


class Registry:
    """The repository of a reference. Used by several threads at once."""

    def __init__(self, reference: Reference, environ: Mapping[str, str], wire: Wire) -> None:
        """Speak to the registry that `reference` names; a login comes from the files that `environ` names."""
        self.reference = reference
        self._wire = wire
        self._identity = Identity(reference, wire, environ)

    # What comes

    def manifest(self, name: str) -> Found:
        """Return the manifest `name`, a tag or a digest; Missing where there is none, E_TRUST_HASH for another one."""
        url = f"{self.reference.base}/manifests/{quote(name, safe=':')}"
        ask = Ask(method="GET", url=url, headers=_ACCEPT)

        def read(each: Ask) -> Found | Redirect:
            with self._granted(each, _PULL) as response:
                place = check_status(each.url, response.status, response.getheader("Location"))
                if place:
                    return place
                said = response.getheader("Docker-Content-Digest") or ""
                text = body(each.url, response, document.LARGEST)
                found = Found(body=text, media_type=response.getheader("Content-Type") or "")
                for wanted in (name if ":" in name else "", said if said[:7] == "sha256:" else ""):
                    if wanted and wanted != found.digest:
                        raise blobs.wrong_hash(str(self.reference), found.digest, wanted)
                return found

        return self._wire.brought(ask, read)

    def document(self, wanted: Descriptor) -> bytes:
        """Return the small blob `wanted`, verified."""
        if wanted.size > document.LARGEST:
            raise UntrustedIndex(
                "E_TRUST_SIZE", str(self.reference), f"a document of {wanted.size} bytes"
            )
        ask = Ask(method="GET", url=self._blob(wanted.digest))

        def read(each: Ask) -> bytes | Redirect:
            with self._granted(each, _PULL) as response:
                place = check_status(each.url, response.status, response.getheader("Location"))
                return place or body(each.url, response, wanted.size)

        return blobs.verified(self._wire.brought(ask, read), wanted, str(self.reference))

    def bring(self, wanted: Descriptor, cache: Path, advance: Advance) -> None:
        """Have the blob `wanted` in `cache`, resumed where an earlier run broke off, hashed while it comes."""
        target = object_path(cache, wanted.hex)

        def is_there() -> bool:
            return regular_size(target) == wanted.size

        with part(cache / "partial" / wanted.hex, wanted.size, is_there) as out:
            if out is None:
                advance(wanted.size)
                return
            resumed = out.length
            advance(resumed)
            try:
                self._pour(wanted, out, advance)
                out.commit(target, wanted.hex, f"{self.reference} {wanted.digest[:19]}")
                return
            except (DownloadFailed, UntrustedIndex) as failure:
                advance(-out.length)
                if not resumed or not isinstance(failure, UntrustedIndex):
                    raise
        self.bring(wanted, cache, advance)  # what was resumed was another blob's; it is gone now

    def _pour(self, wanted: Descriptor, out: Part, advance: Advance) -> None:
        transfer = Transfer(out, out.length, wanted.size, advance)

        def pour(each: Ask) -> Redirect | None:
            if transfer.at == transfer.size > 0:
                return None
            headers = {_RANGE: f"bytes={transfer.at}-"} if transfer.at else {}
            more = replace(each, headers={**each.headers, **headers})
            with self._granted(more, _PULL, wanted.size - transfer.at) as response:
                place = check_status(more.url, response.status, response.getheader("Location"))
                if place:
                    return place
                transfer.accept(more.url, response)
                transfer.fill(more.url, response)
            return None

        self._wire.brought(Ask(method="GET", url=self._blob(wanted.digest)), pour)

    # What goes

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        ask = Ask(method="HEAD", url=self._blob(digest))
        with self._granted(ask, _PUSH) as response:
            if response.status == http.client.NOT_FOUND:
                return False
            if response.status in (301, 302, 303, 307, 308):
                return True  # somebody else keeps it
            require(ask, response, http.client.OK)
        return True

    def send(self, wanted: Descriptor, file: BinaryIO) -> None:
        """Send the blob that `file` holds: one POST for its place, one PUT for its bytes."""
        begin = Ask(method="POST", url=f"{self.reference.base}/blobs/uploads/")
        with self._granted(begin, _PUSH) as response:
            require(begin, response, http.client.ACCEPTED)
            location = response.getheader("Location") or ""
        place = self._wire.leads(begin.url, begin.url, location)
        digest = f"digest={quote(wanted.digest, safe='')}"
        url = f"{place}{'&' if '?' in place else '?'}{digest}"
        ask = Ask(method="PUT", url=url, headers=_BINARY, body=file, size=wanted.size)
        with self._granted(ask, _PUSH, wanted.size) as response:
            require(ask, response, http.client.CREATED)

    def put(self, name: str, text: bytes, media_type: str) -> bool:
        """Send the manifest `text` as `name`, a tag or its digest; True where the registry keeps track of subjects."""
        url = f"{self.reference.base}/manifests/{quote(name, safe=':')}"
        ask = Ask(method="PUT", url=url, headers={"Content-Type": media_type}, body=text)
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        with self._granted(ask, _PUSH) as response:
            require(ask, response, http.client.CREATED)
            said = response.getheader("Docker-Content-Digest") or digest
            if said != digest:
                raise blobs.wrong_hash(str(self.reference), said, digest)
            return bool(response.getheader("OCI-Subject"))

    # How

    def _blob(self, digest: str) -> str:
        return f"{self.reference.base}/blobs/{digest}"

    @contextmanager
    def _granted(self, ask: Ask, actions: str, size: int = 0) -> Iterator[http.client.HTTPResponse]:
        """Yield the response to a request that says who we are, where the registry itself asks for that."""
        own = urlsplit(self.reference.base)[:2] == ask.place
        for last in (False, True):
            headers = {**ask.headers, **(self._identity.headers() if own else {})}
            with self._wire.answer(
                replace(ask, headers=headers), self._wire.patience(size)
            ) as response:
                if response.status != http.client.UNAUTHORIZED or not own:
                    yield response
                    return
                challenge = response.getheader("WWW-Authenticate") or ""
            if last:
                raise self._identity.locked()
            self._identity.answer(challenge, actions, headers)
            if ask.body is not None and not isinstance(ask.body, bytes):
                ask.body.seek(0)
