"""Where layers are built and kept: the store below PATH, and the sandbox that this host and this user can have."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from provisioner.sandbox import Sandbox
from provisioner.store import Store
from runtime import capabilities, idmap
from runtime.kernel import mount
from runtime.sandbox import KernelSandbox


def sandbox() -> Sandbox:
    """Return what packages are unpacked and configured in. HostError says what a normal user lacks for it."""
    return _chroot() or KernelSandbox(None if os.geteuid() == 0 else idmap.for_build())


def degraded() -> tuple[str, ...]:
    """Return in what builds are weaker here than they should be."""
    weaker = _chroot()
    return (weaker.degraded,) if weaker else ()


def _chroot() -> Sandbox | None:
    if os.geteuid() != 0 or capabilities.has("sys_admin"):
        return None  # without it root has no namespace, as in most containers of others
    from mktemplate.making.chroot import ChrootSandbox

    return ChrootSandbox()


def owners() -> Sandbox | None:
    """Return through what a normal user reaches trees of its subordinate ids; None for root, who needs nothing."""
    return None if os.geteuid() == 0 else sandbox()


def store(path: Path, *, durable: bool = True) -> Store:
    """Return the store below PATH."""
    return Store(path / ".store", sync=_sync if durable else None, sandbox=owners())


def _sync(fd: int) -> None:
    """Have the file system of an open file on disk; all of them where the kernel's number for that is not known."""
    try:
        mount.syncfs(fd)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.sync()
