"""Files on their way into a container or out of it, as a stream: one end in the container, the other on the host.

Neither end trusts the other. Names come one component at a time, links are made and never followed, and what would
lend rights (setuid, devices) does not travel. The stream: JSON heads, each behind its length, file contents between.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from runtime import passwd
from runtime.kernel.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from valuetypes import dataclass

_HEAD = struct.Struct("=I")
_MOST = 1 << 16  # bytes of a head: PATH_MAX and some
_DEEPEST = 256
_CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class Refused(Exception):
    """The other end sent what may not be, or this one cannot go on; the text says which."""


def guarded(work: Callable[[], None]) -> bytes:
    """Do `work` in a child; return what went wrong, nothing where all is well."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        work()
    except BrokenPipeError:
        return b""  # the other end says why
    except (OSError, Refused, ValueError) as error:
        text = (
            f"{error.strerror}: {_shown(error.filename)}"
            if isinstance(error, OSError)
            else f"{error}"
        )
        return text.encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - an account that is not there, told by its own error
        return str(getattr(error, "detail", error)).encode("utf-8", "backslashreplace")
    return b""


def _shown(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes) else "the file"


# Sending


def send(path: str, stream: int) -> None:
    """Send the file or folder at `path`; a link that is named itself is followed, those below are sent as links."""
    with os.fdopen(stream, "wb", closefd=False) as out:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            at = os.open(path, _DIRECTORY)
            try:
                _tell(
                    out,
                    kind="d",
                    path="",
                    mode=stat.S_IMODE(status.st_mode),
                    time=status.st_mtime_ns,
                )
                _send_below(at, "", out, 0)
            finally:
                os.close(at)
        elif stat.S_ISREG(status.st_mode):
            _send_file(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "", out)
        else:
            raise Refused(f"{path}: neither a file nor a folder")
        _tell(out, kind="end")


def _send_below(at: int, prefix: str, out: BinaryIO, depth: int) -> None:
    if depth > _DEEPEST:
        raise Refused(f"{prefix}: deeper than {_DEEPEST} folders")
    for name in sorted(os.listdir(at)):
        path = f"{prefix}{name}"
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        about: dict[str, Any] = {
            "path": path,
            "mode": stat.S_IMODE(status.st_mode),
            "time": status.st_mtime_ns,
        }
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            try:
                _tell(out, kind="d", **about)
                _send_below(below, f"{path}/", out, depth + 1)
            finally:
                os.close(below)
        elif stat.S_ISLNK(status.st_mode):
            _tell(out, kind="l", to=os.readlink(name, dir_fd=at), **about)
        elif stat.S_ISREG(status.st_mode):
            _send_file(os.open(name, _FILE, dir_fd=at), path, out)


def _send_file(file: int, path: str, out: BinaryIO) -> None:
    with os.fdopen(file, "rb") as source:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path}: changed while it was read")
        left = status.st_size
        _tell(
            out,
            kind="f",
            path=path,
            mode=stat.S_IMODE(status.st_mode),
            time=status.st_mtime_ns,
            size=left,
        )
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise Refused(f"{path}: became shorter while it was read")
            out.write(chunk)
            left -= len(chunk)


def _tell(out: BinaryIO, **head: object) -> None:
    data = json.dumps(head).encode()
    out.write(_HEAD.pack(len(data)) + data)


# Receiving


@dataclass(frozen=True, slots=True)
class _Item:
    kind: str
    parts: tuple[str, ...]
    mode: int
    time: int
    size: int
    to: str


def receive(path: str, base: str, stream: int, owner: str = "") -> None:
    """Take what comes: into the folder `path` as `base`, or as `path` itself where there is none.

    `owner` is an account of the root that this process is in; without one the files are the process's own.
    """
    ids = None
    if owner:
        top = os.open("/", _DIRECTORY)
        account = passwd.find(top, owner)
        ids = (account.uid, account.gid)
    folder, name = (path, base) if os.path.isdir(path) else os.path.split(path.rstrip("/"))
    if name in {"", ".", ".."}:
        raise Refused(f"{path}: is no name")
    at = os.open(folder or ".", _DIRECTORY)
    with os.fdopen(stream, "rb", closefd=False) as source:
        times: list[tuple[tuple[str, ...], int, int]] = []
        while (item := _read(source)) is not None:
            place = (name, *item.parts)
            with _parent(at, place) as parent:
                _make(parent, place[-1], item, source, ids)
            if item.kind == "d":
                times.append((place, item.time, item.mode))
        for place, time, mode in reversed(times):  # deepest first: what is made below changes them
            with _parent(at, place) as parent:
                os.chmod(place[-1], mode, dir_fd=parent)
                os.utime(place[-1], ns=(time, time), dir_fd=parent, follow_symlinks=False)


def _read(source: BinaryIO) -> _Item | None:
    """Return the next item, as far as it can be meant."""
    length = source.read(_HEAD.size)
    if len(length) < _HEAD.size:
        raise Refused("the other end broke off")
    (size,) = _HEAD.unpack(length)
    if size > _MOST:
        raise Refused("the other end sends no head")
    head = json.loads(source.read(size))
    kind = head.get("kind")
    if kind == "end":
        return None
    path, to = head.get("path"), head.get("to", "")
    numbers = [head.get(key, 0) for key in ("mode", "time", "size")]
    if not isinstance(path, str) or not isinstance(to, str) or kind not in {"d", "f", "l"}:
        raise Refused("the other end sends what is no file")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise Refused(f"{path}: the other end sends no sizes")
    parts = tuple(path.split("/")) if path else ()
    if any(part in {"", ".", ".."} or "\0" in part for part in parts) or "\0" in to:
        raise Refused(f"{path!r}: the other end sends a name that may not be")
    mode, time, length_ = numbers
    return _Item(kind, parts, mode & 0o777, time, length_, to)


@contextmanager
def _parent(at: int, place: tuple[str, ...]) -> Iterator[int]:
    """Open the folder that the last component of `place` lies in; no link is followed below `at`."""
    if len(place) == 1:
        yield at
        return
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    parent = openat2(at, "/".join(place[:-1]), _DIRECTORY, resolve=resolve)
    try:
        yield parent
    finally:
        os.close(parent)


def _make(
    parent: int, name: str, item: _Item, source: BinaryIO, ids: tuple[int, int] | None
) -> None:
    if item.kind == "d":
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            _own(parent, name, ids)
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise Refused(f"{name}: is there and no folder")
        return
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)  # a folder stays, and is an error
    if item.kind == "l":
        os.symlink(item.to, name, dir_fd=parent)
        _own(parent, name, ids)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        left = item.size
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise Refused("the other end broke off")
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        if ids:
            os.fchown(file.fileno(), *ids)
        os.fchmod(file.fileno(), item.mode)
        os.utime(file.fileno(), ns=(item.time, item.time))


def _own(parent: int, name: str, ids: tuple[int, int] | None) -> None:
    if ids:
        os.chown(name, *ids, dir_fd=parent, follow_symlinks=False)
