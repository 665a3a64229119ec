"""What the provisioner needs of namespaces: three values, two methods. Implemented by `runtime.sandbox`, handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The tree that a sandboxed process sees as `/`.

    Without `lowers`, `upper` itself is the root. With them, topmost first, an overlay: `upper` takes what is
    written and `work` is its empty work directory on the same file system. Owners on disk are never shifted.
    """

    upper: Path
    lowers: tuple[Path, ...] = ()
    work: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a sandboxed program ended: its status (128+N for signal N) and the last 64 KiB it wrote."""

    status: int
    output: bytes
    timed_out: bool = False
    leftover: tuple[str, ...] = ()  # names of processes that it left running; they were killed


class Sandbox(Protocol):
    """A small container: own user, mount, pid, ipc, uts and net namespaces, no network, nothing but `root` in reach."""

    degraded: str  # why it is weaker than asked ("" where it is not)

    def run(
        self, root: Root, argv: Sequence[str], *, environment: Mapping[str, str], timeout: float
    ) -> Finished:
        """Run `argv` (an absolute path below `root`) as its root user; /dev, /proc and /tmp are there."""
        ...

    def call(self, root: Root, function: Callable[[], bytes]) -> bytes:
        """Return what `function` returns when called in a child that has pivoted into `root`.

        The child has descriptors inherited from the caller and nothing else of the host in reach. A
        ProvisionError raised in it is raised here again; so is any other exception, as its text.
        """
        ...
