"""Builds as root without CAP_SYS_ADMIN, which is what CI runners give: a plain chroot, no namespace, no mount."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.sandbox import Root
from tests.system.command import CHECKOUT, Mkt

pytestmark = [pytest.mark.system, pytest.mark.root]
GIVEN = (  # Docker's fourteen
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,"
    "sys_chroot,mknod,audit_write,setfcap"
)


def poorly(mkt: Mkt, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command with no more than Docker's capabilities."""
    if not shutil.which("setpriv"):
        pytest.skip("this machine lacks setpriv")
    few = "-all," + ",".join(f"+{name}" for name in GIVEN.split(","))
    return subprocess.run(
        ["setpriv", "--bounding-set", few, "--inh-caps", few,
         sys.executable, "-P", "-m", "mktemplate", "--path", str(mkt.path), *argv],
        env=mkt.environment, cwd="/", text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def cold() -> Iterator[Mkt]:
    """An empty PATH where devices can be opened, which is not so everywhere below /tmp."""
    with tempfile.TemporaryDirectory(prefix="mkt-", dir="/var/tmp") as place:
        mkt = Mkt(Path(place, "path"))
        yield mkt
        mkt.sweep()


def test_where_no_device_opens_it_says_so(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mktemplate.making.chroot import ChrootSandbox;"
        "from provisioner.sandbox import Root;"
        "ChrootSandbox().run(Root(upper=Path(sys.argv[1])), ['/x'], environment={}, timeout=9)"
    )
    mount = 'mount -t tmpfs -o nodev none "$1"; shift; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", tmp_path, sys.executable, "-P", "-c", program, tmp_path],
        capture_output=True, text=True, cwd=CHECKOUT, env={"PYTHONPATH": str(CHECKOUT)} | os.environ, check=False,
    )  # fmt: skip

    assert f"HostError: E_KERNEL_FEATURE: {tmp_path}: is mounted nodev" in done.stderr


def test_its_base_layer_is_the_one_of_the_sandbox(mkt: Mkt, cold: Mkt) -> None:
    done = poorly(cold, "create", "base", "--no-sync", "--distro", "debian")
    mkt.ok("create", "base", "--no-sync", "--distro", "debian")
    theirs, ours = (
        {json.loads(file.read_text())["content"] for file in path.glob(".store/layers/*/meta.json")}
        for path in (cold.path, mkt.path)
    )

    assert done.returncode == 0, done.stderr
    assert "warning: degraded: sandbox: a plain chroot" in done.stderr
    assert len(theirs) == 2
    assert theirs <= ours
    assert any("chroot" in word for word in cold.json("info", "base")["degraded"])

    refused = poorly(cold, "start", "base")

    assert (refused.returncode, "error[E_USERNS_DISABLED]" in refused.stderr) == (6, True)


def test_what_differs_from_the_layers_is_written_as_an_overlay_would(tmp_path: Path) -> None:
    from mktemplate.making.chroot import ChrootSandbox

    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for folder in (lower / "etc", lower / "gone/below", lower / "again", upper, work):
        folder.mkdir(parents=True)
    for name in ("etc/kept", "etc/changed", "etc/removed", "gone/file", "again/file"):
        (lower / name).write_text("before")
    sandbox = ChrootSandbox()
    root = Root(upper=upper, lowers=(lower,), work=work)

    def change() -> bytes:
        etc, again = Path("/etc"), Path("/again")
        (etc / "changed").write_text("after")
        (etc / "removed").unlink()
        (etc / "new").symlink_to("kept")
        for path in (Path("/gone/file"), again / "file"):
            path.unlink()
        for path in (Path("/gone/below"), Path("/gone"), again):
            path.rmdir()
        again.mkdir()
        return b"done"

    answer = sandbox.call(root, change)
    found = {str(path.relative_to(upper)) for path in upper.rglob("*")}

    assert answer == b"done"
    assert found == {"etc", "etc/changed", "etc/removed", "etc/new", "gone", "again"}
    assert (upper / "etc/changed").read_text() == "after"
    assert all((upper / name).is_char_device() for name in ("etc/removed", "gone"))
    assert sandbox.call(root, lambda: Path("/etc/kept").read_bytes()) == b"before"
