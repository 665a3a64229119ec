"""An image as OCI has it (image-spec 1.1): layers stay layers, one blob each, so a push sends only what is new.

    layout = assemble(image, folder)     writes folder/blobs/sha256/*: layers, config, manifest
    layout.blobs                         every blob in the order in which a registry wants them, the manifest last
    layout.path(blob)                    its file
    put(folder, body, media_type)        one more blob, for what refers to the image
    finish(layout)                       oci-layout and index.json beside them: the folder is an image layout
    pack(folder, write)                  the folder as one tar: an oci-archive

A blob is the same on every machine whose zlib compresses alike; what it holds (its diff_id) is the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from provisioner.errors import BadArchive
from provisioner.export import view
from provisioner.export.archive import Archive, Write
from provisioner.export.compress import Counted, Gzip
from provisioner.export.image import Image
from provisioner.export.pour import pour
from provisioner.progress import SILENT, Progress
from provisioner.tar import BLOCK
from valuetypes import dataclass

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_BLOBS = "blobs/sha256"
_WHITEOUT = ".wh."  # image-spec, layer.md
_OPAQUE = ".wh..wh..opq"
_EMPTY = 2 * BLOCK  # bytes of a tar without members
# GOARCH and its variant, by the names of distributions.
_ARCHES = {
    "i386": ("386", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v5"), "ppc64el": ("ppc64le", ""),
    "x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "arm64": ("arm64", "v8"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A descriptor: what one blob is, and its name."""

    media_type: str
    digest: str  # "sha256:…"
    size: int  # bytes
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""  # of a manifest that is no image: what it is about

    def document(self) -> dict[str, object]:
        """Return it as it stands in a manifest or an index."""
        found: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        optional = {"artifactType": self.artifact_type, "annotations": dict(self.annotations)}
        return found | {key: value for key, value in optional.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An image whose blobs are on disk."""

    folder: Path
    name: str  # how index.json calls it
    config: Blob
    layers: tuple[Blob, ...]
    manifest: Blob

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Every blob, each after those that it names."""
        return (*self.layers, self.config, self.manifest)

    def path(self, blob: Blob) -> Path:
        """Return the file that holds `blob`."""
        return self.folder / _BLOBS / blob.digest.removeprefix("sha256:")


def assemble(image: Image, folder: Path, progress: Progress = SILENT) -> Layout:
    """Write the blobs of `image` below `folder`, which exists and is empty; return what they are.

    A last layer in which nothing stands is left out. Raises StoreFailed; BadArchive E_ARCHIVE_PATH for a name that
    OCI keeps for its whiteouts.
    """
    (folder / _BLOBS).mkdir(parents=True)
    layers: list[Blob] = []
    inner: list[str] = []
    titles: list[str] = []
    with progress.phase("layers", len(image.parts)) as advance:
        for index, part in enumerate(image.parts):
            blob, plain = _layer(image, index, folder)
            advance(1)
            if plain.size == _EMPTY and index:
                (folder / _BLOBS / blob.digest.removeprefix("sha256:")).unlink()
                continue
            layers.append(blob)
            inner.append(plain.digest)
            titles.append(part.title)
    config = put(folder, _json(_config(image, inner, titles)), CONFIG)
    manifest = put(folder, _json(_manifest(image, config, layers)), MANIFEST)
    return Layout(
        folder=folder,
        name=reference(image.name),
        config=config,
        layers=tuple(layers),
        manifest=manifest,
    )


def reference(name: str) -> str:
    """Return `name` as a repository may be called: lower case, its parts joined by single marks."""
    return re.sub(r"[._-]+", lambda marks: marks[0][0], name.lower()).strip("._-")


def put(folder: Path, body: bytes, media_type: str, artifact_type: str = "") -> Blob:
    """Write `body` as a blob below `folder`; return what it is."""
    digest = hashlib.sha256(body).hexdigest()
    (folder / _BLOBS / digest).write_bytes(body)
    size = len(body)
    return Blob(
        media_type=media_type, digest=f"sha256:{digest}", size=size, artifact_type=artifact_type
    )


def finish(layout: Layout, more: Sequence[Blob] = ()) -> None:
    """Make the folder an image layout that names the image, and the manifests `more` that refer to it."""
    name = (("org.opencontainers.image.ref.name", layout.name),)
    manifest = Blob(
        media_type=MANIFEST,
        digest=layout.manifest.digest,
        size=layout.manifest.size,
        annotations=name,
    )
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [each.document() for each in (manifest, *more)],
    }
    (layout.folder / "index.json").write_bytes(_json(index))
    (layout.folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def pack(folder: Path, write: Write, *, mtime: int) -> None:
    """Send the folder as a tar to `write`, small files first: who reads a stream knows early what comes."""
    archive = Archive(write)
    top = sorted(path for path in folder.iterdir() if path.is_file())
    for name in ("blobs", _BLOBS):
        archive.directory(name, mtime=mtime)
    for path in (*top, *sorted((folder / _BLOBS).iterdir())):
        fd = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            archive.take(str(path.relative_to(folder)), fd, size, mtime=mtime)
        finally:
            os.close(fd)
    archive.close()


def _layer(image: Image, index: int, folder: Path) -> tuple[Blob, Counted]:
    """Write one part as a compressed blob; return it, and what was counted before compression."""
    at = len(image.parts) - 1 - index  # parts are opened topmost first
    own = image.written and at == 0  # only what the container wrote is held against what is below
    draft = folder / "draft"

    def fill(parts: tuple[int, ...], archive: Archive) -> None:
        for entry in view.layer(parts[at], parts[1:] if own else ()):
            _add(entry, archive)

    with open(draft, "wb") as file:
        packed = Counted(file.write)
        gzip = Gzip(packed.write)
        plain = Counted(gzip.write)
        pour(image, fill, plain.write)
        gzip.close()
    draft.rename(folder / _BLOBS / packed.digest.removeprefix("sha256:"))
    return Blob(media_type=LAYER, digest=packed.digest, size=packed.size), plain


def _add(entry: view.Entry, archive: Archive) -> None:
    """Add one entry of a layer: what overlayfs marks by its means, OCI marks by names."""
    folder, slash, name = entry.path.rpartition("/")
    if name.startswith(_WHITEOUT):
        detail = f'OCI takes names that begin with "{_WHITEOUT}" for deletions'
        raise BadArchive(
            "E_ARCHIVE_PATH", entry.path, detail, hints=("rename it, or --format tar",)
        )
    if entry.is_whiteout:
        archive.file(f"{folder}{slash}{_WHITEOUT}{name}", b"", mtime=0)
        return
    archive.add(entry, entry.path)
    if entry.opaque:
        archive.file(f"{entry.path}/{_OPAQUE}", b"", mtime=0)


def _config(image: Image, inner: Sequence[str], titles: Sequence[str]) -> dict[str, object]:
    """Return the image's configuration (image-spec, config.md)."""
    made = moment(image.epoch)
    arch, variant = _ARCHES.get(image.arch, (image.arch, ""))
    service: dict[str, object] = {
        "Entrypoint": list(image.argv),
        "Env": [f"{key}={value}" for key, value in image.environment],
        "WorkingDir": image.folder,
        "StopSignal": image.stop_signal,
        "Labels": dict(labels(image)),
    }
    optional: Mapping[str, object] = {
        "User": image.user,
        "ExposedPorts": {port: {} for port in image.ports},
        "Volumes": {path: {} for path in image.volumes},
        "Healthcheck": _health(image),
    }
    service.update({key: value for key, value in optional.items() if value})
    return {
        "created": made,
        "architecture": arch,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": service,
        "rootfs": {"type": "layers", "diff_ids": list(inner)},
        "history": [{"created": made, "created_by": f"mktemplate: {title}"} for title in titles],
    }


def _health(image: Image) -> dict[str, object]:
    """Return Docker's field; OCI has none, and who ships to it leaves `health` empty."""
    if not image.health:
        return {}
    return {
        "Test": ["CMD", *image.health],
        "Interval": 30_000_000_000,  # nanoseconds, as all of these
        "StartInterval": 1_000_000_000,
        "StartPeriod": 60_000_000_000,
    }


def _manifest(image: Image, config: Blob, layers: Sequence[Blob]) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.document(),
        "layers": [layer.document() for layer in layers],
        "annotations": dict(labels(image))
        | {"org.opencontainers.image.created": moment(image.epoch)},
    }


def labels(image: Image) -> tuple[tuple[str, str], ...]:
    """Return what tools show of an image (image-spec, annotations.md)."""
    return (
        ("org.opencontainers.image.title", image.template),
        ("org.opencontainers.image.version", f"{image.distro}-{image.release}"),
    )


def moment(epoch: int) -> str:
    """Return a time as RFC 3339 has it, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
