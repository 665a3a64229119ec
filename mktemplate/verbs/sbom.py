"""`sbom`: what is in a container, as SPDX or CycloneDX."""

from __future__ import annotations

from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.places import containers_path
from mktemplate.shipping import inventory
from provisioner.export import output
from runtime.container import Container


def sbom(request: Request, console: Console) -> int:
    """Print the bill of materials of a container, or write it into a file."""
    container = Container(containers_path(request), container_name(request.words[0]))
    kind = request.flags.format if "format" in request.given else "spdx"
    body = inventory.document(container, kind)
    if not request.flags.output:
        console.text(body.decode())
        return 0
    with output.file(Path(request.flags.output).absolute()) as file:
        file.write(body)
    console.step(f"{container.name}: {request.flags.output}")
    return 0
