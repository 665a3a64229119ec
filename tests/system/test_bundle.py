"""`export --format bundle`: one file that starts itself, as root and as a normal user, with no mktemplate in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.cell import Cell, until
from tests.system.command import Mkt
from tests.system.user import FILES, USER, free_ids

pytestmark = pytest.mark.system
Needs = Callable[..., None]
# As a user whom newuidmap believes, with a tun device.
BECOME = """
for file in passwd group subuid subgid; do mount --bind "$1/$file" "/etc/$file"; done
mount --bind "$1/tun" /dev/net/tun
shift; exec setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=-all "$@"
"""


@pytest.fixture
def bundle(mkt: Mkt, short: Path) -> Path:
    """A web server in one file."""
    mkt.ok("create", "busybox", "Web.1", "--distro", "debian", "--no-sync")
    mkt.ok("export", "Web.1", "-o", f"{short}/web", "--format", "bundle")
    return short / "web"


@pytest.fixture
def alone(apart: Cell, needs: Needs) -> Cell:
    """Namespaces in which there is no pasta."""
    needs("nsenter", "flock", "ip", "curl")
    apart.run("sh", "-c", "mount --bind /dev/null $(command -v pasta)")
    return apart


def status(init: Path) -> dict[str, str]:
    """Return what the kernel says of the process whose number the file holds."""
    text = Path("/proc", init.read_text().strip(), "status").read_text()
    return dict(line.split(":\t", 1) for line in text.rstrip("\n").split("\n"))


def answered(alone: Cell, log: Path) -> None:
    """Return when the web server that tells its address in `log` has answered."""
    until(lambda: "reached from this machine alone" in log.read_text(), 30, log.read_text)
    address = log.read_text().split(", reached")[0].split()[-1]
    until(lambda: alone.run("curl", "-s", f"http://{address}/").returncode == 0, 20)


def test_it_is_a_tar_and_the_same_bytes_each_time(mkt: Mkt, bundle: Path) -> None:
    mkt.ok("export", "Web.1", "-o", f"{bundle}.again", "--format", "bundle")

    listed = subprocess.run(["tar", "-tf", bundle], capture_output=True, text=True, check=True)

    names = ["Web.1/", "Web.1/start", "Web.1/ids", "Web.1/rootfs.tar.gz"]
    assert listed.stdout.split("\n")[:-1] == names
    assert bundle.read_bytes() == Path(f"{bundle}.again").read_bytes()


@pytest.mark.slow
def test_a_service_that_opens_dev_stdout_writes_to_a_file_of_roots(
    mkt: Mkt, short: Path, alone: Cell
) -> None:
    mkt.ok("create", "nginx", "web", "--distro", "debian", "--no-sync")
    mkt.ok("export", "web", "-o", f"{short}/web", "--format", "bundle")
    log = short / "log"

    with alone.running(short / "web", "--dir", short / "at", log=log):
        answered(alone, log)
        until(lambda: "GET / HTTP" in log.read_text(), 20, log.read_text)


def test_root_starts_it_with_a_full_id_map_a_filter_and_a_network(
    bundle: Path, short: Path, alone: Cell
) -> None:
    home = short / "at" / "Web.1"
    (short / "at").mkdir(mode=0o700)  # the container's root may not pass it
    log = short / "log"

    with alone.running(bundle, "--dir", short / "at", log=log) as running:
        until(lambda: "reached from this machine alone" in log.read_text(), 20, log.read_text)
        address = log.read_text().split(" reached")[0].split()[-1].strip(",")
        until(lambda: alone.run("curl", "-s", f"http://{address}/").returncode == 0, 20)
        found = status(home / "init")
        ids = Path("/proc", (home / "init").read_text().strip(), "uid_map").read_text().split()
        again = alone.run(bundle, "--dir", short / "at")
        running.terminate()

        assert running.wait(timeout=10) in (0, 143)
    assert (ids[0], ids[2]) == ("0", "65536")
    assert int(ids[1]) >= 100_000
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "1"
    assert int(found["CapEff"], 16) >> 21 & 1 == 0  # CAP_SYS_ADMIN
    assert again.returncode == 125
    assert "it runs already" in again.stderr


def test_what_it_wrote_is_there_the_next_time(bundle: Path, short: Path, alone: Cell) -> None:
    logs = [short / "first", short / "second"]
    for log in logs:
        with alone.running(bundle, "--dir", short / "at", log=log) as running:
            answered(alone, log)
            marker = short / "at/Web.1/tree/rootfs/srv/www/kept"
            assert marker.exists() == (log == logs[1])
            marker.write_text("kept")
            running.terminate()
            running.wait(timeout=10)

    assert "unpacking" in logs[0].read_text()
    assert "unpacking" not in logs[1].read_text()


def test_a_user_starts_it_and_publishes_a_port(bundle: Path, short: Path, needs: Needs) -> None:
    needs("pasta", "newuidmap", "setpriv", "curl")
    for name, line in FILES.items():
        own = Path("/etc", name)
        before = own.read_text() if own.exists() else ""
        (short / name).write_text(before + line.format(USER, short, free_ids()))
    os.mknod(short / "tun", 0o020666, os.makedev(10, 200))
    (short / "tun").chmod(0o666)
    (short / "home").mkdir()
    for name in ("home", "web"):
        os.chown(short / name, USER, USER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-ec", BECOME, "sh", str(short)]
    address = f"http://127.0.0.1:{port}/"

    running = subprocess.Popen(
        [*argv, str(bundle), "-p", f"{port}:80"], env={"HOME": f"{short}/home"}, cwd="/",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: subprocess.run(["curl", "-s", address], check=False).returncode == 0, 20)
        init = short / "home/.local/share/mktemplate-bundle/Web.1/init"
        found = status(init)
        mapped = Path("/proc", init.read_text().strip(), "uid_map").read_text().split()
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=15) in (0, 143)

    assert mapped[:3] == ["0", str(USER), "1"]
    assert mapped[3::2] == ["1", "65535"]
    assert found["Seccomp"] == "2"
    assert found["Uid"].split() == [str(USER)] * 4


def test_a_user_to_whom_nobody_lends_ids_is_told_so(bundle: Path, short: Path) -> None:
    os.chown(bundle, USER, USER)
    (short / "home").mkdir()
    os.chown(short / "home", USER, USER)
    become = ("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups")

    done = subprocess.run(
        [*become, "--inh-caps=-all", bundle], env={"HOME": f"{short}/home"}, cwd="/",
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.returncode == 125
    assert "/etc/subuid lends no ids" in done.stderr
    assert "usermod --add-subuids" in done.stderr
