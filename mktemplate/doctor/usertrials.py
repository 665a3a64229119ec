"""What `doctor` tries for a normal user: what `create` and `start` would do, with the user's own rights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mktemplate.doctor import trials
from mktemplate.doctor.trials import Outcome, Trial
from mktemplate.making import workshop
from provisioner import removal
from provisioner.sandbox import Root
from runtime import idmap, usergroup, usernet
from runtime.errors import HostError

_RESTRICTED = Path(
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
)  # Ubuntu 23.10 and later


def subordinate_ids(path: str) -> Outcome:
    """Look for the user's ranges, and for what maps them."""
    del path
    try:
        found = idmap.of_user()
    except HostError as error:
        detail = f"{error.subject}: {error.detail}; only --single-id works"
        return Outcome(ok=False, detail=detail, mend=error.hints[0])
    inside = found.uids[1]
    return Outcome(
        ok=True, detail=f"{idmap.user()}: {inside.outside}:{inside.count}, newuidmap, newgidmap"
    )


def other_namespaces(path: str) -> Outcome:
    """Make one of each other namespace, in a user namespace."""
    outcome = trials.other_namespaces(path)
    if not outcome.ok and _RESTRICTED.exists() and _RESTRICTED.read_text().strip() == "1":
        mend = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        return Outcome(ok=False, detail=f"AppArmor forbids it: {outcome.detail}", mend=mend)
    return outcome


def overlay(path: str) -> Outcome:
    """Make an overlay on PATH's file system as the root of a user namespace, as a container's root is made."""
    place = path
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    sandbox = workshop.sandbox()
    with tempfile.TemporaryDirectory(prefix=".mktemplate-doctor-", dir=place) as made:
        folder = Path(made)
        for name in ("lower", "upper", "work"):
            (folder / name).mkdir()
        root = Root(upper=folder / "upper", lowers=(folder / "lower",), work=folder / "work")
        try:
            answer = sandbox.call(root, lambda: b"%d" % os.getuid())
        finally:
            sandbox.call(Root(upper=folder), _emptied)
    return Outcome(ok=answer == b"0", detail=f"works below {place}")


def _emptied() -> bytes:
    removal.empty()
    return b""


def network(path: str) -> Outcome:
    """Look for what carries a user's network, and for the device that it needs."""
    del path
    try:
        carrier = usernet.check()
    except HostError as error:
        return Outcome(ok=False, detail=f"{error.subject}: {error.detail}", mend=error.hints[0])
    return Outcome(ok=True, detail=f"can be opened, {carrier} carries a user's network")


def limits(path: str) -> Outcome:
    """Look for the user's systemd manager, which gives control groups."""
    del path
    why = usergroup.lacking()
    return Outcome(
        ok=not why,
        detail=why or "memory, pids, cpu through your systemd manager",
        mend="".join(usergroup.hints()[:1]),
    )


_OWN: dict[str, Callable[[str], Outcome]] = {
    "other namespaces": other_namespaces,
    "subordinate ids": subordinate_ids,
    "overlay of id-mapped layers": overlay,
    "/dev/net/tun": network,
    "cgroups": limits,
}
_ROOTS = {"root", "newuidmap, newgidmap", "nftables", "bridge and veth", "forwarding"}

TRIALS = tuple(
    Trial(
        name=trial.name, act=_OWN.get(trial.name, trial.act), mend=trial.mend, needed=trial.needed
    )
    for trial in trials.TRIALS
    if trial.name not in _ROOTS
)
