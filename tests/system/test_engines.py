"""Exported services in the engines of others: each answers its own client there. (sshd: test_export.)"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.system import engines
from tests.system.cell import Cell, until
from tests.system.command import Mkt, granted

pytestmark = [pytest.mark.system, pytest.mark.slow]
Needs = Callable[..., None]
SLOWEST = 300  # seconds for one step of an engine
PASSWORD = "correct-horse-battery"
SECRET = f"MKTEMPLATE_PASSWORD={PASSWORD}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One container, and how its client asks it; the ports are such as a user namespace may have in any network."""

    template: str
    port: int
    says: str

    @property
    def name(self) -> str:
        """What the container is called: no engine's own place has such a one."""
        return f"mkt-{self.template}"

    def create(self, mkt: Mkt) -> None:
        """Make it."""
        options = ("--distro", "debian", "--set", f"port={self.port}")
        mkt.ok("create", self.template, self.name, *options, timeout=600)

    def answers(
        self, apart: Cell, address: str = "127.0.0.1", told: Callable[[], str] = str
    ) -> None:
        """Wait until its client gets what it wants; else fail with what `told` says."""
        url = f"http://{address}:{self.port}/"
        asked: tuple[str, ...] = ("curl", "-sSi", "-m", "5", url)
        if self.template == "postgresql":
            url = f"postgresql://postgres:{PASSWORD}@{address}:{self.port}/postgres"
            asked = ("psql", url, "-tAc", "select 6 * 7")
        until(lambda: self.says in apart.run(*asked).stdout, 120, told)


SERVICES = (
    Service(template="nginx", port=8080, says="nginx, from mktemplate"),
    Service(template="busybox", port=8081, says="200 OK"),
    Service(template="postgresql", port=5433, says="42\n"),
)


@pytest.fixture(scope="module")
def made(warm: Mkt, needs: Needs) -> Iterator[Mkt]:
    """Containers of all services; none was ever started."""
    needs("curl", "psql")
    for service in SERVICES:
        service.create(warm)
    yield warm
    warm.sweep()


def export(mkt: Mkt, service: Service, file: Path, kind: str) -> Path:
    mkt.ok("export", service.name, "-o", str(file), "--format", kind)
    return file


def run(apart: Cell, engine: engines.Words, name: str, image: str) -> None:
    options = ("-d", "--name", name, "--network", "host", "-e", SECRET)
    apart.ok(*engine, "run", *options, image, timeout=SLOWEST)


def logs(apart: Cell, engine: engines.Words, name: str) -> str:
    done = apart.run(*engine, "logs", name)
    return done.stdout + done.stderr


def address_of(name: str, apart: Cell, log: Path) -> str:
    """Return the address that LXC knows of a container."""
    asked = ("lxc-info", "-n", name, "-iH")
    until(lambda: apart.ok(*asked).strip(), 30, log.read_text)
    return apart.ok(*asked).strip()


def test_podman_runs_them_and_skopeo_and_umoci_find_nothing_wrong(
    made: Mkt, short: Path, apart: Cell, needs: Needs
) -> None:
    needs("podman", "skopeo", "umoci")
    podman = engines.podman(short)
    try:
        for service in SERVICES:
            name = service.name
            file = export(made, service, short / f"{name}.tar", "oci")
            again = export(made, service, short / "again.tar", "oci")
            assert file.read_bytes() == again.read_bytes()
            made.ok("export", name, "-o", f"{short}/{name}/", "--format", "oci")
            told = json.loads(apart.ok("skopeo", "inspect", f"oci-archive:{file}"))
            apart.ok(
                "skopeo",
                "--insecure-policy",
                "copy",
                f"oci-archive:{file}",
                f"dir:{short}/dir-{name}",
                timeout=SLOWEST,
            )
            assert (
                told["Digest"]
                == apart.ok(
                    "skopeo", "manifest-digest", short / f"dir-{name}/manifest.json"
                ).strip()
            )
            apart.ok("umoci", "stat", "--image", f"{short}/{name}:{name}")

            apart.ok(*podman, "load", "-q", "-i", file, timeout=SLOWEST)
            run(apart, podman, name, f"localhost/{name}")
            service.answers(apart, told=partial(logs, apart, podman, name))
            apart.ok(*podman, "stop", "-t", "20", name)
            assert apart.ok(*podman, "wait", name).strip() in ("0", "143")
    finally:
        apart.run(*podman, "rm", "-f", "-t", "0", *(service.name for service in SERVICES))
        apart.run("umount", short / "images/overlay")


def test_docker_runs_them(made: Mkt, short: Path, apart: Cell, needs: Needs) -> None:
    needs("dockerd", "docker")

    with engines.docker(apart, short) as docker:
        for service in SERVICES:
            name = service.name
            apart.ok(
                *docker,
                "load",
                "-i",
                export(made, service, short / f"{name}.tar", "docker"),
                timeout=SLOWEST,
            )
            run(apart, docker, name, name)
            service.answers(apart, told=partial(logs, apart, docker, name))

            apart.ok(*docker, "stop", "-t", "20", name)
            code = apart.ok(*docker, "inspect", "-f", "{{.State.ExitCode}}", name).strip()
            assert code in ("0", "143")
            apart.ok(*docker, "rm", name)


