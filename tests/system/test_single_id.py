"""A normal user without subordinate ids: root inside is the user, and there is nobody else (`--single-id`)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import user as users
from tests.system.command import Mkt, free_port
from tests.system.test_busybox import body
from tests.system.test_failures import refused
from tests.system.user import GROUP, USER, UserMkt

pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture(scope="module")
def alone() -> Iterator[UserMkt]:
    with users.made(alone=True) as found:
        yield found


@pytest.mark.parametrize("words", [("busybox",), ("base", "--distro", "debian")], ids=" ".join)
def test_without_ids_create_and_doctor_say_what_mends_it(
    alone: UserMkt, words: tuple[str, ...]
) -> None:
    done = alone("create", *words)

    refused(done, "E_SUBUID_MISSING", 6)
    assert "hint: as root: usermod --add-subuids " in done.stderr
    assert "hint: or --single-id: " in done.stderr
    told = alone("doctor").stdout
    assert "only --single-id works\n     mend: as root: usermod --add-subuids " in told


@pytest.mark.parametrize("template", ["base", "nginx"])
def test_what_has_packages_with_other_owners_is_refused_before_it_is_fetched(
    alone: UserMkt, template: str
) -> None:
    done = alone("create", template, "--single-id", "--distro", "debian", "--offline")

    refused(done, "E_SUBUID_MISSING", 6)
    assert f"{template}: its packages have files of other users" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--no-userns",), "leave --no-userns out"), ((), "a normal user's: root has ids enough")],
    ids=["no user namespace", "root"],
)
def test_what_it_cannot_mean_is_refused(
    mkt: Mkt, alone: UserMkt, words: tuple[str, ...], said: str
) -> None:
    done = (alone if words else mkt)("create", "busybox", "--single-id", *words)

    refused(done, "E_USAGE", 2)
    assert said in done.stderr


def test_busybox_serves_and_all_its_users_are_the_caller(alone: UserMkt) -> None:
    port = free_port()
    made = alone.json("up", "busybox", "--single-id", "--publish", f"{port}:80")
    try:
        [_, told] = alone.ok(
            *("exec", "busybox", "--", "sh", "-c"),
            "cat /proc/self/setgroups; stat -c '%u %g' /proc/3 /etc/shadow; id; id www-data",
        ).split("deny\n")
        owner = os.stat(f"/proc/{made['pid']}").st_uid
        groups = (
            Path(f"/proc/{made['pid']}/status").read_text().split("Groups:\t")[1].split("\n")[0]
        )

        assert "It works" in body("127.0.0.1", port)
        assert told.split("\n")[:2] == ["0 0", "0 0"]
        assert "uid=0(root) gid=0(root) groups=65534" in told
        assert owner == USER
        assert groups.split() == [str(GROUP)]  # nobody gives up a group: it may be one that denies
        assert alone.json("info", "busybox")["degraded"] == ["single id"]
        alone.ok("stop", "busybox")
        alone.ok("start", "busybox")
        alone.ok("wait", "busybox", "--state", "READY")
        alone.ok("stop", "busybox")
        alone.ok("copy", "busybox", "two")
        alone.ok("start", "two")
        assert alone.ok("exec", "two", "--", "id", "-u") == "0\n"
    finally:
        for name in ("busybox", "two"):
            alone("destroy", "--force", name)
    assert alone.names() == []


def test_a_group_that_denies_goes_on_denying(alone: UserMkt) -> None:
    """A file may be closed to a group and open to all others: who could leave it would read it (T-41)."""
    folder = alone.place / "share"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    (folder / "closed").write_text("secret\n")
    os.chown(folder / "closed", 0, GROUP)
    (folder / "closed").chmod(0o604)

    done = alone(
        *("run", "busybox", "--single-id", "--volume", f"{folder}:/srv/share:ro", "--"),
        *(
            "sh",
            "-c",
            "setpriv --help >/dev/null 2>&1; su -s /bin/sh www-data -c 'cat /srv/share/closed'",
        ),
    )

    assert "Permission denied" in done.stderr
    assert "secret" not in done.stdout


def test_an_application_of_ones_own_and_what_it_keeps(alone: UserMkt) -> None:
    port = free_port()
    alone.ok("up", "static-app", "--single-id", "--publish", f"{port}:8080")
    try:
        assert "static-app" in body("127.0.0.1", port)
        data = alone.path / "static-app/volumes/data"
        assert data.stat().st_uid == USER
    finally:
        alone("destroy", "--force", "static-app")


def test_sshd_of_this_host_lets_the_caller_in(alone: UserMkt) -> None:
    alone.ok("up", "sshd", "--single-id", "--share-host")
    try:
        assert alone.ok("ssh", "sshd", "--", "id -un; hostname") == "root\nsshd\n"
    finally:
        alone("destroy", "--force", "sshd")


def test_an_unpacked_tree_of_lxcs_is_adopted(alone: UserMkt) -> None:
    """What lies in a folder of the user's own is a root for it, as liblxc takes it with a map of one id."""
    folder = alone.place / "home/lxc/tree"
    root = folder / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    offset = 1000 if os.path.exists("/proc/self/ns/time") else 0  # hours
    (folder / "config").write_text(
        f"lxc.rootfs.path = dir:{root}\n"
        "lxc.init.cmd = /bin/busybox sh -c '/bin/busybox cat /proc/uptime >/mine'\n"
        f"lxc.time.offset.boot = {offset}h\n"
        "lxc.console.path = none\nlxc.mount.auto = proc sys\nlxc.net.0.type = empty\n"
        f"lxc.idmap = u 0 {USER} 1\nlxc.idmap = g 0 {USER} 1\n"
    )
    for each in (folder.parent, *folder.parent.rglob("*")):
        os.chown(each, USER, USER)
    alone.ok("adopt", str(folder))
    try:
        done = alone("start", "--foreground", "tree")

        assert done.returncode == 0, done.stderr
        assert (root / "mine").stat().st_uid == USER
        assert float((root / "mine").read_text().split()[0]) > 3600 * offset
    finally:
        alone("destroy", "tree")


@pytest.mark.parametrize("owner", [0, 33])
def test_an_image_is_imported_where_all_its_files_are_roots(alone: UserMkt, owner: int) -> None:
    file = alone.place / f"home/root{owner}.tar"
    with tarfile.open(file, "w") as archive:
        for name in ("bin", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        archive.add("/usr/bin/busybox", "bin/busybox", filter=roots)
        text = tarfile.TarInfo("etc/hello")
        text.size, text.uid, text.gid = 3, owner, owner
        archive.addfile(text, io.BytesIO(b"hi\n"))
    file.chmod(0o644)
    try:
        done = alone("import", str(file), "img", "--single-id", "--network", "none")
        if owner:
            refused(done, "E_SUBUID_MISSING", 6)
            assert "etc/hello: belongs to user 33 and group 33" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
            said = alone.ok("run", "img", "--", "/bin/busybox", "cat", "/etc/hello")
            assert said == "hi\n"
    finally:
        alone("destroy", "--force", "img")


def roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member
