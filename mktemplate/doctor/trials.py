"""What `doctor` tries, as a table: each row does the thing itself, harmlessly, in a place of its own."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from provisioner import distro as distros
from provisioner.keys import has_keyring
from runtime import cgroup, firewall, idmap, limits
from runtime.kernel import namespace
from runtime.kernel import nftables as kernel
from runtime.kernel.netlink import Netlink
from runtime.sandbox import KernelSandbox
from valuetypes import dataclass

_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}  # linux/netfilter.h, NFPROTO_*
_LIMITS = (("memory.max", "1G"), ("pids.max", "100"), ("cpu.max", "50000 100000"))
_KINDS = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended; `mend` replaces the trial's own where it is better known."""

    ok: bool
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One thing that a host can do or not; `needed` for containers as root."""

    name: str
    act: Callable[[str], Outcome]
    mend: str
    needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Root:
    upper: Path
    lowers: tuple[Path, ...] = ()
    work: Path | None = None


def _in_child(act: Callable[[], None]) -> int:
    """Return the errno of `act` in a child of its own, 0 where it went well."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            signal.alarm(10)
            act()
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _unshare(flags: int) -> Outcome:
    number = _in_child(lambda: namespace.unshare(flags))
    return Outcome(ok=number == 0, detail="works" if number == 0 else os.strerror(abs(number)))


def root(path: str) -> Outcome:
    """Say who this is: root has its own trials."""
    del path
    return Outcome(ok=os.geteuid() == 0, detail=f"running as uid {os.geteuid()}")


def user_namespaces(path: str) -> Outcome:
    """Make a user namespace."""
    del path
    return _unshare(namespace.CLONE_NEWUSER)


def other_namespaces(path: str) -> Outcome:
    """Make one of each other namespace."""
    del path
    kinds = namespace.CLONE_NEWNS | namespace.CLONE_NEWPID | namespace.CLONE_NEWNET
    kinds |= namespace.CLONE_NEWIPC | namespace.CLONE_NEWUTS | namespace.CLONE_NEWCGROUP
    if os.geteuid() != 0:
        kinds |= namespace.CLONE_NEWUSER
    return _unshare(kinds)


def overlay(path: str) -> Outcome:
    """Make an overlay of id-mapped layers on PATH's file system, as a container's root is made."""
    place = path
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    with tempfile.TemporaryDirectory(prefix=".mktemplate-doctor-", dir=place) as made:
        folder = Path(made)
        for name in ("lower", "upper", "work"):
            (folder / name).mkdir()
        sandbox = KernelSandbox()
        trial = _Root(upper=folder / "upper", lowers=(folder / "lower",), work=folder / "work")
        answer = sandbox.call(trial, lambda: b"%d" % os.getuid())
    return Outcome(ok=answer == b"0", detail=f"works below {place}")


def cgroups(path: str) -> Outcome:
    """Make a group in each hierarchy that limits need, and remove it."""
    del path
    group = cgroup.Cgroup.make(f"doctor-{os.getpid()}", limits.limits(_LIMITS))
    found = {kind for each in group.groups for kind in each.controllers}
    group.remove()
    missing = [kind for kind in _KINDS if kind not in found]
    detail = f"without {', '.join(missing)}" if missing else f"{', '.join(_KINDS)} work"
    return Outcome(ok=not missing, detail=detail)


def subordinate_ids(path: str) -> Outcome:
    """Look for the caller's ranges in subuid(5) and subgid(5)."""
    del path
    owner = {0: "root"}.get(os.geteuid(), str(os.geteuid()))
    lines = [idmap.read(Path(f"/etc/sub{kind}id")) for kind in "ug"]
    own = [[line for line in file if line.owner in (owner, str(os.geteuid()))] for file in lines]
    if all(own):
        return Outcome(ok=True, detail=f"{owner}: {own[0][0].first}:{own[0][0].count}")
    if os.geteuid() == 0:
        usual = idmap.usual_range()
        text = f"root:{usual.first}:{usual.count}"
        return Outcome(
            ok=True, detail=f"none yet: `create` will add {text} to /etc/subuid and /etc/subgid"
        )
    return Outcome(ok=False, detail=f"{owner} has no range")


def id_helpers(path: str) -> Outcome:
    """Look for newuidmap and newgidmap, which liblxc and rootless containers use."""
    del path
    missing = [
        name for name in ("newuidmap", "newgidmap") if not os.access(f"/usr/bin/{name}", os.X_OK)
    ]
    return Outcome(ok=not missing, detail=f"missing: {', '.join(missing)}" if missing else "found")


