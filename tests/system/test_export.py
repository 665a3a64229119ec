"""`export`: what other engines make of it. Each container answers its own client there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import engines
from tests.system.cell import Cell, until
from tests.system.command import Mkt, granted

pytestmark = pytest.mark.system
Needs = Callable[..., None]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key pair's private half."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True
    )
    return tmp_path / "key"


@pytest.fixture
def sshd(mkt: Mkt, key: Path) -> str:
    """A container that was never started."""
    mkt.ok("create", "sshd", "Web.1", "--distro", "debian", "--ssh-key", f"{key}.pub")
    return "Web.1"


def answers(apart: Cell, key: Path, address: str, port: int = 22) -> bool:
    return apart.run(*ssh(key, address, port), "true", timeout=30).returncode == 0


def ssh(key: Path, address: str, port: int = 22) -> tuple[str | Path, ...]:
    return (
        "ssh", "-p", str(port), "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
        "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", f"root@{address}",
    )  # fmt: skip


def listing(root: Path) -> str:
    """Return all that a tree consists of, but for times."""
    return subprocess.run(
        listed(root), shell=True, capture_output=True, text=True, check=True
    ).stdout


def listed(root: Path) -> str:
    """Return the shell's words for it."""
    told = "find . -printf '%p %y %m %U:%G %n %l\\n'; find . -type f -print0 | xargs -0 sha256sum"
    return f"cd {root}; ({told}) | sort"


def test_what_only_ran_is_exported_as_what_never_did(mkt: Mkt, sshd: str, tmp_path: Path) -> None:
    kinds = {"oci": "oci.tar", "tar": "tar.zst"}
    for name, suffix in kinds.items():
        mkt.ok("export", sshd, "-o", str(tmp_path / f"one.{suffix}"), "--format", name)
    mkt.ok("start", sshd)
    mkt.ok("wait", sshd, "--state", "READY")
    for name, suffix in kinds.items():
        mkt.ok("export", sshd, "-o", str(tmp_path / f"two.{suffix}"), "--format", name)

    for suffix in kinds.values():
        assert (tmp_path / f"one.{suffix}").read_bytes() == (
            tmp_path / f"two.{suffix}"
        ).read_bytes()
    assert mkt.json("info", sshd)["state"] == "RUNNING"


@pytest.mark.slow
def test_umoci_unpacks_the_layers_to_what_the_flat_tar_holds(
    mkt: Mkt, sshd: str, tmp_path: Path, needs: Needs
) -> None:
    needs("umoci", "skopeo")
    mkt.ok("start", sshd)
    changes = "rm /etc/issue; rm -r /usr/share/doc; mkdir /usr/share/doc; echo new >/srv/file"
    mkt.ok("exec", sshd, "--", "sh", "-c", changes)
    mkt.ok("stop", sshd)

    mkt.ok("export", sshd, "-o", f"{tmp_path}/layout/", "--format", "oci")
    mkt.ok("export", sshd, "-o", f"{tmp_path}/flat.tar.gz")

    layout = f"{tmp_path}/layout"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:web.1", tmp_path / "one"], check=True)
    (tmp_path / "two").mkdir()
    flat = ["tar", "--numeric-owner", "--xattrs", "-xf", tmp_path / "flat.tar.gz"]
    subprocess.run([*flat, "-C", tmp_path / "two"], check=True)
    assert listing(tmp_path / "one/rootfs") == listing(tmp_path / "two")
    copied = [
        "skopeo",
        "--insecure-policy",
        "copy",
        f"oci:{layout}:web.1",
        f"dir:{tmp_path}/copied",
    ]
    subprocess.run(copied, check=True, capture_output=True)
    told = subprocess.run(
        ["skopeo", "inspect", f"oci:{layout}:web.1"], check=True, capture_output=True
    ).stdout
    assert len(json.loads(told)["Layers"]) == 4


