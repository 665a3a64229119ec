"""What every engine of a benchmark is given: a small root, once owned as it is inside and once by the ids outside."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime import bundle, capabilities, idmap, seccomp, seccomp_profile
from runtime.bundle import Bundle, Record
from runtime.container import Container
from runtime.kernel import mount as m
from runtime.kernel import namespace as ns
from valuetypes import dataclass

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPT = str(CHECKOUT / "scripts/mktemplate")
COMMAND = "/bin/true"
WAITS = "/bin/sleep"
PROFILE = "service"
MASKED = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/acpi",
    "/proc/scsi",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What every contestant is given."""

    folder: Path
    root: Path  # owned as it is inside
    shifted: Path  # the same, owned by the ids that root and the others have outside
    first_id: int
    syscalls: tuple[str, ...]
    bpf: Path


@contextmanager
def prepared() -> Iterator[Place]:
    """Make the root, twice, in a mount namespace of our own; remove all at the end."""
    ns.unshare(ns.CLONE_NEWNS)
    m.mount_setattr(m.AT_FDCWD, "/", m.AT_RECURSIVE, m.mount_attributes(0, 0, m.MS_PRIVATE))
    if Path("/sys/fs/cgroup/unified").is_dir():  # crun and podman refuse a hybrid host
        m.umount2("/sys/fs/cgroup/unified", m.MNT_DETACH)
    folder = Path(tempfile.mkdtemp(prefix="mktemplate-bench-"))
    folder.chmod(0o755)
    try:
        allocated = idmap.allocate(folder, "bench")
        root, shifted = folder / "root", folder / "shifted"
        fill(root)
        shutil.copytree(root, shifted, symlinks=True)
        for path in (shifted, *shifted.rglob("*")):
            os.lchown(path, allocated.first, allocated.first)
        text = seccomp_profile.default_profile(PROFILE)
        bpf = folder / "bpf"
        bpf.write_bytes(seccomp.compile_profile(text, PROFILE))
        words = tuple(line for line in text.split("\n") if line.isidentifier())
        yield Place(
            folder=folder,
            root=root,
            shifted=shifted,
            first_id=allocated.first,
            syscalls=words,
            bpf=bpf,
        )
    finally:
        shutil.rmtree(folder)


def fill(root: Path) -> None:
    """Put this host's /bin/true, its libraries and empty folders into `root`."""
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=bench\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    found = subprocess.run(["ldd", COMMAND], check=True, capture_output=True, text=True).stdout
    files = [word for word in found.split() if word.startswith("/")]
    for file in (COMMAND, WAITS, *files):
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def made(place: Place, name: str, kind: str, command: str = COMMAND) -> Container:
    """Return a container that starts `command` upon an overlay of the root, or upon a copy of it."""
    directory = place.folder / name
    for part in ("upper", "work"):
        (directory / part).mkdir(parents=True)
    upper = directory / "upper"
    rootfs = f"overlay:{place.root}:{upper}" if kind == "overlay" else f"dir:{place.root}"
    (directory / "config").write_text(config(place, rootfs, command))
    record = Record(
        name=name, template="", distro="", release="", arch=platform.machine(), created=""
    )
    bundle.write(Bundle(path=directory, record=record))
    return Container(place.folder, name)


def config(place: Place, rootfs: str, command: str = COMMAND) -> str:
    """Return a container's configuration with all that a service gets."""
    kept = capabilities.SERVICE
    dropped = " ".join(name for name in capabilities.NAMES if name not in kept)
    masks = [
        f"lxc.mount.entry = /dev/null {path[1:]} none bind,ro,optional 0 0"
        if Path(path).is_file()
        else f"lxc.mount.entry = tmpfs {path[1:]} tmpfs ro,nosuid,nodev,noexec,size=4k,optional 0 0"
        for path in MASKED
    ]
    lines = [
        "lxc.uts.name = bench",
        f"lxc.init.cmd = {command}",
        "lxc.signal.halt = SIGTERM",
        "lxc.no_new_privs = 1",
        f"lxc.cap.drop = {dropped}",
        f"lxc.idmap = u 0 {place.first_id} 65536",
        f"lxc.idmap = g 0 {place.first_id} 65536",
        "lxc.net.0.type = empty",
        "lxc.autodev = 1",
        "lxc.pty.max = 64",
        "lxc.console.path = none",
        "lxc.mount.auto = proc:mixed sys:ro",
        "lxc.mount.entry = tmpfs dev/shm tmpfs nosuid,nodev,mode=1777,size=64m,create=dir 0 0",
        "lxc.mount.entry = mqueue dev/mqueue mqueue nosuid,nodev,noexec,create=dir,optional 0 0",
        "lxc.mount.entry = tmpfs run tmpfs nosuid,nodev,mode=0755,size=64m,create=dir 0 0",
        *masks,
        f"lxc.rootfs.path = {rootfs}",
        "lxc.rootfs.options = idmap=container",
        f"lxc.seccomp.profile = {place.folder / 'profile'}",
    ]
    profile = place.folder / "profile"
    if not profile.exists():  # written anew it would make every start program stale
        profile.write_text(seccomp_profile.default_profile(PROFILE))
    return "\n".join(lines) + "\n"


def oci_config(place: Place, command: tuple[str, ...] = (COMMAND,)) -> dict[str, object]:
    """Return config.json: the same isolation, as far as OCI can say it."""
    kept = [f"CAP_{name.upper()}" for name in sorted(capabilities.SERVICE)]
    ids = [{"containerID": 0, "hostID": place.first_id, "size": 65536}]
    tmpfs = ["nosuid", "nodev", "size=65536k"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {name: kept for name in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": str(place.shifted), "readonly": False},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": [
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            },
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": tmpfs},
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid"],
            },
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": tmpfs},
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "ro"],
            },
        ],
        "linux": {
            "namespaces": [
                {"type": name}
                for name in ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
            ],
            "uidMappings": ids,
            "gidMappings": ids,
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": list(place.syscalls), "action": "SCMP_ACT_ALLOW"}],
            },
        },
    }
