"""`lxc-create -t mktemplate`: the real LXC's tools make, start, copy and destroy a container of ours."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import lacking
from tests.system.command import CHECKOUT, Mkt
from tests.system.user import closed

pytestmark = pytest.mark.system
TEMPLATE = CHECKOUT / "scripts/lxc-mktemplate"


class Lxc:
    """`lxc-*` with an LXCPATH of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, tool: str, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"lxc-{tool}", "-P", self.path, "-n", name, *words],
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ok(self, tool: str, name: str, *words: str) -> str:
        done = self(tool, name, *words)
        assert done.returncode == 0, f"{tool} {words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def address(self, name: str) -> str:
        deadline = time.monotonic() + 20
        while not (found := self("info", name, "-iH").stdout.split()):
            assert time.monotonic() < deadline, f"{name} gets no address"
            time.sleep(0.05)
        return found[0]


@pytest.fixture(scope="module")
def lxc(needs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lxc]:
    needs("lxc-create", "lxc-start")
    path = Path("/var/tmp") / f"mkt-{tmp_path_factory.mktemp('lxc').parent.name}-lxc"
    path.mkdir(mode=0o755)
    found = Lxc(path)
    yield found
    for one in (config.parent.name for config in path.glob("*/config")):
        found("stop", one, "-k")
        found("destroy", one)
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


def mapped() -> str:
    """Return a config with ids of root's range and a bridge that has no address."""
    [first] = re.findall("^root:([0-9]+):", Path("/etc/subuid").read_text(), re.MULTILINE)
    start = int(first) + 77 * 65536
    lines = [f"lxc.idmap = {kind} 0 {start} 65536" for kind in "ug"]
    return "\n".join([*lines, "lxc.net.0.type = veth", "lxc.net.0.link = lxcbr0", ""])


def answers(address: str) -> bool:
    deadline = time.monotonic() + 20
    while True:
        try:
            return bool(urlopen(f"http://{address}/", timeout=30).status == 200)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("ids", ["mapped", pytest.param("the host's", marks=pytest.mark.slow)])
def test_lxc_creates_starts_and_destroys_a_service_that_answers(
    lxc: Lxc, tmp_path: Path, ids: str
) -> None:
    if ids == "mapped" and (closed(TEMPLATE) or closed(sys.prefix)):
        lacking("a checkout and an environment that LXC's mapped root may enter")
    config = tmp_path / "config"
    config.write_text(mapped() if ids == "mapped" else "lxc.net.0.type = empty\nlxc.net =\n")

    lxc.ok(
        "create", "web", "-f", str(config), "-t", str(TEMPLATE), "--", "nginx", "--distro=debian"
    )
    lxc.ok("start", "web")

    assert answers(lxc.address("web"))
    inside = lxc.ok("attach", "web", "--", "sh", "-c", "hostname; cat /proc/self/uid_map")
    name, uid_map = inside.split("\n", 1)
    assert name == "web"
    assert (uid_map.split()[1] == "0") == (ids != "mapped")
    owners = {path.stat().st_uid for path in (lxc.path / "web/rootfs").iterdir()}
    assert owners == {int(uid_map.split()[1])}
    assert (lxc.path / "web/fstab").stat().st_uid == 0
    lxc.ok("stop", "web", "-t", "10")
    lxc.ok("destroy", "web")
    assert not (lxc.path / "web").exists()
    assert {path.name for path in lxc.path.iterdir()} == {".mktemplate"}


@pytest.mark.slow
def test_our_command_adopts_what_lxc_created(lxc: Lxc, mkt: Mkt, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("lxc.net.0.type = empty\n")
    lxc.ok(
        "create", "two", "-f", str(config), "-t", str(TEMPLATE), "--", "nginx", "--distro=debian"
    )

    mkt.ok("adopt", str(lxc.path / "two"))
    mkt.ok("start", "two")

    mkt.ok("wait", "two", "--state", "READY", "--timeout", "20")
    assert mkt.json("info", "two")["template"] == "nginx"
    mkt.ok("destroy", "--force", "two")
    assert (lxc.path / "two/rootfs").is_dir()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nosuch"], "error[E_USAGE]"),
        (["nginx", "--flat"], "is decided by lxc-create"),
        (["nginx", "--memory", "much"], "error[E_PARAM]"),
        ([], "with one of our templates after --"),
    ],
)
def test_what_cannot_be_made_is_told_and_leaves_nothing(
    lxc: Lxc, words: list[str], told: str
) -> None:
    done = lxc("create", "bad", "-t", str(TEMPLATE), "--", *words)

    assert done.returncode == 1
    assert told in done.stdout + done.stderr
    assert not (lxc.path / "bad").exists()


@pytest.mark.slow
def test_a_creation_that_was_killed_does_not_hinder_the_next(lxc: Lxc, tmp_path: Path) -> None:
    left = lxc.path / ".mktemplate/0/again"
    (left / "rootfs/etc").mkdir(parents=True)
    config = tmp_path / "config"
    config.write_text("lxc.net.0.type = empty\n")

    lxc.ok(
        "create", "again", "-f", str(config), "-t", str(TEMPLATE), "--", "base", "--distro=debian"
    )

    assert not left.exists()
    assert (lxc.path / "again/rootfs/usr").is_dir()
