"""The command as a normal user types it: a user of a private /etc, whom newuidmap believes, with a tun device."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.system.command import CHECKOUT, Mkt, free_port
from tests.system.service import ENDED, GRACE
from tests.system.user import USER, UserMkt, free_ids

pytestmark = [pytest.mark.system, pytest.mark.root]


def contents(mkt: Mkt, name: str) -> dict[str, str]:
    """Return the content digest of each layer of a container."""
    found = {}
    for layer in mkt.json("info", name)["layers"]:
        meta = mkt.path / ".store/layers" / layer / "meta.json"
        found[layer] = re.findall(r'"content": "([0-9a-f]{64})"', meta.read_text())[0]
    return found


def test_a_users_layers_are_what_roots_are(user: UserMkt, mkt: Mkt) -> None:
    user.ok("create", "base", "--no-sync", "--distro", "debian")
    mkt.ok("create", "base", "--no-sync", "--distro", "debian")
    users, roots = contents(user, "base"), contents(mkt, "base")

    assert len(users) == 2
    assert users == roots


def test_a_user_is_served_by_sshd_and_logs_in(user: UserMkt) -> None:
    port = free_port()
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


CURL = ("curl", "-sSv", "--max-time", "10")
CLIENTS = {  # template → port inside, how its client asks at {port}, and what that must see
    "nginx": (80, (*CURL, "http://127.0.0.1:{port}/"), "nginx, from mktemplate"),
    "caddy": (80, (*CURL, "http://127.0.0.1:{port}/"), "Caddy, from mktemplate"),
    "prometheus": (9090, (*CURL, "http://127.0.0.1:{port}/-/ready"), "Server is Ready."),
    "node-exporter": (9100, (*CURL, "http://127.0.0.1:{port}/metrics"), "node_uname_info"),
    "rsync": (873, ("rsync", "rsync://127.0.0.1:{port}/"), "data"),
    "samba": (445, ("smbclient", "-N", "-p", "{port}", "//127.0.0.1/share"), "NT_STATUS_ACCESS_DENIED"),
    "postfix": (25, (*CURL, "smtp://127.0.0.1:{port}/"), "220 postfix.localdomain ESMTP"),
    "git": (22, ("ssh-keyscan", "-p", "{port}", "127.0.0.1"), "ssh-ed25519 AAAA"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("template", CLIENTS)
def test_a_users_service_answers_its_client_and_ends_in_time(user: UserMkt, template: str) -> None:
    inside, asks, sees = CLIENTS[template]
    if shutil.which(asks[0]) is None:
        lacking(asks[0])
    port = free_port()
    try:
        user.ok("up", template, "--no-sync", "--distro", "debian", "--publish", f"{port}:{inside}")
        words = [word.replace("{port}", str(port)) for word in asks]
        seen = subprocess.run(words, text=True, capture_output=True, timeout=30)
        user.ok("stop", "--timeout", str(GRACE), template)
        ended = user.json("info", template)["exit_status"]
    finally:
        user("destroy", "--force", template)

    assert sees in seen.stdout + seen.stderr
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


def test_the_attacks_on_a_launch_reach_nothing_of_a_users_host(user: UserMkt) -> None:
    code = user.place / "code"
    shutil.copytree(
        CHECKOUT / "tests", code / "tests", ignore=shutil.ignore_patterns("__pycache__", "golden")
    )
    shutil.copy(CHECKOUT / "pyproject.toml", code)
    folder = user.place / "home/attacks"
    done = user.module(
        *("pytest", "-q", "-m", "attack", "--rootless", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("--rootdir", str(code), "-c", str(code / "pyproject.toml"), "--basetemp", str(folder)),
        str(code / "tests/kernel/test_attacks.py"),
    )

    last = done.stdout.strip().rpartition("\n")[2]
    passed, skipped = (re.search(rf"(\d+) {word}", last) for word in ("passed", "skipped"))
    assert done.returncode == 0, done.stdout
    assert passed is not None
    assert int(passed[1]) >= 50
    assert skipped is not None
    assert skipped[1] == "3"  # T-03, T-43, T-44: what only root can do, or has