@pytest.fixture
def beside_lxc() -> Iterator[Path]:
    """The folder that LXC's configs name, with nothing of ours before and after."""
    top = Path("/var/lib/lxc")
    yield top
    for service in SERVICES:
        shutil.rmtree(top / service.name, ignore_errors=True)


def test_lxc_starts_them(made: Mkt, short: Path, apart: Cell, beside_lxc: Path) -> None:
    first = granted("root", 100000)
    for service in SERVICES:
        name = service.name
        file = export(made, service, short / f"{name}.tar", "lxc")
        apart.ok(
            "tar", "-C", beside_lxc, "--numeric-owner", "--xattrs", "-xf", file, timeout=SLOWEST
        )
        config = beside_lxc / name / "config"
        text = config.read_text().replace(" 100000 ", f" {first} ")
        config.write_text(f"{text}lxc.environment = {SECRET}\n")

        log = short / f"{name}.log"
        apart.ok("lxc-start", "-n", name, "-o", log, "-l", "INFO")
        try:
            address = address_of(name, apart, log)
            service.answers(apart, address, log.read_text)
            apart.ok("lxc-stop", "-n", name, "-t", "20")
        finally:
            apart.run("lxc-stop", "-n", name, "-k")


def test_incus_launches_them(made: Mkt, short: Path, apart: Cell, needs: Needs) -> None:
    needs("incus", "/usr/libexec/incus/incusd")
    (short / "incus").mkdir()
    home = {"INCUS_DIR": f"{short}/incus"}
    link = "ip link add br0 type bridge; ip link set br0 up; ip address add 198.51.100.1/24 dev br0"
    apart.ok("sh", "-ec", link)
    pool = 'printf \'%s\' \'{"storage_pools": [{"name": "default", "driver": "dir"}]}\''
    root = "incus profile device add default root disk path=/ pool=default"

    def incus(*argv: str) -> str:
        return apart.ok("incus", *argv, timeout=SLOWEST, **home)

    daemon = ("env", f"INCUS_DIR={short}/incus", "/usr/libexec/incus/incusd", "--group", "root")
    with apart.running(*daemon, log=short / "log"):
        until(lambda: apart.run("incus", "query", "/1.0", **home).returncode == 0, 30)
        apart.ok("sh", "-ec", f"{pool} | incus admin init --preseed; {root}", **home)
        for number, service in enumerate(SERVICES, 7):
            name, address = service.name, f"198.51.100.{number}"
            incus(
                "image",
                "import",
                "-q",
                str(export(made, service, short / f"{name}.tar.gz", "incus")),
                "--alias",
                name,
            )
            incus("init", "-q", name, name, "-c", f"environment.{SECRET}")
            nic = ("nic", "nictype=routed", "parent=br0", f"ipv4.address={address}")
            incus("config", "device", "add", name, "eth0", *nic)
            incus("start", name)
            service.answers(
                apart,
                address,
                partial(incus, "info", name, "--show-log"),
            )

            incus("stop", name, "--timeout", "30")
            incus("delete", name)
        incus("admin", "shutdown")


def test_nspawn_starts_them(made: Mkt, short: Path, apart: Cell, needs: Needs) -> None:
    needs("systemd-nspawn")
    for service in SERVICES:
        name, log = service.name, short / f"{service.name}.log"
        file = export(made, service, short / f"{name}.tar", "nspawn")
        apart.ok("tar", "-C", short, "--numeric-owner", "--xattrs", "-xf", file, timeout=SLOWEST)
        nspawn = (
            "systemd-nspawn",
            "-D",
            short / name,
            "-U",
            "--register=no",
            "--keep-unit",
            f"--setenv={SECRET}",
        )

        with apart.running(*nspawn, log=log) as running:
            service.answers(apart, told=log.read_text)
            running.terminate()
            assert running.wait(timeout=30) in (0, 143)


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_they_run_from_a_mounted_file_system(
    made: Mkt, short: Path, apart: Cell, needs: Needs, kind: str
) -> None:
    needs({"squashfs": "mksquashfs", "erofs": "mkfs.erofs"}[kind], "systemd-nspawn")
    for service in SERVICES:
        place, log = short / service.name, short / f"{service.name}.log"
        image = export(made, service, short / f"{service.name}.{kind}", kind)
        for folder in ("image", "upper", "work", "root"):
            (place / folder).mkdir(parents=True)
        with ExitStack() as mounted:
            over = f"lowerdir={place}/image,upperdir={place}/upper,workdir={place}/work"
            apart.ok("mount", "-t", kind, "-o", "loop,ro", image, place / "image")
            mounted.callback(apart.ok, "umount", place / "image")
            apart.ok("mount", "-t", "overlay", "-o", over, "overlay", place / "root")
            mounted.callback(apart.ok, "umount", place / "root")
            init = ("/usr/lib/mktemplate/init",)
            nspawn = (
                "systemd-nspawn",
                "-D",
                place / "root",
                "--register=no",
                "--keep-unit",
                f"--setenv={SECRET}",
                *init,
            )

            with apart.running(*nspawn, log=log) as running:
                service.answers(apart, told=log.read_text)
                running.terminate()
                running.wait(timeout=30)
