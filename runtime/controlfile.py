"""The files and folders of a cgroup file system. The kernel makes them all: there are no links to be led astray by."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

from runtime.errors import HostError


def read(path: str) -> str:
    """Return the text of a control file; FileNotFoundError also where its group goes while it is read."""
    with open(path, "rb") as file:
        try:
            return file.read().decode("ascii", "replace")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def write(path: str, value: str) -> None:
    """Write a control file in one call, as the kernel wants it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def try_write(path: str, value: str) -> bool:
    """Write a control file; return whether the kernel took it."""
    try:
        write(path, value)
    except OSError:
        return False
    return True


def words(path: str) -> dict[str, str]:
    """Return the `NAME VALUE` lines of a control file; none where it does not exist."""
    try:
        pairs = (line.split(" ", 1) for line in read(path).split("\n") if " " in line)
        return {name: value for name, value in pairs}
    except FileNotFoundError:
        return {}


def pids_below(path: str) -> Iterator[int]:
    """Yield the processes of the group at `path` and of those below it."""
    try:
        for word in read(f"{path}/cgroup.procs").split():
            yield int(word)
        with os.scandir(path) as entries:
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
            raise
        return
    for folder in folders:
        yield from pids_below(folder)


def remove_tree(path: str, deadline: float) -> None:
    """Remove the group at `path` and those below, depth first; wait until `deadline` for the dying."""
    try:
        with os.scandir(path) as entries:
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for folder in folders:
        remove_tree(folder, deadline)
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise HostError("E_CGROUP", path, f"cannot be removed: {error.strerror}") from None
            time.sleep(0.002)  # a killed process leaves its group a little after it is gone
        else:
            return
