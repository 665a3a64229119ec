"""An Incus image, unified: metadata.yaml, templates/ and rootfs/ in one tar (LXD takes it, too)."""

from __future__ import annotations

import json

from provisioner.export import sbininit
from provisioner.export.flat import Arrangement
from provisioner.export.image import Image

# The kernel's names, as Incus has them, by Debian's.
_ARCHES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "armv7l",
    "i386": "i686",
    "ppc64el": "ppc64le",
}


def arrangement(image: Image) -> Arrangement:
    """Return how the image is laid out."""
    return Arrangement(
        folder="rootfs",
        texts={
            "metadata.yaml": _metadata(image),
            "templates/hostname.tpl": b"{{ container.name }}\n",
        },
        additions=sbininit.addition,
    )


def _metadata(image: Image) -> bytes:
    """Return metadata.yaml, written as JSON: every YAML parser reads that, and nothing in it needs quoting."""
    document = {
        "architecture": _ARCHES.get(image.arch, image.arch),
        "creation_date": image.epoch,
        "properties": {
            "architecture": image.arch,
            "description": f"{image.template} on {image.distro} {image.release}",
            "name": image.name,
            "os": image.distro,
            "release": image.release,
            "variant": image.template,
        },
        "templates": {
            "/etc/hostname": {"when": ["create", "copy", "rename"], "template": "hostname.tpl"}
        },
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
