"""The command as a normal user types it: a user of a private /etc, whom newuidmap believes, with a tun device."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.system.command import CHECKOUT, Mkt
from tests.system.service import ENDED, GRACE

pytestmark = [pytest.mark.system, pytest.mark.root]

USER = 54321
FILES = {
    "passwd": "mktuser:x:{0}:{0}::{1}/home:/bin/sh\n",
    "group": "mktuser:x:{0}:\n",
    "subuid": "mktuser:{2}:65536\n",
    "subgid": "mktuser:{2}:65536\n",
}
# What lies in a closed home of root's, as a Python may, is shown to the user in a mount namespace that ends with it.
BECOME = """
place=$1 closed=$2 wanted=$3; shift 3
for file in passwd group subuid subgid; do mount --bind "$place/$file" "/etc/$file"; done
if [ -n "$closed" ]; then
    mkdir -p "$place/kept"; mount --bind "$wanted" "$place/kept"
    mount -t tmpfs -o mode=755 none "$closed"; mkdir -p "$wanted"; mount --bind "$place/kept" "$wanted"
fi
[ ! -e "$place/tun" ] || mount --bind "$place/tun" /dev/net/tun
exec setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=-all "$@"
"""


def free_ids() -> int:
    """Return the first of subordinate ids that nobody on this machine has."""
    taken = [2_000_000]
    for file in ("/etc/subuid", "/etc/subgid"):
        rows = Path(file).read_text().split() if Path(file).exists() else []
        taken += [int(first) + int(count) for _, first, count in (row.split(":") for row in rows)]
    return max(taken)


class UserMkt:
    """`mktemplate` as the user, run as a process of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "home/.local/share/mktemplate"

    def __call__(self, *argv: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command and return how it ended; nothing is checked."""
        base = Path(sys.base_prefix)
        closed = next((p for p in reversed(base.parents) if not p.stat().st_mode & 0o001), "")
        environment = {
            "HOME": str(self.place / "home"),
            "XDG_RUNTIME_DIR": str(self.place / "run"),
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(self.place / "code"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }
        return subprocess.run(
            [
                *("unshare", "-m", "--propagation", "private", "sh", "-ec", BECOME, "sh"),
                *(str(self.place), str(closed), str(base), sys.executable, "-P", "-m", "mktemplate"),
                *argv,
            ],
            env=environment, cwd="/", text=True, capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip

    def ok(self, *argv: str) -> str:
        """Run the command, which must succeed; return its stdout."""
        done = self(*argv)
        assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def user() -> Iterator[UserMkt]:
    """A normal user with subordinate ids, a runtime directory and a tun device that it may open."""
    missing = [name for name in ("newuidmap", "pasta", "setpriv") if not shutil.which(name)]
    if missing:
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    place = Path(tempfile.mkdtemp(prefix="mkt-user-", dir="/var/tmp"))
    place.chmod(0o755)
    for name, line in FILES.items():
        own = Path("/etc", name)
        before = own.read_text() if own.exists() else ""
        (place / name).write_text(before + line.format(USER, place, free_ids()))
    for name in ("home", "run"):
        (place / name).mkdir(0o700)
        os.chown(place / name, USER, USER)
    (place / "code").mkdir()
    for package in ("mktemplate", "provisioner", "runtime", "templates", "fstabs"):
        shutil.copytree(
            CHECKOUT / package,
            place / "code" / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copytree(CHECKOUT / "tests" / "templates", place / "templates")
    if Path("/dev/net/tun").exists():
        os.mknod(place / "tun", 0o020666, os.makedev(10, 200))
        (place / "tun").chmod(0o666)
    found = UserMkt(place)
    yield found
    for name in [line.split()[0] for line in found("list").stdout.split("\n")[1:] if line]:
        found("destroy", "--force", name)
    shutil.rmtree(place, ignore_errors=True)


def contents(path: Path) -> dict[str, str]:
    """Return the content digest of each layer below `path`."""
    return {
        meta.parent.name: re.findall(r'"content": "([0-9a-f]{64})"', meta.read_text())[0]
        for meta in (path / ".store/layers").glob("*/meta.json")
    }


def test_a_users_layers_are_what_roots_are(user: UserMkt, mkt: Mkt) -> None:
    user.ok("create", "base", "--no-sync", "--distro", "debian")
    mkt.ok("create", "base", "--no-sync", "--distro", "debian")
    users, roots = contents(user.path), contents(mkt.path)

    assert len(users) == 2
    assert users.items() <= roots.items()


def test_a_user_is_served_by_sshd_and_logs_in(user: UserMkt) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user.ok("up", "sshd", "--no-sync", "--distro", "debian", "--publish", f"{port}:22")
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as reached:
            banner = reached.recv(4)

        assert banner == b"SSH-"
        assert user.ok("ssh", "sshd", "--", "id -u").strip() == "0"
        assert user.ok("exec", "sshd", "--", "cat", "/etc/hostname").strip() == "sshd"
    finally:
        user.ok("stop", "sshd")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "port", "path", "sees"),
    [("nginx", 80, "/", b"nginx, from mktemplate")],
    ids=["nginx"],
)
def test_a_users_service_answers_and_ends_in_time(
    user: UserMkt, template: str, port: int, path: str, sees: bytes
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        here = probe.getsockname()[1]
    try:
        user.ok("up", template, "--no-sync", "--distro", "debian", "--publish", f"{here}:{port}")
        with urlopen(f"http://127.0.0.1:{here}{path}", timeout=10) as answer:
            seen = answer.read()
        user.ok("stop", "--timeout", str(GRACE), template)
        ended = json.loads(user.ok("info", template, "--json"))["exit_status"]
    finally:
        user("destroy", "--force", template)

    assert sees in seen
    assert ended in ENDED


def test_a_users_flat_container_has_the_owners_of_the_layers(user: UserMkt) -> None:
    user.ok(
        "create", "base", "plain", "--flat", "--no-sync", "--distro", "debian", "--network", "none"
    )
    root = user.path / "plain/rootfs"

    assert (root / "etc").stat().st_uid == USER
    assert (root / "usr/bin").stat().st_uid == USER
    assert (root / "var/mail").stat().st_gid == free_ids() + 8 - 1
    user.ok("start", "plain")
    assert user.ok("exec", "plain", "--", "stat", "-c", "%U:%G", "/var/mail").strip() == "root:mail"
    user.ok("destroy", "--force", "plain")


def test_a_users_container_is_upgraded_and_rolled_back(user: UserMkt) -> None:
    place = user.place / "templates/own"
    place.mkdir(parents=True)
    tree = '{% extends "_distro/" ~ distro.name ~ ".tree.j2" %}\n{% block service %}\n'
    texts = {
        "template.toml": 'summary = "own"\ndistros = ["debian"]\ncommand = []\n',
        "config.j2": '{% extends "_distro/" ~ distro.name ~ ".config.j2" %}\n',
        "tree.j2": f"{tree}f+ /etc/words 0644 root root - old\n{{% endblock %}}\n",
    }
    for name, text in texts.items():
        (place / name).write_text(text)
    user.ok("up", "own", "--no-sync", "--distro", "debian", "--template-path", str(place.parent))
    machine = user.ok("exec", "own", "--", "cat", "/etc/machine-id")
    (place / "tree.j2").write_text(texts["tree.j2"].replace(" - old", " - new"))

    user.ok("upgrade", "own", "--offline")
    new = user.ok("exec", "own", "--", "cat", "/etc/words", "/etc/machine-id")
    user.ok("rollback", "own")
    old = user.ok("exec", "own", "--", "cat", "/etc/words", "/etc/machine-id")

    assert (new, old) == (f"new{machine}", f"old{machine}")
    user.ok("destroy", "--force", "own")


def test_run_leaves_nothing_and_has_the_commands_status(user: UserMkt) -> None:
    done = user("run", "base", "--", "sh", "-c", "id -u; exit 3")

    assert (done.stdout, done.returncode) == ("0\n", 3), done.stderr
    assert not list(user.path.glob("run-*"))


@pytest.mark.parametrize(
    ("words", "status", "error", "hint"),
    [
        (("--memory", "64M"), 6, "E_CGROUP", ""),
        (("--publish", "80"), 6, "E_KERNEL_FEATURE", "ip_unprivileged_port_start=80"),
        (("--network", "bridge,internal"), 6, "E_KERNEL_FEATURE", "--network bridge"),
    ],
    ids=["a limit without a manager", "a low port", "a bridge of root's"],
)
def test_what_a_user_cannot_have_here_is_said(
    words: tuple[str, ...], status: int, error: str, hint: str, user: UserMkt
) -> None:
    if error == "E_CGROUP" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("this host has pure cgroup v2")
    user.ok("create", "base", "no", "--no-sync", "--distro", "debian", *words)
    done = user("start", "no")
    user.ok("destroy", "no")

    assert done.returncode == status
    assert f"error[{error}]" in done.stderr
    assert hint in done.stderr


def test_prune_frees_what_subordinate_ids_own(user: UserMkt) -> None:
    for name in [line.split()[0] for line in user.ok("list").split("\n")[1:] if line]:
        user.ok("destroy", "--force", name)

    user.ok("prune")

    for folder in ("layers", "staging", "trash", "quarantine"):
        assert not list((user.path / ".store" / folder).iterdir())


def test_a_users_volume_belongs_to_its_user_inside_and_goes_with_the_container(
    user: UserMkt,
) -> None:
    templates = ("--template-path", str(user.place / "templates"))
    try:
        said = user("up", "keeper", "--no-sync", "--distro", "debian", *templates)
        assert said.returncode == 0, said.stderr
        script = "stat -c %U /srv/data /srv/data/hello /srv/data/digest; cat /srv/data/hello"
        seen = user.ok("exec", "keeper", "--", "sh", "-c", script).split()
        made = user.ok("exec", "keeper", "--", "cat", "/var/lib/mktemplate/made/password")
        log = user.ok("logs", "keeper")
        user.ok("stop", "keeper")
        user.ok("copy", "keeper", "other")
        user.ok("start", "other")
        copied = user.ok("exec", "other", "--", "cat", "/srv/data/hello")
    finally:
        for name in ("keeper", "other"):
            user("destroy", "--force", name)

    assert seen == ["keeper", "root", "keeper", "hello"]
    assert (log, copied) == ("keeper\n", "hello\n")
    assert "password: mktemplate exec keeper -- cat" in said.stderr
    assert len(made.strip()) == 24
    assert not (user.path / "keeper").exists()
