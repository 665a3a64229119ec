"""From unpacked to configured: every maintainer script, in the sandbox, once; then nothing of the build remains.

What a layer may not carry is removed here: identities (machine-id, ssh host keys), logs, caches, backups. With the
time clamp of `store.commit` two builds are equal to the last byte.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provisioner import errand
from provisioner.deb import database, resident, scripts, upkeep
from provisioner.errors import ConfigureFailed
from provisioner.index import Package
from provisioner.inside import delete, is_there, listed, put, read
from provisioner.sandbox import Root, Sandbox
from valuetypes import dataclass

TIMEOUT = 900.0  # seconds for all scripts of one layer
Unpacked = Mapping[str, Any]  # a JSON object; `newest` is the latest time of what was unpacked
# What is there only while scripts run, and only where no package has the file: nothing starts (invoke-rc.d(8)), and
# the host has a neutral name (postfix writes it into main.cf, and fails without one).
_SCAFFOLD = {
    b"/usr/sbin/policy-rc.d": (upkeep.POLICY, 0o755),
    b"/etc/hostname": (b"localhost\n", 0o644),
    b"/etc/resolv.conf": (b"# no resolver while packages are configured\n", 0o644),
}
_DPKG = re.compile(rb"^Package: dpkg\n(?:.+\n)*?Version: (.+)\n", re.MULTILINE)
_UNPACKED = b"\nStatus: install ok unpacked\n"
_INSTALLED = b"\nStatus: install ok installed\n"
_NOTHING = b"#!/bin/sh\nexit 0\n"
_HOST_KEYS = tuple(b"/etc/ssh/ssh_host_%s_key" % kind for kind in (b"rsa", b"ecdsa", b"ed25519"))

# Patterns of what must not stay: (directory, name pattern).
_NOISE = (
    (b"/etc", b"passwd-"), (b"/etc", b"group-"), (b"/etc", b"shadow-"), (b"/etc", b"gshadow-"),
    (b"/etc", b"subuid-"), (b"/etc", b"subgid-"), (b"/etc", b".pwd.lock"),
    (b"/etc/ssl/private", b"ssl-cert-snakeoil.key"), (b"/etc/ssl/certs", b"ssl-cert-snakeoil.pem"),
    (b"/etc/ssh", b"ssh_host_*_key*"), (b"/var/lib/rabbitmq", b".erlang.cookie"),
    (b"/var/lib/dpkg", b"*-old"), (b"/var/cache/debconf", b"*-old"),
    (b"/var/cache/ldconfig", b"aux-cache"), (b"/var/cache/apt", b"*.bin"),
    (b"/var/lib/dbus", b"machine-id"), (b"/var/lib/systemd", b"random-seed"),
    (b"/var/lib/systemd", b"credential.secret"), (b"/var/log", b"*.log"), (b"/var/log/apt", b"*"),
    (b"/run", b"*"), (b"/tmp", b"*"), (b"/var/tmp", b"*"),
)  # fmt: skip


def configure(
    root: Root,
    packages: Sequence[Package],
    *,
    sandbox: Sandbox,
    unpack: Callable[[], Unpacked],
    epoch: Callable[[int], int],
    timeout: float = TIMEOUT,
) -> Unpacked:
    """Configure `packages` in `root`, and take away what a layer may not carry; return what `unpack` returns.

    `unpack` is called inside the root, and unpacks what is not unpacked; the perls that stay begin beside it. `epoch`:
    what the scripts are told as SOURCE_DATE_EPOCH, by the latest time of what was unpacked. Raises ConfigureFailed
    E_SCRIPT_FAILED, E_SCRIPT_TIMEOUT, E_SCRIPT_LEFTOVER; StoreFailed for the disk; and what `unpack` raises.
    """
    names = frozenset(package.name for package in packages)
    # A plain chroot has no /proc, and can bind nothing.
    around = _Around(names=names, shortcuts=not sandbox.degraded, unpack=unpack, epoch=epoch)
    done = sandbox.run(
        root,
        ["/bin/sh", scripts.DRIVER.decode()],
        environment=scripts.environment(),
        timeout=timeout,
        around=around,
    )
    unpacked: Unpacked = errand.opened(done.begun, root) if done.begun else {}
    who, how = scripts.blame(done.output)
    if done.timed_out:
        _fail("E_SCRIPT_TIMEOUT", who, f"still running after {timeout:.0f} s", done.output)
    if done.status:
        _fail("E_SCRIPT_FAILED", who, how, done.output)
    if done.leftover:
        processes = ", ".join(sorted(set(done.leftover)))
        _fail("E_SCRIPT_LEFTOVER", who, f"left running: {processes}", b"")
    unfinished = errand.opened(done.answer, root)
    if unfinished:
        _fail("E_SCRIPT_FAILED", "dpkg", f"left unfinished: {', '.join(unfinished)}", done.output)
    return unpacked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What the driver finds, and what is called around it; see `sandbox.Around`."""

    names: frozenset[str]  # of the packages
    shortcuts: bool  # also what saves scripts time and changes no byte
    unpack: Callable[[], Unpacked]
    epoch: Callable[[int], int]

    @property
    def covers(self) -> Mapping[str, str]:
        """The shims of residents that are called by their path."""
        return resident.covers(scripts.SHIMS) if self.shortcuts else {}

    def before(self, start: Callable[[], None], originals: Mapping[str, int]) -> tuple[bool, bytes]:
        """Start the driver, and have all unpacked and laid out that it needs when it goes on."""
        return errand.tried(lambda: self._begin(start, originals))

    def after(self) -> bytes:
        """Clean up."""
        return errand.packed(_clean)

    def _begin(self, start: Callable[[], None], originals: Mapping[str, int]) -> Unpacked:
        os.umask(0o022)
        os.makedirs(scripts.SHIMS, 0o755, exist_ok=True)
        put(scripts.DRIVER, scripts.SCRIPT, 0o755)
        put(scripts.SHIMS + b"/start-stop-daemon", _NOTHING, 0o755)
        if self.shortcuts:
            upkeep.lay(scripts.SHIMS)
            resident.lay(scripts.SHIMS, originals)
        start()
        began = time.monotonic()
        unpacked = self.unpack()
        _prepare(self.names, self.epoch(unpacked["newest"]))
        return {**unpacked, "seconds": time.monotonic() - began}


