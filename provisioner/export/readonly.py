"""An image as a read-only file system: the tar of all its layers, through the program that makes one.

Both read a tar from standard input, so no tree is unpacked on this host. Their clocks and ids are given:
two exports are the same bytes for one version of the program.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from provisioner.errors import StoreFailed
from provisioner.export import flat
from provisioner.export.compress import Plain
from provisioner.export.flat import Arrangement
from provisioner.export.image import Image
from valuetypes import dataclass

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UUID = "00000000-0000-4000-8000-000000000000"  # erofs makes one up, else
_SAID = 2000  # bytes of what a program said that are told


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A program that makes a file system of the tar on its standard input."""

    program: str
    package: str  # Debian's, for the hint
    options: Callable[[Path, int], tuple[str, ...]]  # target, epoch


def _squashfs(target: Path, epoch: int) -> tuple[str, ...]:
    times = ("-mkfs-time", str(epoch), "-root-time", str(epoch))
    root = ("-root-mode", "0755", "-root-uid", "0", "-root-gid", "0", "-default-mode", "0755")
    packing = ("-comp", "zstd", "-Xcompression-level", "9")
    return (
        "-",
        str(target),
        "-tar",
        "-noappend",
        "-no-progress",
        "-quiet",
        *packing,
        *times,
        *root,
    )


def _erofs(target: Path, epoch: int) -> tuple[str, ...]:
    times = (f"-T{epoch}", "--mkfs-time", "-U", _UUID)
    return ("--quiet", "--tar=f", "-zlz4hc", *times, str(target))


SQUASHFS = Maker(program="mksquashfs", package="squashfs-tools", options=_squashfs)
EROFS = Maker(program="mkfs.erofs", package="erofs-utils", options=_erofs)


def write(image: Image, maker: Maker, target: Path, arrangement: Arrangement = flat.PLAIN) -> None:
    """Make the file system `target`, which is not there yet.

    Raises StoreFailed: E_KERNEL_FEATURE where the program is missing, E_IO where it fails.
    """
    program = shutil.which(maker.program, path=_PATH)
    if program is None:
        hints = (f"apt install {maker.package}",)
        raise StoreFailed("E_KERNEL_FEATURE", maker.program, "is not installed", hints=hints)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [program, *maker.options(target, image.epoch)],
            stdin=subprocess.PIPE, stdout=said, stderr=said, env={"PATH": _PATH}, cwd="/",
        )  # fmt: skip
        assert process.stdin  # noqa: S101  # a pipe was asked for
        try:
            with suppress(BrokenPipeError), process.stdin:  # it says itself why it stopped reading
                flat.write(image, Plain(process.stdin.write), arrangement)
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
        if status or not target.exists():
            said.seek(0)
            detail = said.read()[-_SAID:].decode(errors="replace").strip()
            raise StoreFailed("E_IO", maker.program, f"exit status {status}\n{detail}")
