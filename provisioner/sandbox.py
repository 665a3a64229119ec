"""What the provisioner needs of namespaces: three values, three methods. `runtime.sandbox` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from valuetypes import dataclass

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The tree that a sandboxed process sees as `/`.

    Without `lowers`, `upper` itself is the root. With them, topmost first, an overlay: `upper` takes what is
    written and `work` is its empty work directory on the same file system. Owners on disk are never shifted.
    """

    upper: Path
    lowers: tuple[Path, ...] = ()
    work: Path | None = None


class Finished(Protocol):
    """How a sandboxed program ended."""

    @property
    def status(self) -> int:
        """Its exit status, 128+N for signal N."""
        ...

    @property
    def output(self) -> bytes:
        """The last 64 KiB that it wrote to stdout and stderr."""
        ...

    @property
    def timed_out(self) -> bool:
        """Whether it was killed at the time limit."""
        ...

    @property
    def leftover(self) -> tuple[str, ...]:
        """Names of the processes that it left running; they were killed."""
        ...

    @property
    def answer(self) -> bytes:
        """What was called `after` it returned; empty where it was not called."""
        ...


class Sandbox(Protocol):
    """A small container: own user, mount, pid, ipc, uts and net namespaces, no network, nothing but `root` in reach."""

    @property
    def degraded(self) -> str:
        """Why it is weaker than asked ("" where it is not)."""
        ...

    def run(
        self,
        root: Root,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        timeout: float,
        covers: Mapping[str, str] = NOTHING,
        after: Callable[[], bytes] | None = None,
    ) -> Finished:
        """Run `argv` (absolute path below `root`) as its root user; /dev, /proc and /tmp are there.

        `covers`: in place of which file of the root which other one is seen; where that can be had, for it only
        saves time. `after`: what is called in the same root when it has succeeded and left nothing running, as by
        `call`: each way into a root takes 15 ms.
        """
        ...

    def call(self, root: Root, function: Callable[[], bytes]) -> bytes:
        """Return what `function` returns when called in a child that has pivoted into `root`.

        The child has the descriptors of the caller and nothing else of the host in reach; it imports nothing.
        An exception that leaves `function` is an error of ours: functions answer failures in their bytes.
        """
        ...

    def begin(
        self, root: Root, function: Callable[[], bytes]
    ) -> AbstractContextManager[Callable[[], bytes]]:
        """Call `function` as `call` does, beside the block; what it yields waits for what `function` returns.

        The child ends with the block, whether or not anybody waited.
        """
        ...
