"""From unpacked to configured: every maintainer script, in the sandbox, once; then nothing of the build remains.

What a layer may not carry is removed here: identities (machine-id, ssh host keys), logs, caches, backups. With the
time clamp of `store.commit` two builds are equal to the last byte.
"""

from __future__ import annotations

import fnmatch
import json
import os
import stat
from collections.abc import Callable, Sequence

from provisioner.deb import scripts
from provisioner.deb.database import put
from provisioner.errors import ConfigureFailed, StoreFailed
from provisioner.index import Package
from provisioner.progress import SILENT, Progress
from provisioner.sandbox import Root, Sandbox

TIMEOUT = 900.0  # seconds for all scripts of one layer
_POLICY = b"/usr/sbin/policy-rc.d"
_NEVER = b"#!/bin/sh\nexit 101\n"
_NOTHING = b"#!/bin/sh\nexit 0\n"
_HOST_KEYS = tuple(b"/etc/ssh/ssh_host_%s_key" % kind for kind in (b"rsa", b"ecdsa", b"ed25519"))

# Patterns of what must not stay: (directory, name pattern).
_NOISE = (
    ("etc", "passwd-"), ("etc", "group-"), ("etc", "shadow-"), ("etc", "gshadow-"),
    ("etc", "subuid-"), ("etc", "subgid-"), ("etc", ".pwd.lock"), ("etc/ssh", "ssh_host_*_key*"),
    ("var/lib/dpkg", "*-old"), ("var/cache/debconf", "*-old"), ("var/cache/ldconfig", "aux-cache"),
    ("var/cache/apt", "*.bin"), ("var/lib/dbus", "machine-id"), ("var/lib/systemd", "random-seed"),
    ("var/lib/systemd", "credential.secret"), ("var/log", "*.log"), ("var/log/apt", "*"),
    ("run", "*"), ("tmp", "*"), ("var/tmp", "*"),
)  # fmt: skip


def configure(
    packages: Sequence[Package],
    root: Root,
    *,
    sandbox: Sandbox,
    epoch: int,
    timeout: float = TIMEOUT,
    progress: Progress = SILENT,
) -> None:
    """Configure the unpacked `packages` of `root` and take away what a layer may not carry.

    `epoch`: what the scripts are told as SOURCE_DATE_EPOCH.
    Raises ConfigureFailed E_SCRIPT_FAILED, E_SCRIPT_TIMEOUT, E_SCRIPT_LEFTOVER; StoreFailed for the disk.
    """
    names = frozenset(package.name for package in packages)
    with progress.phase("configure", len(packages)) as advance:
        _inside(sandbox, root, lambda: _prepare(names))
        done = sandbox.run(
            root,
            ["/bin/sh", scripts.DRIVER.decode()],
            environment=scripts.environment(epoch),
            timeout=timeout,
        )
        who, how = scripts.blame(done.output)
        if done.timed_out:
            _fail("E_SCRIPT_TIMEOUT", who, f"still running after {timeout:.0f} s", done.output)
        if done.status:
            _fail("E_SCRIPT_FAILED", who, how, done.output)
        if done.leftover:
            processes = ", ".join(sorted(set(done.leftover)))
            _fail("E_SCRIPT_LEFTOVER", who, f"left running: {processes}", b"")
        _inside(sandbox, root, _clean)
        advance(len(packages))


def _fail(code: str, subject: str, detail: str, output: bytes) -> None:
    tail = scripts.last_lines(output)
    hints = ("--keep-failed keeps the rootfs to look at",)
    raise ConfigureFailed(code, subject, f"{detail}\n{tail}" if tail else detail, hints=hints)


def _inside(sandbox: Sandbox, root: Root, function: Callable[[], None]) -> None:
    """Call `function` inside the root; a failure of the disk there is raised here."""

    def answer() -> bytes:
        try:
            function()
        except OSError as problem:
            return json.dumps([problem.errno, f"{problem.strerror}: {problem.filename!r}"]).encode()
        return b""

    said = sandbox.call(root, answer)
    if said:
        number, detail = json.loads(said)
        raise StoreFailed("E_IO", str(root.upper), f"[{number}] {detail}")


def _prepare(names: frozenset[str]) -> None:
    """Lay out the driver, and keep services from starting and host keys from being made for nothing."""
    os.umask(0o022)
    os.makedirs(scripts.SHIMS, 0o755, exist_ok=True)
    put(scripts.DRIVER, scripts.SCRIPT, 0o755)
    put(scripts.SHIMS + b"/start-stop-daemon", _NOTHING, 0o755)
    if not os.path.lexists(_POLICY):
        put(_POLICY, _NEVER, 0o755)
    if "openssh-server" in names:
        for key in _HOST_KEYS:
            if not os.path.lexists(key):
                put(
                    key, b"", 0o600
                )  # a key made here would be everybody's; the container makes its own


def _clean() -> None:
    """Take away the build's own files, identities and noise."""
    for folder, pattern in _NOISE:
        for name in _listed(folder):
            if fnmatch.fnmatchcase(name, pattern):
                _delete(f"/{folder}/{name}")
    _delete(scripts.BUILD.decode())
    if os.path.lexists(_POLICY) and _content(_POLICY) == _NEVER:
        os.unlink(_POLICY)
    if os.path.lexists("/etc/machine-id"):
        put(b"/etc/machine-id", b"")
    for name in _listed("var/log"):
        path = f"/var/log/{name}"
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            os.truncate(path, 0)


def _content(path: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        return file.read(4096)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(f"/{folder}")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _delete(path: str) -> None:
    """Delete `path` and what is below it; inside the root, where nothing else can be reached."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        _delete(f"{path}/{name}")
    os.rmdir(path)
