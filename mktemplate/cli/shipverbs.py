"""The verbs that take a container somewhere else, as rows of the grammar's table."""

from __future__ import annotations

from mktemplate.cli.options import flag, value
from mktemplate.cli.verb import Verb

_TARGETS = (
    ("tar", "the whole root"),
    (
        "oci",
        "an OCI archive, for podman, skopeo and registries; with FILE/ the image layout as a folder",
    ),
    ("docker", "what `docker load` takes"),
    ("lxc", "NAME/config and NAME/rootfs: unpack it in /var/lib/lxc"),
    ("incus", "what `incus image import` takes"),
    ("proxmox", "what `pct create` takes"),
    ("nspawn", "NAME/ and NAME.nspawn: unpack it in /var/lib/machines"),
    (
        "portable",
        "a systemd portable service: portablectl attach --profile=trusted NAME.raw (needs mksquashfs)",
    ),
    ("bundle", "one file that starts itself on a machine without mktemplate and Python (x86-64)"),
    ("squashfs", "the whole root as a read-only file system (needs mksquashfs)"),
    ("erofs", "the same as erofs (needs mkfs.erofs)"),
)
FORMATS = tuple(name for name, _ in _TARGETS)
_MORE = """\
What is secret or must differ stays here: given secrets, ssh host keys, the machine id. The first start makes its own.
The data of volumes stays, too. What else a format cannot carry is a note, with --strict an error.
A tar is packed as FILE ends: .tar, .tar.gz or .tar.zst.

""" + "\n".join(f"  {name:<9} {told}" for name, told in _TARGETS)

SHIP = (
    Verb(
        name="export",
        usage="NAME -o FILE [--format F] [--strict]",
        help="write a container into a file that another engine starts",
        more=_MORE,
        least=1,
        most=1,
        options=(
            value("-o", "FILE", "output", "the file to write"),
            value("--format", "F", "format", "what it is for (default: tar)", choices=FORMATS),
            flag("--strict", "strict", "refuse where the format cannot carry everything"),
        ),
    ),
    Verb(
        name="push",
        usage="NAME REF [--strict]",
        help="send a container to a registry",
        more=(
            "REF is HOST[:PORT]/REPOSITORY[:TAG]. What goes is what `export --format oci` writes, and only what the\n"
            "registry does not have: after a change of the template a few KiB. The bill of materials (SPDX) and the\n"
            "lock file go as documents that refer to the image. A login is what docker, podman or skopeo login left;\n"
            "plain http is spoken to this machine only."
        ),
        least=2,
        most=2,
        options=(flag("--strict", "strict", "refuse where an image cannot carry everything"),),
    ),
)
