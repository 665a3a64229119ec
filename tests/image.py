"""Images that no honest builder makes: each document and each layer as a test wants it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile import Item, directory, file, tar

OCI = "application/vnd.oci.image"
SYSTEM = (
    directory(b"etc/"),
    file(b"etc/os-release", b'ID=toy\nVERSION_ID="1"\n'),
    file(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n"),
    file(b"etc/group", b"root:x:0:\nweb:x:102:\nextra:x:200:web\n"),
)


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


@dataclass(kw_only=True)
class Layout:
    """One image as an OCI layout; any of its bytes may be overruled."""

    layers: Sequence[Sequence[Item] | bytes] = (SYSTEM,)  # items, or a tar
    config: Mapping[str, object] = field(default_factory=dict)  # what stands in `config`
    top: Mapping[str, object] = field(default_factory=dict)  # what else stands beside it
    arch: str = "amd64"
    compress: Callable[[bytes], bytes] = _gzip
    media: str = f"{OCI}.layer.v1.tar+gzip"
    manifest: Mapping[str, object] = field(default_factory=dict)  # overrules
    descriptor: Mapping[str, object] = field(
        default_factory=dict
    )  # overrules that of the last layer
    index: Mapping[str, object] | None = None
    diff_ids: Sequence[str] | None = None
    damage: Mapping[str, bytes] = field(
        default_factory=dict
    )  # files that are other than they should be

    @property
    def tars(self) -> list[bytes]:
        return [each if isinstance(each, bytes) else tar(each) for each in self.layers]

    def config_bytes(self) -> bytes:
        diff_ids = [sha256(each) for each in self.tars]
        return dump(
            {
                "architecture": self.arch,
                "os": "linux",
                "config": {"Entrypoint": ["/bin/true"], **self.config},
                "rootfs": {"type": "layers", "diff_ids": self.diff_ids or diff_ids},
                **self.top,
            }
        )

    def documents(self) -> tuple[dict[str, bytes], dict[str, object]]:
        """Return the blobs by digest, and the descriptor of the manifest."""
        blobs: dict[str, bytes] = {}

        def put(body: bytes, media: str) -> dict[str, object]:
            blobs[sha256(body)] = body
            return {"mediaType": media, "digest": sha256(body), "size": len(body)}

        layers = [put(self.compress(each), self.media) for each in self.tars]
        if layers:
            layers[-1] = {**layers[-1], **self.descriptor}
        said = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": put(self.config_bytes(), f"{OCI}.config.v1+json"),
            "layers": layers,
            **self.manifest,
        }
        return blobs, put(dump(said), f"{OCI}.manifest.v1+json")

    def files(self) -> dict[str, bytes]:
        """Return the files of the layout by their names."""
        blobs, first = self.documents()
        index = {"schemaVersion": 2, "manifests": [first]} if self.index is None else self.index
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": dump(index),
            **{f"blobs/sha256/{digest[7:]}": body for digest, body in blobs.items()},
            **self.damage,
        }

    def archive(self) -> bytes:
        return tar([file(name.encode(), body) for name, body in self.files().items()])

    def write(self, path: Path) -> Path:
        """Write the archive to `path`, or the folder where that ends in no suffix."""
        if path.suffix:
            path.write_bytes(self.archive())
            return path
        for name, body in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(body)
        return path


def docker_archive(layout: Layout, tag: str = "toy:1", names: Sequence[str] = ()) -> bytes:
    """Return what `docker save` would write of an image; `names` are those of its layers."""
    config = layout.config_bytes()
    names = names or [f"{number}/layer.tar" for number in range(len(layout.tars))]
    entry = {"Config": f"{sha256(config)[7:]}.json", "RepoTags": [tag], "Layers": names}
    files = {
        f"{sha256(config)[7:]}.json": config,
        **dict(zip(names, layout.tars, strict=True)),
        "manifest.json": dump([entry]),
    }
    return tar([file(name.encode(), body) for name, body in files.items()])
