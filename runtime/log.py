"""A container's log: what its init writes, in a file that never grows beyond a bound."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LIMIT = 16 << 20  # bytes of one of the two files


@dataclass(slots=True)
class Log:
    """The file at `path`, and the one before it at `path`.1."""

    path: Path
    descriptor: int
    size: int

    @classmethod
    def open(cls, path: Path) -> Log:
        """Open the log for appending; a symlink there is refused (CVE-2024-9676)."""
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        descriptor = os.open(path, flags, 0o600)
        return cls(path, descriptor, os.fstat(descriptor).st_size)

    def take(self, pipe: int) -> bool:
        """Append what is in `pipe`; return False at its end."""
        while True:
            try:
                chunk = os.read(pipe, 64 << 10)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._append(chunk)

    def _append(self, chunk: bytes) -> None:
        try:
            if self.size + len(chunk) > LIMIT:
                self._rotate()
            self.size += os.write(self.descriptor, chunk)
        except OSError:  # a full disk must not end the container
            return

    def _rotate(self) -> None:
        os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))
        os.close(self.descriptor)
        fresh = Log.open(self.path)
        self.descriptor, self.size = fresh.descriptor, fresh.size
