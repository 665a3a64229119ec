"""From unpacked to configured: every maintainer script, in the sandbox, once; then nothing of the build remains.

What a layer may not carry is removed here: identities (machine-id, ssh host keys), logs, caches, backups. With the
time clamp of `store.commit` two builds are equal to the last byte.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from provisioner import errand
from provisioner.deb import database, resident, scripts, upkeep
from provisioner.errors import ConfigureFailed
from provisioner.index import Package
from provisioner.inside import delete, is_there, listed, put, read
from provisioner.sandbox import Root, Sandbox

TIMEOUT = 900.0  # seconds for all scripts of one layer
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


def surroundings(packages: Iterable[Package], sandbox: Sandbox) -> Callable[[], dict[str, str]]:
    """Return what lays out, inside the unpacked root, what `configure` needs there, and answers its `covers`."""
    names = frozenset(package.name for package in packages)
    shortcuts = not sandbox.degraded  # a plain chroot has no /proc, and can bind nothing
    return partial(_prepare, names, shortcuts=shortcuts)


def configure(
    root: Root,
    *,
    sandbox: Sandbox,
    covers: Mapping[str, str],
    epoch: int,
    timeout: float = TIMEOUT,
) -> None:
    """Configure what is unpacked in `root`, with its surroundings, and take away what a layer may not carry.

    `covers`: what the surroundings answered; `epoch`: what the scripts are told as SOURCE_DATE_EPOCH.
    Raises ConfigureFailed E_SCRIPT_FAILED, E_SCRIPT_TIMEOUT, E_SCRIPT_LEFTOVER; StoreFailed for the disk.
    """
    done = sandbox.run(
        root,
        ["/bin/sh", scripts.DRIVER.decode()],
        environment=scripts.environment(epoch),
        timeout=timeout,
        covers=covers,
        after=lambda: errand.packed(_clean),
    )
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


def _prepare(names: frozenset[str], *, shortcuts: bool) -> dict[str, str]:
    """Lay out the driver, and keep services from starting and host keys from being made for nothing.

    `shortcuts`: also what saves them time and changes no byte. Return what is to be bound over which file meanwhile.
    """
    os.umask(0o022)
    os.makedirs(scripts.SHIMS, 0o755, exist_ok=True)
    put(scripts.DRIVER, scripts.SCRIPT, 0o755)
    version = _DPKG.search(read(database.ADMIN + b"status"))
    put(scripts.VERSION, version[1] + b"\n" if version else b"\n")
    put(scripts.SHIMS + b"/start-stop-daemon", _NOTHING, 0o755)
    for path, (body, mode) in _SCAFFOLD.items():
        if not is_there(path):
            put(path, body, mode)
    if "openssh-server" in names:
        for key in _HOST_KEYS:
            if not is_there(key):
                put(
                    key, b"", 0o600
                )  # a key made here would be everybody's; the container makes its own
    if not shortcuts:
        return {}
    upkeep.lay(scripts.SHIMS)
    return resident.lay(scripts.SHIMS)


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