def settle(root: Root, sandbox: Sandbox) -> None:
    """Record the unpacked packages of `root`, which bring files alone, as installed.

    Raises ConfigureFailed E_SCRIPT_FAILED for a package with scripts: there is no shell to run them.
    """
    refused = errand.send(sandbox, root, _settle)
    if refused:
        _fail("E_SCRIPT_FAILED", refused, "has scripts, and this root holds no shell for them", b"")


def _settle() -> str:
    """Return the first package that has scripts; where none has, record all as installed."""
    for name in sorted(listed(database.ADMIN + b"info")):
        package, _, kind = name.decode().rpartition(".")
        if kind in ("preinst", "postinst", "conffiles"):
            return package
    status = read(database.ADMIN + b"status")
    put(database.ADMIN + b"status", status.replace(_UNPACKED, _INSTALLED))
    return ""


def _fail(code: str, subject: str, detail: str, output: bytes) -> None:
    tail = scripts.last_lines(output)
    hints = ("--keep-failed keeps the rootfs to look at",)
    raise ConfigureFailed(code, subject, f"{detail}\n{tail}" if tail else detail, hints=hints)


def _prepare(names: frozenset[str], epoch: int) -> None:
    """Tell the driver what it asks, and keep services from starting and host keys from being made for nothing."""
    version = _DPKG.search(read(database.ADMIN + b"status"))
    put(scripts.VERSION, version[1] + b"\n" if version else b"\n")
    put(scripts.EPOCH, b"%d\n" % epoch)
    for path, (body, mode) in _SCAFFOLD.items():
        if not is_there(path):
            put(path, body, mode)
    if "openssh-server" in names:
        for key in _HOST_KEYS:
            if not is_there(key):
                put(
                    key, b"", 0o600
                )  # a key made here would be everybody's; the container makes its own


def _clean() -> list[str]:
    """Take away the build's own files, identities and noise; return what dpkg has not finished, and leave that all."""
    unfinished = database.unfinished(read(database.ADMIN + b"status"))
    if unfinished:
        return unfinished
    delete(scripts.BUILD)
    for path, (body, _) in _SCAFFOLD.items():
        if read(path) == body:
            os.unlink(path)
    for folder, pattern in _NOISE:
        for name in listed(folder):
            if fnmatch.fnmatchcase(name, pattern):
                delete(folder + b"/" + name)
    if is_there(b"/etc/machine-id"):
        put(b"/etc/machine-id", b"")
    _empty_logs()
    return []


def _empty_logs() -> None:
    """Empty what is left in /var/log: btmp and its like must be there."""
    for name in listed(b"/var/log"):
        status = os.lstat(b"/var/log/" + name)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            os.truncate(b"/var/log/" + name, 0)
