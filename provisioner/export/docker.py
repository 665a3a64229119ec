"""An image as `docker load` takes it: the image layout, and beside it the list that Docker reads.

Docker itself saves this way since version 25, and one that is older reads the list alone.
"""

from __future__ import annotations

import json

from provisioner.export import oci
from provisioner.export.oci import Layout


def finish(layout: Layout) -> None:
    """Make the folder both an image layout and what `docker load` understands, called NAME:latest."""
    oci.finish(layout)
    listed = {
        "Config": str(layout.path(layout.config).relative_to(layout.folder)),
        "RepoTags": [f"{layout.name}:latest"],
        "Layers": [str(layout.path(layer).relative_to(layout.folder)) for layer in layout.layers],
    }
    (layout.folder / "manifest.json").write_text(json.dumps([listed], sort_keys=True))
