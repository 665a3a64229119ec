"""`export`: a container as a file that another engine starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console, bytes_text
from mktemplate.errors import CommandError
from mktemplate.places import containers_path
from mktemplate.shipping import lxctexts, ociimage, unitrights
from mktemplate.shipping.shipment import Shipment, shipment, tell_left_out
from provisioner.export import (
    bundle,
    compress,
    docker,
    flat,
    incus,
    nspawn,
    oci,
    output,
    portable,
    proxmox,
    readonly,
)
from runtime import selfstart
from runtime.container import Container
from valuetypes import dataclass


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
        left = tell_left_out(shipped, flags.format, kind.carries, console, strict=flags.strict)
        kind.write(shipped, flags.output, console)
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
    _flat(shipped, target, console, flat.PLAIN)


def _flat(shipped: Shipment, target: str, console: Console, arrangement: flat.Arrangement) -> None:
    stream = compress.by_name(target)
    with output.file(_place(target)) as file, console.phase("export"):
        flat.write(shipped.image, stream(file.write), arrangement)


def _lxc(shipped: Shipment, target: str, console: Console) -> None:
    folder, texts = f"{shipped.image.name}/rootfs", lxctexts.texts(shipped)
    _flat(shipped, target, console, flat.Arrangement(folder=folder, texts=texts))


def _incus(shipped: Shipment, target: str, console: Console) -> None:
    _flat(shipped, target, console, incus.arrangement(shipped.image))


def _nspawn(shipped: Shipment, target: str, console: Console) -> None:
    _flat(shipped, target, console, nspawn.arrangement(shipped.image))


def _proxmox(shipped: Shipment, target: str, console: Console) -> None:
    _flat(shipped, target, console, proxmox.ARRANGEMENT)


def _oci(shipped: Shipment, target: str, console: Console) -> None:
    if target.endswith("/"):
        with output.folder(_place(target)) as folder:
            layout, referrers = ociimage.assemble(shipped, folder, console)
            oci.finish(layout, [each.manifest for each in referrers])
        return
    layout, _ = ociimage.assemble(shipped, shipped.draft, console)
    oci.finish(layout)  # podman and skopeo take no archive whose index names more than the image
    with output.file(_place(target)) as file:
        oci.pack(shipped.draft, file.write, mtime=shipped.image.epoch)


def _docker(shipped: Shipment, target: str, console: Console) -> None:
    docker.finish(oci.assemble(shipped.image, shipped.draft, console))
    with output.file(_place(target)) as file:
        oci.pack(shipped.draft, file.write, mtime=shipped.image.epoch)


def _bundle(shipped: Shipment, target: str, console: Console) -> None:
    if shipped.image.arch != "amd64":
        detail = f"is for {shipped.image.arch}: a container that starts itself is for amd64"
        raise CommandError("E_KERNEL_FEATURE", shipped.image.name, detail)
    starter = bundle.Starter(
        program=selfstart.write(shipped.image.name, shipped.config, shipped.mounts),
        address=lxctexts.address(shipped.image.name),
    )
    with output.file(_place(target)) as file, console.phase("export"):
        os.fchmod(file.fileno(), 0o700)
        bundle.write(shipped.image, starter, shipped.draft, file.write)


def _portable(shipped: Shipment, target: str, console: Console) -> None:
    arrangement = portable.arrangement(shipped.image, unitrights.rights(shipped))
    _mountable(shipped, target, console, readonly.SQUASHFS, arrangement)
    if Path(target).stem != shipped.image.name:
        console.note(f"attach it by name: portablectl attach {target} {shipped.image.name}")


def _squashfs(shipped: Shipment, target: str, console: Console) -> None:
    _mountable(shipped, target, console, readonly.SQUASHFS, flat.PLAIN)


def _erofs(shipped: Shipment, target: str, console: Console) -> None:
    _mountable(shipped, target, console, readonly.EROFS, flat.PLAIN)


def _mountable(
    shipped: Shipment,
    target: str,
    console: Console,
    maker: readonly.Maker,
    arrangement: flat.Arrangement,
) -> None:
    made = shipped.draft / "image"
    with output.file(_place(target)) as file:
        with console.phase("export"):
            readonly.write(shipped.image, maker, made, arrangement)
        with open(made, "rb") as source:
            shutil.copyfileobj(source, file)


_FORMATS = {
    "tar": _Format(write=_tar),
    "oci": _Format(write=_oci, carries=frozenset({"user"})),
    "docker": _Format(write=_docker, carries=frozenset({"health", "user"})),
    "lxc": _Format(write=_lxc, carries=frozenset({"limits", "network", "user"})),
    "incus": _Format(write=_incus),
    "proxmox": _Format(write=_proxmox),
    "nspawn": _Format(write=_nspawn),
    "portable": _Format(write=_portable, carries=frozenset({"limits", "user"})),
    "bundle": _Format(write=_bundle, carries=frozenset({"user", "network"})),
    "squashfs": _Format(write=_squashfs),
    "erofs": _Format(write=_erofs),
}
