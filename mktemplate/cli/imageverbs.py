"""The verbs that bring containers in and send them out, as rows of a table (cli.md). No behaviour, no parsing."""

from __future__ import annotations

from mktemplate.cli.options import BUILDING, LIMITS, REACH, flag, value
from mktemplate.cli.verb import Verb

_MAKING = (
    *REACH,
    *LIMITS,
    *(each for each in BUILDING if each.field != "keep_failed"),
    flag("--flat", "flat", "a plain rootfs/ directory: what lxc-start can start"),
    flag("--start", "start", "start it afterwards"),
)

IMAGES = (
    Verb(
        name="import",
        usage="FILE [NAME] [OPTIONS]",
        help="a container of an image in a file",
        more=(
            "FILE is an OCI layout or archive, a docker-archive, a root file system as tar (gz, zstd, xz), or an LXC\n"
            "container's directory or tar. The image says what runs, as whom and where; it gets our isolation, and\n"
            "nothing of the host. NAME defaults to the name of FILE."
        ),
        least=1,
        most=2,
        options=(
            value("--image", "NAME", "image", "of several images in FILE, this one"),
            *_MAKING,
        ),
    ),
    Verb(
        name="pull",
        usage="REF [NAME] [OPTIONS]",
        help="a container of an image in a registry",
        more=(
            "REF is HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]; no registry is assumed. Plain http is spoken to this\n"
            "machine only. A login is what docker, podman or skopeo login left. Layers that are here already are not\n"
            "fetched again. NAME defaults to the last part of REPOSITORY."
        ),
        least=1,
        most=2,
        options=_MAKING,
    ),
    Verb(
        name="sbom",
        usage="NAME [--format spdx|cyclonedx] [-o FILE]",
        help="what is in a container, as a bill of materials",
        more=(
            "SPDX 2.3 (the default) or CycloneDX 1.6 in JSON, from the database of dpkg or apk inside, with the hash\n"
            "of each archive that the container was made of. The same container gives the same bytes."
        ),
        least=1,
        most=1,
        options=(
            value("--format", "F", "format", "spdx or cyclonedx", choices=("spdx", "cyclonedx")),
            value("-o", "FILE", "output", "write it into this file"),
        ),
    ),
)
