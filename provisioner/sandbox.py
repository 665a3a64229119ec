"""What the provisioner needs of namespaces: three values, three methods. `runtime.sandbox` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from valuetypes import dataclass


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

    @property
    def begun(self) -> bytes:
        """What was called `before` it returned."""
        ...


class Around(Protocol):
    """What a sandboxed program finds, and what is called around it in the same root: each way in takes 15 ms."""

    @property
    def covers(self) -> Mapping[str, str]:
        """In place of which file of the root which other one is seen, where that can be had: it only saves time.

        The other file is made where it is not there. Where the first is not there, nothing is covered.
        """
        ...

    def before(self, start: Callable[[], None], originals: Mapping[str, int]) -> tuple[bool, bytes]:
        """Do what comes first, as by `call`; return whether the program goes on, and what is `begun`.

        It has to call `start`, which starts the program; until this returns, the program's standard input does not
        end. `originals`: the files that are covered, open for reading, by path; -1 for one that is not there.
        """
        ...

    def after(self) -> bytes:
        """Do what comes last, where the program succeeded and left nothing running; return what is the `answer`."""
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
        around: Around | None = None,
    ) -> Finished:
        """Run `argv` (absolute path below `root`) as its root user; /dev, /proc and /tmp are there."""
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