def test_podman_runs_the_oci_archive_and_it_answers(
    mkt: Mkt, sshd: str, key: Path, tmp_path: Path, apart: Cell, needs: Needs
) -> None:
    needs("podman")
    mkt.ok("export", sshd, "-o", f"{tmp_path}/web.tar", "--format", "oci")
    podman = engines.podman(tmp_path)

    apart.ok(*podman, "load", "-q", "-i", tmp_path / "web.tar")
    apart.ok(*podman, "run", "-d", "--name", "web", "--network", "host", "localhost/web.1")
    try:
        logs = (*podman, "logs", "web")
        until(lambda: answers(apart, key, "127.0.0.1"), 20, lambda: repr(apart.run(*logs)))

        told = apart.ok(
            *ssh(key, "127.0.0.1"), "cat /etc/machine-id; tr '\\0' ' ' </proc/1/cmdline"
        )
        assert len(told.splitlines()[0]) == 32
        assert "sshd" in told.splitlines()[1]
        apart.ok(*podman, "stop", "-t", "8", "web")
        assert apart.ok(*podman, "wait", "web").strip() == "0"
    finally:
        apart.run(*podman, "rm", "-f", "-t", "0", "web")
        apart.run("umount", tmp_path / "images/overlay")


def test_strict_refuses_what_the_format_does_not_carry(mkt: Mkt, sshd: str, tmp_path: Path) -> None:
    done = mkt("export", sshd, "-o", f"{tmp_path}/web.tar", "--strict")

    assert done.returncode == 2
    assert "error[E_PARAM]: Web.1 --strict: tar does not carry its readiness check" in done.stderr
    assert not (tmp_path / "web.tar").exists()


def test_an_image_carries_the_user_of_the_first_process(
    mkt: Mkt, tmp_path: Path, needs: Needs
) -> None:
    needs("skopeo")
    mkt.ok("create", "busybox", "web", "--distro", "debian", "--no-sync")
    for key in ("uid", "gid"):
        mkt.ok("config", "web", "set", f"lxc.init.{key}", "33")
    folder = f"{tmp_path}/web"
    for kind, to, image in (
        ("oci", f"{folder}/", f"oci:{folder}:web"),
        ("docker", f"{folder}.tar", f"docker-archive:{folder}.tar"),
    ):
        told = mkt("export", "web", "-o", to, "--format", kind)

        assert "the user of PID 1" not in told.stderr
        shown = subprocess.run(
            ["skopeo", "inspect", "--config", image], check=True, capture_output=True
        )
        assert json.loads(shown.stdout)["config"]["User"] == "33:33"


@pytest.mark.slow
def test_docker_runs_the_docker_archive_and_finds_it_healthy(
    mkt: Mkt, sshd: str, key: Path, short: Path, apart: Cell, needs: Needs
) -> None:
    needs("dockerd", "docker")
    mkt.ok("export", sshd, "-o", f"{short}/web.tar", "--format", "docker", "--strict")

    with engines.docker(apart, short) as docker:
        assert "web.1:latest" in apart.ok(*docker, "load", "-i", short / "web.tar")
        apart.ok(*docker, "run", "-d", "--name", "web", "--network", "host", "web.1")
        until(lambda: answers(apart, key, "127.0.0.1"), 20)

        health = (*docker, "inspect", "-f", "{{.State.Health.Status}}", "web")
        until(lambda: apart.ok(*health).strip() == "healthy", 40)
        apart.ok(*docker, "stop", "-t", "8", "web")
        assert apart.ok(*docker, "inspect", "-f", "{{.State.ExitCode}}", "web").strip() == "0"
        apart.ok(*docker, "rm", "web")


@pytest.fixture
def beside_lxc(key: Path) -> Iterator[None]:
    """Nothing of ours in the folder that LXC's configs name, before and after."""
    place = Path("/var/lib/lxc/Web.1")
    yield
    shutil.rmtree(place, ignore_errors=True)


def test_lxc_starts_what_was_unpacked(
    mkt: Mkt, sshd: str, key: Path, short: Path, apart: Cell, beside_lxc: None
) -> None:
    mkt.ok("export", sshd, "-o", f"{short}/web.tar", "--format", "lxc")
    apart.ok("tar", "-C", "/var/lib/lxc", "--numeric-owner", "--xattrs", "-xf", short / "web.tar")
    config = Path(
        "/var/lib/lxc/Web.1/config"
    )  # with ids that root may lend, as docs/shipping.md says
    config.write_text(config.read_text().replace(" 100000 ", f" {granted('root', 100000)} "))

    with apart.running("lxc-start", "-n", sshd, "-F", log=short / "log"):
        address = ("lxc-info", "-n", sshd, "-iH")
        until(lambda: apart.ok(*address).strip(), 20, (short / "log").read_text)
        until(lambda: answers(apart, key, apart.ok(*address).strip()), 20)

        told = apart.ok(*ssh(key, apart.ok(*address).strip()), "hostname; cat /proc/self/uid_map")
        assert told.startswith("Web.1\n")
        assert told.split()[2] != "0"
        apart.ok("lxc-stop", "-n", sshd, "-t", "8")


