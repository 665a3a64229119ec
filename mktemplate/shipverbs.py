"""The verbs that take a container somewhere else, as rows of the grammar's table."""

from __future__ import annotations

from mktemplate.options import flag, value
from mktemplate.verb import Verb

FORMATS = ("tar", "oci", "docker")
_MORE = """\
What is secret or must differ stays here: given secrets, ssh host keys, the machine id. The first start makes its own.
The data of volumes stays, too. What else a format cannot carry is a note, with --strict an error.

  tar   the whole root; .tar, .tar.gz or .tar.zst, as FILE ends
  oci   an OCI archive, for podman, skopeo and registries; with FILE/ the image layout as a folder"""

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
)
