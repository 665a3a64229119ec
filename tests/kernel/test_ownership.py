"""Volumes whose host owner is a user inside, and devices whose group is one inside: for both performers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime import enter
from runtime.container import Container
from runtime.errors import ConfigError
from tests.kernel.conftest import Make

pytestmark = pytest.mark.root


@pytest.fixture(params=["start program", "python"])
def lines(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """Return what has a container started by the start program, or by Python: an include has its say there."""
    if request.param == "python":
        (tmp_path / "more").write_text("")
        return (f"lxc.include = {tmp_path}/more",)
    return ()


def run(container: Container, command: str, user: str = "") -> tuple[int, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os._exit(enter.execute(container, ("/bin/sh", "-c", command), user=user))
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


@pytest.mark.parametrize("userns", [True, False], ids=["userns", "no userns"])
def test_the_host_owner_of_a_volume_is_a_user_inside(
    make: Make, tmp_path: Path, lines: tuple[str, ...], *, userns: bool
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "old").write_text("old\n")
    (data / "others").write_text("others\n")
    (data / "others").chmod(0o600)
    for path in (data, data / "old"):
        os.chown(path, 4321, 4322)
    entry = f"lxc.mount.entry = {data} mnt none bind,nosuid,nodev,idmap=owner:4321:4322:33:33 0 0"
    container = make("own", "/bin/sleep 60", *lines, entry, userns=userns)

    container.start()

    assert run(container, "stat -c %u:%g /mnt/old", "web") == (0, "33:33\n")
    assert run(container, "echo new > /mnt/new && cat /mnt/old", "web") == (0, "old\n")
    assert run(container, "cat /mnt/others", "web")[0] == 1
    about = (data / "new").stat()
    assert (about.st_uid, about.st_gid) == (4321, 4322)
    assert (data / "others").stat().st_uid == 0
    container.stop(0)
    left = subprocess.run(["pgrep", "-P", "1", "-f", str(data)], capture_output=True, check=False)
    assert left.stdout == b""


def test_a_device_has_a_group_of_the_containers_and_the_hosts_keeps_its_own(
    make: Make, lines: tuple[str, ...]
) -> None:
    before = os.stat("/dev/full")
    container = make(
        "dev", "/bin/sleep 60", *lines,
        "lxc.mount.entry = /dev/full dev/given none bind,create=file,idmap=device:44 0 0",
        "lxc.cgroup2.devices.deny = a", "lxc.cgroup2.devices.allow = c *:* rwm",
    )  # fmt: skip

    container.start()

    assert run(container, "stat -c '%F %U:%g %a' /dev/given") == (
        0, "character special file root:44 660\n",
    )  # fmt: skip
    assert run(container, "head -c 3 /dev/given | ls >/dev/null && echo read", "web")[1] == "read\n"
    assert os.stat("/dev/full") == before


def test_an_owner_that_is_no_id_of_the_container_is_refused(make: Make, tmp_path: Path) -> None:
    entry = f"lxc.mount.entry = {tmp_path} mnt none bind,idmap=owner:0:0:99999:0 0 0"
    container = make("bad", "/bin/sleep 60", entry)

    with pytest.raises(ConfigError, match="E_IDMAP"):
        container.start()
