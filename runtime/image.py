"""A root that lies in one file: a file system image, mounted by way of a loop device that goes with its last user.

The kernel itself reads what stands in the file, so who wrote the file is trusted as far as the kernel's reader of
that file system is good. A normal user may have nothing mounted so.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from runtime import steps
from runtime.config import ContainerConfig
from runtime.errors import ConfigError, HostError
from runtime.fstab import MountFlags
from runtime.kernel import mount as m
from runtime.program import Call, Failure, Slot, Struct, Text
from runtime.steps import c
from valuetypes import dataclass

_HEAD = 4096  # bytes of a file that tell what it is
# offset and magic of the file systems that a root may be, and whether one can be written
_KINDS = (
    (1080, b"\x53\xef", "ext4", True),
    (0, b"hsqs", "squashfs", False),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs", False),
)
# linux/loop.h
_CONFIGURE, _GET_FREE = 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
_CONFIG = "=II5Q4I22Q8Q"  # struct loop_config: descriptor, block size, struct loop_info64, reserved
_LOCK_EX = 2
_DEVICE = Text("/dev/loop%d", (Slot("free"),))
_OURS = frozenset({"volatile"})  # of lxc.rootfs.options: nothing of the file system's


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A file system in the file `path`, which is open in `slot` when it is mounted."""

    path: Path
    kind: str  # as fsopen(2) wants it
    read_only: bool
    slot: str


def is_image(path: Path) -> bool:
    """Whether `path` is a file, so that an image must be in it, as LXC takes one."""
    return path.is_file()


def desk(config: ContainerConfig) -> Path:
    """Return the folder that is covered while the root is mounted: the upper, or the one that an image lies in."""
    last = Path(config.rootfs_layers[-1])
    return last.parent if is_image(last) else last


def images(config: ContainerConfig, *, rootless: bool) -> dict[Path, Image]:
    """Return what of lxc.rootfs.path are images.

    ConfigError: E_MOUNT_SOURCE, E_FS_UNSUITABLE. HostError: E_FS_UNSUITABLE for a normal user.
    """
    *lowers, last = [Path(name) for name in config.rootfs_layers]
    if config.rootfs_kind == "loop" and not is_image(last):
        raise ConfigError("E_MOUNT_SOURCE", str(last), "is no file that could be an image")
    if config.rootfs_kind == "overlay" and is_image(last):
        raise ConfigError("E_FS_UNSUITABLE", str(last), "what is written to must be a folder")
    found = [path for path in (*lowers, last) if is_image(path)]
    if found and rootless:
        raise HostError(
            "E_FS_UNSUITABLE",
            str(found[0]),
            "only root may have the kernel read a file system image",
            hints=("unpack it into a folder, and name that: lxc.rootfs.path = dir:FOLDER",),
        )
    return {path: _look(path, f"image{number}") for number, path in enumerate(found)}


def _look(path: Path, slot: str) -> Image:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ConfigError("E_MOUNT_SOURCE", str(path), error.strerror or str(error)) from None
    for offset, magic, kind, writable in _KINDS:
        if head.startswith(magic, offset):
            return Image(path=path, kind=kind, read_only=not writable, slot=slot)
    known = ", ".join(kind for *_, kind, _ in _KINDS)
    raise ConfigError(
        "E_FS_UNSUITABLE", str(path), f"is no file system that a root can be: {known}"
    )


def opened(image: Image) -> Call:
    """Open the file of `image` in the host's own mount namespace: there it is known by its path, and kept in use."""
    return Call(
        name="openat",
        args=(
            m.AT_FDCWD,
            c(str(image.path)),
            (os.O_RDONLY if image.read_only else os.O_RDWR) | os.O_CLOEXEC,
        ),
        result=image.slot,
        failure=Failure("E_MOUNT_SOURCE", str(image.path)),
    )


def mount(image: Image, slot: str, options: MountFlags) -> tuple[Call, ...]:
    """Mount `image`, which is open, into slot `slot`, attached nowhere yet.

    /dev is covered by the kernel's own meanwhile: the host's may lack the node of a device that is free.
    """
    words = tuple(word for word in options.data if word not in _OURS)
    unsuitable = Failure(
        "E_FS_UNSUITABLE", str(image.path), f"the kernel does not mount it as {image.kind}"
    )
    return (
        *steps.filesystem(
            "devtmpfs",
            "devices",
            m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC,
            ("source=devtmpfs",),
            why="every device that there is, whatever of /dev this host shows",
            failure=Failure("E_KERNEL_FEATURE", "devtmpfs"),
        ),
        steps.attach("devices", m.AT_FDCWD, "/dev"),
        *_loop(image),
        *steps.filesystem(
            image.kind,
            slot,
            m.MOUNT_ATTR_RDONLY if image.read_only else 0,
            (("source", _DEVICE), *(("ro",) if image.read_only else ()), *words),
            failure=unsuitable,
        ),
        steps.close("loop"),
        Call(name="umount2", args=(c("/dev"), m.MNT_DETACH)),
        steps.close("devices"),
    )


def _loop(image: Image) -> tuple[Call, ...]:
    """Give the file a device, open in slot `loop`: it is free again when nobody has it open or mounted."""
    missing = Failure(
        "E_KERNEL_FEATURE", "loop devices", "there are none", hints=("as root: modprobe loop",)
    )
    *before, configure = _try(image, missing)
    return (
        Call(
            name="openat",
            args=(m.AT_FDCWD, c("/dev/loop-control"), os.O_RDWR | os.O_CLOEXEC),
            result="control",
            failure=missing,
        ),
        Call(
            name="flock",
            args=(Slot("control"), _LOCK_EX),
            why="or two starts at once were given the same device",
        ),
        *steps.tried(before, configure, errno.EBUSY, undo=(steps.close("loop"),)),
        steps.close(image.slot),
        steps.close("control"),
    )


def _try(image: Image, missing: Failure) -> tuple[Call, Call, Call]:
    """Take the device that is free now, unless one that locks nothing, as mount(8), takes it first."""
    flags = _AUTOCLEAR | (_READ_ONLY if image.read_only else 0)
    values: tuple[int | Slot, ...] = (Slot(image.slot), 0, *[0] * 5, 0, 0, 0, flags, *[0] * 30)
    return (
        Call(name="ioctl", args=(Slot("control"), _GET_FREE, 0), result="free", failure=missing),
        Call(
            name="openat",
            args=(m.AT_FDCWD, _DEVICE, os.O_RDWR | os.O_CLOEXEC),
            result="loop",
            failure=missing,
        ),
        Call(
            name="ioctl",
            args=(Slot("loop"), _CONFIGURE, Struct(_CONFIG, values)),
            why="the device is free again when its last user goes, however he goes",
            failure=Failure("E_MOUNT_SOURCE", str(image.path), "a loop device does not take it"),
        ),
    )
