"""A normal user's control groups: a scope that the user's own systemd manager makes and delegates to us.

Only that manager may move a process out of the session it stands in (cgroups(7), "Delegation containment"), so we
have it move ourselves: into `UNIT/starter`, from where whoever we start can be put into `UNIT/mktemplate/KEY`, which
is all ours. The scope goes by itself when its last process has ended.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

from runtime import state
from runtime.controlfile import read, try_write, write
from runtime.errors import HostError
from runtime.hierarchy import Hierarchy
from runtime.idmap import user

_BUSCTL = "/usr/bin/busctl"
_TOP = "/sys/fs/cgroup"
_UNIT = re.compile(r"(?P<scope>/sys/fs/cgroup/.*/(?P<unit>mktemplate-[^/]+\.scope))(/|$)")
_MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
_PATIENCE = 10.0  # seconds for the manager
_STARTER = "starter"


def scope(key: str) -> Hierarchy:
    """Move us into a scope of our own for `key`; return it as a hierarchy to make groups in. HostError: E_CGROUP."""
    unit = f"mktemplate-{key}-{secrets.token_hex(4)}.scope"
    _call(
        "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail",
        "4", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true",
        "CollectMode", "s", "inactive-or-failed", "Description", "s", f"mktemplate container {key}", "0",
    )  # fmt: skip
    folder = _arrived(unit)
    _stand_in(folder)
    given = tuple(read(f"{folder}/cgroup.controllers").split())
    for name in given:  # now that no process stands in the scope itself
        try_write(f"{folder}/cgroup.subtree_control", f"+{name}")
    return Hierarchy(path=folder, controllers=given, version=2)


def stand_beside(group: Path) -> None:
    """Move us into the scope that `group` is below, so that we may put others into `group`. HostError: E_CGROUP."""
    found = _UNIT.match(str(group))
    if found is None or _own_group().startswith(found["scope"]):
        return
    _call("AttachProcessesToUnit", "ssau", found["unit"], f"/{_STARTER}", "1", str(os.getpid()))


def notes() -> tuple[str, ...]:
    """Return what a user must know of the manager: without lingering it ends, and all in it, with the last session."""
    if os.path.exists(f"/var/lib/systemd/linger/{user()}"):
        return ()
    return (f"it ends when you log out; loginctl enable-linger {user()} lets it run on",)


def lacking() -> str:
    """Return why this user has no control groups here, "" where it has."""
    if not os.path.exists(f"{_TOP}/cgroup.controllers"):
        return "this host has no pure cgroup v2"
    if not os.access(_BUSCTL, os.X_OK):
        return "this host has no systemd"
    if not os.path.exists(f"{state.user_directory()}/bus"):
        return "your systemd manager does not run"
    return ""


def _stand_in(folder: str) -> None:
    try:
        os.mkdir(f"{folder}/{_STARTER}", 0o755)
        write(f"{folder}/{_STARTER}/cgroup.procs", "0")
    except OSError as error:
        raise HostError("E_CGROUP", folder, f"is not delegated: {error.strerror}") from None


def _arrived(unit: str) -> str:
    """Return the group of `unit` once we are in it: the manager has only taken the order."""
    deadline = time.monotonic() + _PATIENCE
    while not _own_group().endswith(f"/{unit}"):
        if time.monotonic() > deadline:
            raise HostError("E_CGROUP", unit, f"systemd has not made it after {_PATIENCE:g} s")
        time.sleep(0.001)
    return _own_group()


def _own_group() -> str:
    for line in read("/proc/self/cgroup").split("\n"):
        if line.startswith("0::"):
            return _TOP + line[3:]
    return ""


def _call(method: str, *words: str) -> None:
    """Call the user's manager. HostError: E_CGROUP with what it says."""
    import subprocess  # here: few starts need it

    why = lacking()
    if why:
        raise HostError("E_CGROUP", "limits", why, hints=hints())
    folder = str(state.user_directory())
    environment = {"XDG_RUNTIME_DIR": folder, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/bus"}
    try:
        done = subprocess.run(
            [_BUSCTL, "--user", "--quiet", "call", *_MANAGER, method, *words],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostError(
            "E_CGROUP", "limits", "your systemd manager does not answer", hints=hints()
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise HostError(
            "E_CGROUP", "limits", f"your systemd manager refuses: {said}", hints=hints()
        )


def hints() -> tuple[str, ...]:
    """Return what gives a user what is lacking."""
    if not os.path.exists(f"{_TOP}/cgroup.controllers"):
        return ("boot the host with systemd.unified_cgroup_hierarchy=1, or ask for no limits",)
    return (f"loginctl enable-linger {user()}, then log in again",)
