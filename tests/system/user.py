"""The command as a normal user types it: a user of a private /etc, whom newuidmap believes, with a tun device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.command import CHECKOUT, Mkt

USER = 54321
GROUP = 54399
FILES = {
    "passwd": "mktuser:x:{0}:{0}::{1}/home:/bin/sh\n",
    "group": "mktuser:x:{0}:\n",
    "subuid": "mktuser:{2}:65536\n",
    "subgid": "mktuser:{2}:65536\n",
}
# Python and its packages, where they lie in a closed home, are shown in a mount namespace that ends with the user.
BECOME = """
place=$1; shift
for file in passwd group subuid subgid; do mount --bind "$place/$file" "/etc/$file"; done
IFS='
'
kept() { mkdir -p "$place/kept$1"; echo "$place/kept$1"; }
for shown in $SHOWN; do mount --bind "$shown" "$(kept "$shown")"; done
for closed in $CLOSED; do mount -t tmpfs -o mode=755 none "$closed"; done
for shown in $SHOWN; do mkdir -p "$shown"; mount --bind "$(kept "$shown")" "$shown"; done
unset IFS
[ ! -e "$place/tun" ] || mount --bind "$place/tun" /dev/net/tun
exec setpriv --reuid 54321 --regid 54321 $GROUPS_OF --inh-caps=-all "$@"
"""


def closed(path: str | Path) -> str | None:
    """Return the topmost folder above `path` that root alone may enter."""
    parents = reversed(Path(path).parents)
    return next((str(one) for one in parents if not one.stat().st_mode & 0o001), None)


def closed_homes() -> dict[str, str]:
    """Return what the user needs of what root alone may enter, each by the closed folder that it lies in."""
    places = {needed: closed(needed) for needed in (sys.base_prefix, sys.prefix)}
    return {needed: place for needed, place in places.items() if place}


def free_ids() -> int:
    """Return the first of subordinate ids that nobody on this machine has."""
    taken = [2_000_000]
    for file in ("/etc/subuid", "/etc/subgid"):
        rows = Path(file).read_text().split() if Path(file).exists() else []
        taken += [int(first) + int(count) for _, first, count in (row.split(":") for row in rows)]
    return max(taken)


class UserMkt(Mkt):
    """`mktemplate` as the user, run as a process of its own."""

    def __init__(self, place: Path, run: Path, groups: str) -> None:
        super().__init__(place / "home/.local/share/mktemplate")
        self.place = place
        homes = closed_homes()
        self.environment = {
            "HOME": str(place / "home"),
            "XDG_RUNTIME_DIR": str(run),
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(place / "code"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
            "GROUPS_OF": groups,
            "SHOWN": "\n".join(homes),
            "CLOSED": "\n".join(set(homes.values())),
        }

    def __call__(
        self, *argv: str, timeout: float = 300, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command and return how it ended; nothing is checked."""
        return self.module("mktemplate", *argv, timeout=timeout, stdin=stdin, **environment)

    def module(
        self, name: str, *argv: str, timeout: float = 300, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a module of Python's as the user and return how it ended."""
        return subprocess.run(
            [
                *("unshare", "-m", "--propagation", "private", "sh", "-ec", BECOME, "sh"),
                *(str(self.place), sys.executable, "-P", "-m", name),
                *argv,
            ],
            env=self.environment | environment, cwd="/", input=stdin, text=True, capture_output=True,
            timeout=timeout, check=False,
        )  # fmt: skip


@contextmanager
def made(*, alone: bool = False) -> Iterator[UserMkt]:
    """A normal user with subordinate ids, a runtime directory and a tun device that it may open.

    One who is `alone` has no subordinate ids, but a supplementary group.
    """
    place = Path(tempfile.mkdtemp(prefix="mkt-user-", dir="/var/tmp"))
    place.chmod(0o755)
    for name, line in FILES.items():
        own = Path("/etc", name)
        before = own.read_text() if own.exists() else ""
        given = "" if alone and name.startswith("sub") else line.format(USER, place, free_ids())
        (place / name).write_text(before + given)
    run = Path(tempfile.mkdtemp(prefix="mkt-run-", dir="/tmp"))  # where AppArmor lets pasta write
    (place / "home").mkdir(0o700)
    for folder in (place / "home", run):
        os.chown(folder, USER, USER)
    (place / "code").mkdir()
    for package in ("mktemplate", "provisioner", "runtime", "templates", "fstabs", "valuetypes"):
        shutil.copytree(
            CHECKOUT / package,
            place / "code" / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copytree(CHECKOUT / "tests" / "templates", place / "templates")
    if Path("/dev/net/tun").exists():
        os.mknod(place / "tun", 0o020666, os.makedev(10, 200))
        (place / "tun").chmod(0o666)
    found = UserMkt(place, run, f"--groups {GROUP}" if alone else "--clear-groups")
    yield found
    found.sweep()
    for folder in (place, run):
        shutil.rmtree(folder, ignore_errors=True)
