"""`export`: a container as a file that another engine starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mktemplate.arguments import container_name
from mktemplate.cli import Request
from mktemplate.console import Console, bytes_text
from mktemplate.errors import CommandError
from mktemplate.places import containers_path
from mktemplate.shipment import Shipment, shipment
from provisioner.export import compress, docker, flat, oci, output
from runtime.container import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """One target: how it is written, and what it carries of what an image cannot hold."""

    write: Callable[[Shipment, str, Console], None]
    carries: frozenset[str] = frozenset()


def export(request: Request, console: Console) -> int:
    """Write a container into one file."""
    flags, name = request.flags, container_name(request.words[0])
    if not flags.output:
        raise CommandError(
            "E_USAGE",
            "export",
            "needs -o FILE",
            hints=(f"mktemplate export {name} -o {name}.tar.zst",),
        )
    kind = _FORMATS[flags.format]
    with shipment(Container(containers_path(request), name)) as shipped:
        left = shipped.left_out(kind.carries)
        if left and flags.strict:
            detail = f"{flags.format} does not carry " + "; ".join(left)
            raise CommandError("E_PARAM", f"{name} --strict", detail)
        kind.write(shipped, flags.output, console)
    if shipped.paused:
        console.note(f"{name} stood still while it was exported")
    for text in left:
        console.note(f"{flags.format} does not carry {text}")
    size = _size(Path(flags.output))
    value = {
        "name": name,
        "format": flags.format,
        "file": flags.output,
        "size": size,
        "notes": list(left),
    }
    console.result(value, "")
    console.step(f"{name}: {bytes_text(size)} in {flags.output}")
    return 0


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder of ours."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(
        os.path.getsize(Path(top, name)) for top, _, names in os.walk(path) for name in names
    )


def _place(text: str) -> Path:
    return Path(os.path.abspath(text))


def _tar(shipped: Shipment, target: str, console: Console) -> None:
    stream = compress.by_name(target)
    with output.file(_place(target)) as file, console.phase("export"):
        flat.write(shipped.image, stream(file.write))


def _oci(shipped: Shipment, target: str, console: Console) -> None:
    image = replace(shipped.image, health=())  # OCI has no such field
    if target.endswith("/"):
        with output.folder(_place(target)) as folder:
            oci.finish(oci.assemble(image, folder, console))
        return
    with output.workplace(_place(target)) as folder, output.file(_place(target)) as file:
        oci.finish(oci.assemble(image, folder, console))
        oci.pack(folder, file.write, mtime=image.epoch)


def _docker(shipped: Shipment, target: str, console: Console) -> None:
    with output.workplace(_place(target)) as folder, output.file(_place(target)) as file:
        docker.finish(oci.assemble(shipped.image, folder, console))
        oci.pack(folder, file.write, mtime=shipped.image.epoch)


_FORMATS = {
    "tar": _Format(write=_tar),
    "oci": _Format(write=_oci),
    "docker": _Format(write=_docker, carries=frozenset({"health"})),
}
