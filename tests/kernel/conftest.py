"""A tiny root made of this host's own programs, and containers upon it: seconds, no mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime import bundle, capabilities, idmap
from runtime.bundle import Bundle, Record
from runtime.container import Container
from runtime.errors import StateError
from runtime.seccomp_profile import default_profile

PROGRAMS = (
    *("sh", "cat", "id", "ls", "sleep", "mount", "true", "touch", "chown", "stat", "kill"),
    *("readlink", "hostname", "mknod", "umount", "env", "stty", "tty", "ps", "mkdir", "ln", "head"),
    "setsid",
)
FOLDERS = ("etc", "proc", "sys", "dev", "run", "tmp", "root", "bin", "mnt")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with a shell, coreutils and their libraries."""
    root = tmp_path_factory.mktemp("tiny") / "root"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    root.chmod(0o755)
    for name in PROGRAMS:
        program = shutil.which(name)
        if program is not None:
            shutil.copy(program, root / "bin" / name)
            for library in _libraries(program):
                target = root / library.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    shutil.copy(library, target)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/mnt:/bin/sh\nbad:x:-1:0::/:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nweb:x:33:\nmore:x:44:web\ntty:x:5:\n")
    return root


def _libraries(program: str) -> list[str]:
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    words = (word for line in shown.splitlines() for word in line.split())
    return [word for word in words if word.startswith("/") and Path(word).is_file()]


def let_through(folder: Path) -> None:
    """Let the container's root walk to `folder`: pytest's own are closed, PATH is not."""
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.geteuid() and place.name.startswith(
            ("pytest-", "popen-", "test_")
        ):
            place.chmod(place.stat().st_mode | 0o011)


def log_of(container: Container, wanted: str = "", seconds: float = 60) -> str:
    """Return the log once it holds `wanted`."""
    deadline = time.monotonic() + seconds
    path = container.directory / "log"
    while True:
        text = path.read_text(errors="replace") if path.exists() else ""
        if wanted in text:
            return text
        assert time.monotonic() < deadline, text
        time.sleep(0.01)


Make = Callable[..., Container]
FELL_BACK = '#!/bin/sh\necho "fell back: $*, HERE=$HERE"\nexit 42\n'


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return what stands in the place of scripts/mktemplate: it says what it was asked."""
    path = tmp_path / "script"
    path.write_text(FELL_BACK)
    path.chmod(0o755)
    return path


@pytest.fixture
def make(tiny: Path, tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes a container on the tiny root; all are destroyed at the end."""
    path = tmp_path / "containers"
    path.mkdir()
    path.chmod(0o711)
    made: list[Container] = []

    def one(
        name: str, init: str, *lines: str, userns: bool = True, filtered: bool = True
    ) -> Container:
        container = Container(path, name)
        folder = container.directory
        for below in ("upper", "work"):
            (folder / below).mkdir(parents=True)
        (folder / "upper").chmod(0o755)
        ids = idmap.allocate(path, name)
        if filtered:
            (folder / "seccomp").write_text(default_profile("service"))
            lines = (*lines, f"lxc.seccomp.profile = {folder}/seccomp")
        if userns:
            lines = (*lines, *(f"{key} = {value}" for key, value in ids.lines))
        (folder / "config").write_text(_config(container, tiny, init, lines))
        record = Record(
            name=name,
            template="test",
            distro="debian",
            release="trixie",
            arch="amd64",
            created="2026-01-01T00:00:00Z",
            id_range=(ids.first, ids.count),
        )
        bundle.write(Bundle(path=folder, record=record))
        made.append(container)
        return container

    yield one
    for container in made:
        with suppress(StateError):
            container.destroy(force=True)


def _config(container: Container, root: Path, init: str, lines: tuple[str, ...]) -> str:
    dropped = " ".join(name for name in capabilities.NAMES if name not in capabilities.SERVICE)
    return "\n".join(
        (
            f"lxc.uts.name = {container.name}",
            f"lxc.init.cmd = {init}",
            "lxc.signal.halt = SIGTERM",
            "lxc.pty.max = 8",
            "lxc.console.path = none",
            "lxc.no_new_privs = 1",
            f"lxc.cap.drop = {dropped}",
            "lxc.prlimit.core = 0:0",
            "lxc.cgroup2.pids.max = 2048",
            "lxc.mount.auto = proc:mixed sys:ro",
            "lxc.mount.entry = tmpfs dev/shm tmpfs nosuid,nodev,mode=1777,size=1m,create=dir 0 0",
            "lxc.mount.entry = tmpfs run tmpfs nosuid,nodev,mode=0755,size=1m,create=dir 0 0",
            "lxc.mount.entry = /dev/null proc/timer_list none bind,ro,optional 0 0",
            "lxc.net.0.type = empty",
            f"lxc.rootfs.path = overlay:{root}:{container.directory}/upper",
            *lines,
            "",
        )
    )