@pytest.mark.slow
def test_incus_launches_the_image_and_stops_it_at_once(
    mkt: Mkt, sshd: str, key: Path, short: Path, apart: Cell, needs: Needs
) -> None:
    needs("incus", "/usr/libexec/incus/incusd")
    mkt.ok("export", sshd, "-o", f"{short}/web.tar.gz", "--format", "incus")
    (short / "incus").mkdir()
    link = "ip link add br0 type bridge; ip link set br0 up; ip address add 198.51.100.1/24 dev br0"
    apart.ok("sh", "-ec", link)
    pool = 'printf \'%s\' \'{"storage_pools": [{"name": "default", "driver": "dir"}]}\''
    root = "incus profile device add default root disk path=/ pool=default"

    def incus(*argv: str) -> str:
        return apart.ok("incus", *argv, INCUS_DIR=f"{short}/incus")

    daemon = ("env", f"INCUS_DIR={short}/incus", "/usr/libexec/incus/incusd", "--group", "root")
    with apart.running(*daemon, log=short / "log"):
        ready = {"INCUS_DIR": f"{short}/incus"}
        until(lambda: apart.run("incus", "query", "/1.0", **ready).returncode == 0, 20)
        apart.ok("sh", "-ec", f"{pool} | incus admin init --preseed; {root}", **ready)
        incus("image", "import", "-q", f"{short}/web.tar.gz", "--alias", "web")
        incus("init", "-q", "web", "c1")
        nic = ("nic", "nictype=routed", "parent=br0", "ipv4.address=198.51.100.7")
        incus("config", "device", "add", "c1", "eth0", *nic)
        incus("start", "c1")
        until(lambda: answers(apart, key, "198.51.100.7"), 20)

        assert (
            apart.ok(*ssh(key, "198.51.100.7"), "hostname; cat /etc/hostname").split() == ["c1"] * 2
        )
        begun = time.monotonic()
        incus("stop", "c1", "--timeout", "20")
        assert time.monotonic() - begun < 10
        incus("delete", "c1")
        incus("admin", "shutdown")


@pytest.mark.slow
def test_nspawn_starts_what_was_unpacked(
    mkt: Mkt, key: Path, short: Path, apart: Cell, needs: Needs
) -> None:
    needs("systemd-nspawn")
    port = 2222  # in the host's network a user namespace may not listen on those below 1024
    mkt.ok(
        "create",
        "sshd",
        "Web.1",
        "--distro",
        "debian",
        "--ssh-key",
        f"{key}.pub",
        "--set",
        f"port={port}",
    )
    mkt.ok("export", "Web.1", "-o", f"{short}/web.tar", "--format", "nspawn")
    apart.ok("tar", "-C", short, "--numeric-owner", "--xattrs", "-xf", short / "web.tar")
    nspawn = ("systemd-nspawn", "-D", short / "Web.1", "-U", "--register=no", "--keep-unit")

    with apart.running(*nspawn, log=short / "log") as running:
        until(lambda: answers(apart, key, "127.0.0.1", port), 20, (short / "log").read_text)
        told = apart.ok(*ssh(key, "127.0.0.1", port), "hostname; cat /proc/self/uid_map")
        running.terminate()

        assert running.wait(timeout=10) == 0
    assert told.startswith("Web.1\n")
    assert told.split()[2] != "0"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_a_read_only_file_system_holds_what_the_tar_holds(
    mkt: Mkt, sshd: str, tmp_path: Path, apart: Cell, needs: Needs, kind: str
) -> None:
    needs({"squashfs": "mksquashfs", "erofs": "mkfs.erofs"}[kind])
    image, seen, tree = (tmp_path / name for name in ("image", "seen", "tree"))
    mkt.ok("export", sshd, "-o", str(image), "--format", kind)
    mkt.ok("export", sshd, "-o", f"{image}.again", "--format", kind)
    mkt.ok("export", sshd, "-o", f"{tree}.tar")
    seen.mkdir()
    tree.mkdir()
    apart.ok("tar", "-C", tree, "--numeric-owner", "--xattrs", "-xf", f"{tree}.tar")

    apart.ok("mount", "-t", kind, "-o", "loop,ro", image, seen)

    assert apart.ok("sh", "-c", listed(seen)) == apart.ok("sh", "-c", listed(tree))
    assert image.read_bytes() == Path(f"{image}.again").read_bytes()


