"""`push`: a container as an image in a registry."""

from __future__ import annotations

import os
from contextlib import closing

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console, bytes_text
from mktemplate.errors import CommandError
from mktemplate.places import containers_path
from mktemplate.shipping import ociimage
from mktemplate.shipping.shipment import shipment, tell_left_out
from provisioner.image import push as pushes
from provisioner.image import reference as references
from provisioner.image.registry import Registry
from provisioner.image.wire import Wire
from runtime.container import Container
from valuetypes import asdict


def push(request: Request, console: Console) -> int:
    """Send a container to a registry, as the image that `export --format oci` writes."""
    name, reference = container_name(request.words[0]), references.parse(request.words[1])
    if reference.digest:
        hints = (f"say a tag: {reference.host}/{reference.repository}:TAG",)
        raise CommandError("E_USAGE", str(reference), "its digest follows from it", hints=hints)
    with shipment(Container(containers_path(request), name)) as shipped:
        strict = request.flags.strict
        left = tell_left_out(shipped, "oci", frozenset({"user"}), console, strict=strict)
        layout, referrers = ociimage.assemble(shipped, shipped.draft, console)
        with closing(Wire(os.environ)) as wire:
            registry = Registry(reference, os.environ, wire)
            pushed = pushes.push(layout, referrers, registry, console)
    value = {"name": name, "reference": str(reference), **asdict(pushed), "notes": list(left)}
    console.result(value, "")
    sent, known = bytes_text(pushed.sent), bytes_text(pushed.known)
    console.step(f"{name}: {reference}@{pushed.digest}: {sent} sent, {known} were there")
    return 0