def nftables(path: str) -> Outcome:
    """Make the rules of our bridges in a network namespace of our own."""
    del path

    def act() -> None:
        kernel.commit(
            (*firewall.tables(), *firewall.guard("lo", "02:00:00:00:00:01", ("10.0.0.2",)))
        )

    return _in_network(act)


def bridge_and_veth(path: str) -> Outcome:
    """Make a bridge in a network namespace of our own."""
    del path

    def act() -> None:
        with Netlink() as netlink:
            netlink.add_bridge("mkt-doctor", "02:00:00:00:00:01")

    return _in_network(act)


def _in_network(act: Callable[[], None]) -> Outcome:
    if os.geteuid() != 0:
        return Outcome(ok=False, detail="only tried as root", mend="run doctor as root")

    def inside() -> None:
        namespace.unshare(namespace.CLONE_NEWNET)
        act()

    number = _in_child(inside)
    return Outcome(ok=number == 0, detail="works" if number == 0 else os.strerror(abs(number)))


def tun(path: str) -> Outcome:
    """Open /dev/net/tun, which networking of normal users needs."""
    del path
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        detail = "absent" if error.errno == errno.ENOENT else f"{error.strerror}"
        return Outcome(ok=False, detail=detail)
    return Outcome(ok=True, detail="can be opened")


def keyrings(path: str) -> Outcome:
    """Look for keys to verify each distribution with."""
    del path
    have = [row.name for row in distros.DISTROS.values() if has_keyring(row)]
    return Outcome(ok="debian" in have, detail=f"for {', '.join(have)}")


def ssh_client(path: str) -> Outcome:
    """Look for the ssh client."""
    del path
    there = os.access("/usr/bin/ssh", os.X_OK)
    return Outcome(ok=there, detail="found" if there else "not found")


def forward_policy(path: str) -> Outcome:
    """Look for another firewall that drops what is forwarded: it beats our accept."""
    del path
    if os.geteuid() != 0:
        return Outcome(ok=True, detail="not looked at")
    try:
        drops = [
            f"table {_FAMILIES[chain.family]} {chain.table}"
            for chain in kernel.chains()
            if chain.family in _FAMILIES and chain.hook == kernel.FORWARD and chain.drops
        ]
    except OSError as error:
        return Outcome(ok=True, detail=f"cannot be looked at: {error.strerror}")
    if drops:
        mend = "nft insert rule ip filter FORWARD iifname mkt0 accept (and oifname)"
        return Outcome(ok=False, detail=f"{', '.join(drops)} drops forwarded packets", mend=mend)
    return Outcome(ok=True, detail="no other table drops forwarded packets")


TRIALS = (
    Trial(name="root", act=root, mend="sudo mktemplate …"),
    Trial(
        name="user namespaces",
        act=user_namespaces,
        mend="sysctl -w user.max_user_namespaces=65536 kernel.unprivileged_userns_clone=1",
    ),
    Trial(name="other namespaces", act=other_namespaces, mend="a kernel with namespaces"),
    Trial(
        name="overlay of id-mapped layers",
        act=overlay,
        mend="Linux 5.19 or newer, and ext4, xfs, btrfs or tmpfs below --path",
    ),
    Trial(
        name="cgroups",
        act=cgroups,
        mend="mount -t cgroup2 none /sys/fs/cgroup",
        needed=False,
    ),
    Trial(
        name="subordinate ids",
        act=subordinate_ids,
        mend="usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
    ),
    Trial(name="newuidmap, newgidmap", act=id_helpers, mend="apt install uidmap", needed=False),
    Trial(name="nftables", act=nftables, mend="modprobe nf_tables"),
    Trial(name="bridge and veth", act=bridge_and_veth, mend="modprobe bridge veth"),
    Trial(name="/dev/net/tun", act=tun, mend="chmod 666 /dev/net/tun", needed=False),
    Trial(name="keyrings", act=keyrings, mend="apt install debian-archive-keyring"),
    Trial(name="ssh client", act=ssh_client, mend="apt install openssh-client", needed=False),
    Trial(
        name="forwarding",
        act=forward_policy,
        mend="let the other firewall accept what comes from and goes to mkt0",
        needed=False,
    ),
)
