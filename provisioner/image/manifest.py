"""Image manifests and indexes: OCI image-spec 1.1 and Docker's schema 2 → values. Pure; knows no network.

Everything that names bytes is a Descriptor: their digest, their size, what they claim to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from provisioner.errors import BadArchive, UntrustedIndex
from provisioner.image import document
from valuetypes import dataclass

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_DOCKER = "application/vnd.docker."
DOCKER_INDEX = f"{_DOCKER}distribution.manifest.list.v2+json"
DOCKER_MANIFEST = f"{_DOCKER}distribution.manifest.v2+json"
DOCKER_CONFIG = f"{_DOCKER}container.image.v1+json"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPTED = (*MANIFESTS, *INDEXES)

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = f"{_DOCKER}image.rootfs.diff.tar"
_LAYERS = frozenset(
    (
        *(_LAYER, f"{_LAYER}+gzip", f"{_LAYER}+zstd"),
        *(_DOCKER_LAYER, f"{_DOCKER_LAYER}.gzip", f"{_DOCKER_LAYER}.zstd"),
    )
)
MOST_LAYERS = 128  # Docker's own limit is 127
MOST_MANIFESTS = 1_000  # entries of one index
_NESTED = 4
_LOOKED_AT = "the image is not what its registry says: try another, or ask who made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image runs on, in Go's words."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Bytes that are named by what they are."""

    digest: str  # sha256:HEX
    size: int
    media_type: str = ""
    platform: Platform | None = None
    name: str = ""  # org.opencontainers.image.ref.name, in the index of a layout
    artifact_type: str = ""

    @property
    def hex(self) -> str:
        """The digest without its algorithm: what a path may hold."""
        return self.digest.partition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image: its configuration and its layers, bottom first."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests, each for a platform."""

    digest: str
    manifests: tuple[Descriptor, ...]


def parse(body: bytes, subject: str, told: str = "") -> Manifest | Index:
    """Return what the document `body` is; `told` is the media type that came with it, "" where none did.

    Raises BadArchive (E_IMAGE_FORMAT, E_ARCHIVE_LIMIT) and UntrustedIndex (E_TRUST_FIELD, E_TRUST_MISMATCH).
    """
    data = document.parse(body, subject)
    if data.get("schemaVersion") != 2:
        raise document.malformed(subject, "its schemaVersion is not 2")
    if "manifests" in data and "layers" in data:
        raise document.malformed(subject, "is an index and a manifest at once")  # CVE-2021-41190
    kind = _media_type(data, subject, told)
    found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if kind in INDEXES:
        return Index(digest=found, manifests=_manifests(data, subject))
    return _manifest(data, found, subject)


def _media_type(data: Mapping[str, object], subject: str, told: str) -> str:
    own = document.text(data, "mediaType", subject)
    told = told.partition(";")[0].strip().lower()
    if own and told in ACCEPTED and own != told:
        detail = f'says that it is "{_shown(own)}", and came as {told}'
        raise UntrustedIndex("E_TRUST_MISMATCH", subject, detail, hints=(_LOOKED_AT,))
    shape = OCI_INDEX if "manifests" in data else OCI_MANIFEST
    kind = own or (told if told in ACCEPTED else shape)
    if kind not in ACCEPTED:
        raise document.malformed(subject, f'"{_shown(kind)}" is no image manifest')
    if (kind in INDEXES) != ("manifests" in data):
        raise document.malformed(subject, f"has not the shape of {kind}")
    return kind


def _shown(word: str) -> str:
    return word[:80].encode("ascii", "backslashreplace").decode()


def _manifests(data: Mapping[str, object], subject: str) -> tuple[Descriptor, ...]:
    rows = document.rows(data, "manifests", subject)
    if len(rows) > MOST_MANIFESTS:
        detail = f"an index of more than {MOST_MANIFESTS} manifests"
        raise BadArchive("E_ARCHIVE_LIMIT", subject, detail)
    return tuple(descriptor(row, subject) for row in rows)


def _manifest(data: Mapping[str, object], digest: str, subject: str) -> Manifest:
    config = descriptor(document.table(data, "config", subject), subject)
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        detail = f'its config is "{_shown(config.media_type)}": this is no container image'
        raise document.malformed(subject, detail)
    if config.size > document.LARGEST:
        detail = f"a config of more than {document.LARGEST} bytes"
        raise BadArchive("E_ARCHIVE_LIMIT", subject, detail)
    rows = document.rows(data, "layers", subject)
    if len(rows) > MOST_LAYERS:
        raise BadArchive("E_ARCHIVE_LIMIT", subject, f"more than {MOST_LAYERS} layers")
    return Manifest(
        digest=digest, config=config, layers=tuple(_layer(row, subject) for row in rows)
    )


def _layer(row: Mapping[str, object], subject: str) -> Descriptor:
    found = descriptor(row, subject)
    if row.get("urls"):  # bytes from elsewhere (CVE-2020-15157)
        raise UntrustedIndex("E_TRUST_FIELD", subject, "a layer names another place to get it from")
    if found.media_type not in _LAYERS:
        raise document.malformed(subject, f'a layer is "{_shown(found.media_type)}"')
    return found


def descriptor(row: Mapping[str, object], subject: str) -> Descriptor:
    """Return the descriptor that a JSON object is."""
    notes = document.table(row, "annotations", subject)
    return Descriptor(
        digest=document.digest(row.get("digest"), subject),
        size=document.size(row.get("size"), subject),
        media_type=document.text(row, "mediaType", subject),
        platform=_platform(row, subject),
        name=document.text(notes, "org.opencontainers.image.ref.name", subject),
        artifact_type=document.text(row, "artifactType", subject),
    )


def _platform(row: Mapping[str, object], subject: str) -> Platform | None:
    data = document.table(row, "platform", subject)
    if not data:
        return None
    return Platform(
        os=document.text(data, "os", subject),
        architecture=document.text(data, "architecture", subject),
        variant=document.text(data, "variant", subject),
    )


def choose(index: Index, wanted: Platform, subject: str) -> Descriptor:
    """Return the manifest of `index` for `wanted`, the first that fits; UntrustedIndex E_TRUST_ARCH where none does."""
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]  # the index of a layout that holds one image
    for each in index.manifests:
        if each.platform is not None and _fits(each.platform, wanted):
            return each
    there = ", ".join(
        dict.fromkeys(_shown(str(each.platform)) for each in index.manifests[:20] if each.platform)
    )
    detail = f"has no image for {wanted}"
    raise UntrustedIndex(
        "E_TRUST_ARCH", subject, detail, hints=(f"it has: {there}",) if there else ()
    )


def _fits(found: Platform, wanted: Platform) -> bool:
    same = (found.os, found.architecture) == (wanted.os, wanted.architecture)
    return same and (found.variant == wanted.variant or not found.variant or not wanted.variant)


def resolve(
    first: Descriptor, read: Callable[[Descriptor], bytes], wanted: Platform, subject: str
) -> Manifest:
    """Return the manifest for `wanted` that `first` leads to; `read` returns verified bytes."""
    for _ in range(_NESTED):
        found = parse(read(first), subject, first.media_type)
        if isinstance(found, Manifest):
            return found
        first = choose(found, wanted, subject)
    raise BadArchive("E_ARCHIVE_LIMIT", subject, f"more than {_NESTED} indexes in one another")
