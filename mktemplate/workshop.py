"""Where layers are built and kept: the store below PATH, and the sandbox that this host and this user can have."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.store import Store
from runtime import idmap
from runtime.sandbox import KernelSandbox


def sandbox() -> KernelSandbox:
    """Return what packages are unpacked and configured in. HostError says what a normal user lacks for it."""
    return KernelSandbox(idmap.for_build())


def owners() -> KernelSandbox | None:
    """Return through what a normal user reaches trees of its subordinate ids; None for root, who needs nothing."""
    return None if os.geteuid() == 0 else sandbox()


def store(path: Path, *, durable: bool = True) -> Store:
    """Return the store below PATH."""
    return Store(path / ".store", durable=durable, sandbox=owners())
