"""`cp`: files into a container or out of it. Its end of the copy runs inside, with the rights of its init."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.places import containers_path
from runtime import enter, state, transfer
from runtime.container import Container
from runtime.image import is_image
from runtime.sandbox import KernelSandbox
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """One side of the copy."""

    path: str
    container: str = ""

    @staticmethod
    def of(word: str) -> _End:
        """Read `NAME:PATH` or `PATH`; what begins with `/` or `.` is a path of the host's."""
        name, colon, path = word.partition(":")
        if not colon or "/" in name or name.startswith("."):
            return _End(path=word)
        return _End(path=path or "/", container=container_name(name))


def copy_files(request: Request, console: Console) -> int:
    """Copy a file or a folder."""
    source, target = (_End.of(word) for word in request.words)
    if bool(source.container) == bool(target.container):
        raise CommandError(
            "E_USAGE",
            "cp",
            "one side is NAME:PATH, the other a path of the host",
            hints=("mktemplate cp NAME:/etc/hosts . copies out", "mktemplate cp FILE NAME:/tmp in"),
        )
    if request.flags.owner and source.container:
        raise CommandError("E_USAGE", "cp --owner", "is for what is copied in")
    container = Container(containers_path(request), source.container or target.container)
    base = os.path.basename(source.path.rstrip("/")) or container.name
    owner = request.flags.owner

    def sending(stream: int) -> Callable[[], None]:
        return lambda: transfer.send(source.path, stream)

    def receiving(stream: int) -> Callable[[], None]:
        return lambda: transfer.receive(target.path, base, stream, owner)

    reading, writing = os.pipe2(os.O_CLOEXEC)
    if target.container:
        said = _both(container, (sending, writing), (receiving, reading))
    else:
        said = _both(container, (receiving, reading), (sending, writing))
    if said:
        raise CommandError("E_IO", f"{request.words[0]} → {request.words[1]}", escape(said))
    return 0


_Work = tuple[Callable[[int], Callable[[], None]], int]


def _both(container: Container, here: _Work, there: _Work) -> str:
    """Do one end's work in a child here, the other's in the container; return what went wrong."""
    work, stream = here
    inside, other = there
    heard, said = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(other)
            os.write(said, transfer.guarded(work(stream)))
        finally:
            os._exit(0)
    os.close(said)
    os.close(stream)
    try:
        wrong = _inside(container, lambda: transfer.guarded(inside(other)))
    finally:
        os.close(other)
        os.waitpid(child, 0)
        with os.fdopen(heard, "rb") as file:
            own = file.read()
    both = [text.decode(errors="replace") for text in (own, wrong)]
    broke = "the other end broke off"
    return next((text for text in both if text and text != broke), both[0] or both[1])


def _inside(container: Container, work: Callable[[], bytes]) -> bytes:
    """Do `work` in the container, which need not run: then in what would be its root."""
    found = container.bundle
    if container.state() in {"RUNNING", "FROZEN"}:
        return enter.inside(container, work)
    layers = tuple(map(Path, container.config.rootfs_layers))
    if not found.record.template or any(map(is_image, layers)):
        what = (
            "has an image for its root" if found.record.template else "is of somebody else's making"
        )
        raise CommandError(
            "E_NOTRUNNING",
            container.name,
            f"{what}, and is only reached while it runs",
            hints=(f"mktemplate start {container.name}",),
        )
    root = _Root(upper=layers[-1], lowers=layers[:-1])
    with ExitStack() as stack:
        stack.enter_context(state.lock(container.path, container.name))
        return KernelSandbox().call(root, work)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Root:
    upper: Path
    lowers: tuple[Path, ...] = ()

    @property
    def work(self) -> Path | None:
        """The overlay's own folder."""
        return self.upper.with_name("work") if self.lowers else None