PVE = """\
lxc.arch = amd64
lxc.include = /usr/share/lxc/config/debian.common.conf
lxc.include = /usr/share/lxc/config/debian.userns.conf
lxc.apparmor.profile = unconfined
lxc.monitor.unshare = 1
lxc.idmap = u 0 100000 65536
lxc.idmap = g 0 100000 65536
lxc.tty.max = 2
lxc.environment = TERM=linux
lxc.uts.name = web
lxc.rootfs.path = {root}
lxc.net.0.type = veth
lxc.net.0.veth.pair = veth100i0
lxc.net.0.hwaddr = BC:24:11:00:00:01
lxc.net.0.name = eth0
lxc.net.0.link = vmbr0
lxc.net.0.flags = up
lxc.net.0.ipv4.address = 198.51.100.7/24
"""  # as PVE writes it for an unprivileged container; the last line is what its host-managed=1 comes to


def test_a_proxmox_template_has_what_pct_create_expects(
    mkt: Mkt, sshd: str, key: Path, short: Path, apart: Cell
) -> None:
    mkt.ok("export", sshd, "-o", f"{short}/web.tar.zst", "--format", "proxmox")
    root = short / "100" / "rootfs"
    root.mkdir(parents=True)
    first = granted("root", 100000)

    # PVE::LXC::Create: its tar runs as the mapped root and skips what would be devices
    apart.ok("tar", "-C", root, "--numeric-owner", "--xattrs", "--anchored", "--exclude", "./dev/*",
             "-xpf", short / "web.tar.zst")  # fmt: skip
    listed = apart.ok("tar", "-tvf", short / "web.tar.zst")
    assert not [line for line in listed.splitlines() if line[0] in "bcps"]
    assert all(line.split(maxsplit=5)[5].startswith("./") for line in listed.splitlines())
    # PVE::LXC::Setup::Debian: what it reads, and the folders that it writes into
    assert "\nID=debian\n" in (root / "usr/lib/os-release").read_text()
    assert os.readlink(root / "etc/os-release") == "../usr/lib/os-release"
    assert int((root / "etc/debian_version").read_text().split(".")[0]) == 13
    assert not (root / "usr/sbin/init").is_symlink()
    (root / "etc/network/interfaces").write_text("auto eth0\niface eth0 inet manual\n")
    (root / "fastboot").write_text("")

    shift = f"import os\nfor top, folders, names in os.walk('{root}'):\n for name in ['.', *folders, *names]:\n"
    shift += "  path = os.path.join(top, name); s = os.lstat(path)\n"
    shift += f"  if s.st_uid < {first}: os.lchown(path, s.st_uid + {first}, s.st_gid + {first})\n"
    shift += "  os.path.islink(path) or os.chmod(path, s.st_mode & 0o7777)\n"
    apart.ok("python3", "-c", shift)
    (short / "100/config").write_text(PVE.format(root=root).replace(" 100000 ", f" {first} "))
    apart.ok(
        "sh",
        "-ec",
        "ip link add vmbr0 type bridge; ip link set vmbr0 up; ip addr add 198.51.100.1/24 dev vmbr0",
    )

    with apart.running("lxc-start", "-P", short, "-n", "100", "-F", log=short / "log"):
        until(lambda: answers(apart, key, "198.51.100.7"), 30, (short / "log").read_text)
        begun = time.monotonic()
        apart.ok("lxc-stop", "-P", short, "-n", "100", "-t", "20")

        assert time.monotonic() - begun < 10
