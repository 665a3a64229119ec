"""The catalogue's databases and brokers, each asked by the client that people use, before and after a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lacking
from tests.system.canary import CANARY, holders
from tests.system.cell import cell, until
from tests.system.command import Mkt, free_port
from tests.system.service import ENDED, GRACE, Client, Service, cases, prove
from tests.system.user import UserMkt

pytestmark = pytest.mark.system
PLACE = ("--distro", "debian", "--release", "trixie")


def psql(client: Client, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    where = f"postgresql://postgres:{client.secret()}@{{ip}}:{{port}}/"
    return client.run("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", where, *words)


def mariadb(client: Client, command: str) -> str:
    """Run the client of whichever release; one of MariaDB 11 otherwise insists on TLS, which MariaDB 10 has not."""
    account = ("-h", "{ip}", "-P", "{port}", "-u", "root", f"-p{client.secret()}")
    words = ("mariadb", "--no-defaults", "--disable-ssl-verify-server-cert")
    return client.run(*words, *account, "-BNe", command)


def redis(program: str) -> Callable[..., str]:
    def run(client: Client, *words: str) -> str:
        account = ("-h", "{ip}", "-p", "{port}", "--no-auth-warning", "-a", client.secret())
        return client.run(program, *account, *words)

    return run


# A client of memcached's text protocol: ADDRESS PORT SECRET LINE…; it says who it is, and tells what is answered.
MEMCACHED = """
import socket, sys
address, port, secret, *lines = sys.argv[1:]
me = f"mktemplate {secret}"
lines = [f"set me 0 0 {len(me)}", me] * bool(secret) + lines
with socket.create_connection((address, int(port)), timeout=10) as connection:
    connection.sendall("".join(f"{line}\\r\\n" for line in lines).encode())
    connection.shutdown(socket.SHUT_WR)
    with connection.makefile("r", encoding="ascii", newline="") as answers:
        said = answers.read()
print(said.replace("\\r\\n", "|"), end="")
sys.exit("CLIENT_ERROR" in said)
"""


def memcached(client: Client, *lines: str) -> str:
    return client.run(
        sys.executable, "-c", MEMCACHED, "{ip}", "{port}", client.secret(), *lines
    ).replace("|", "\n")


def mosquitto(client: Client, program: str, *words: str) -> str:
    account = ("-h", "{ip}", "-p", "{port}", "-u", "mktemplate", "-P", client.secret())
    return client.run(program, *account, "-t", "stay", *words)


SERVICES = [
    Service(
        template="postgresql",
        port=5432,
        leave=lambda client: psql(
            client, "create table kept (word text)", "insert into kept values ('here')"
        ),
        look=lambda client: psql(client, "table kept"),
        sees="here\n",
        fast=True,
    ),
    Service(
        template="mariadb",
        port=3306,
        options=("--set", "database=app"),
        leave=lambda client: mariadb(
            client, "create table app.kept (word text); insert into app.kept values ('here')"
        ),
        look=lambda client: mariadb(client, "select word from app.kept"),
        sees="here\n",
    ),
    Service(
        template="redis",
        port=6379,
        leave=lambda client: redis("redis-cli")(client, "set", "kept", "here"),
        look=lambda client: redis("redis-cli")(client, "get", "kept"),
        sees="here\n",
        fast=True,
    ),
    Service(
        template="valkey",
        port=6379,
        leave=lambda client: redis("valkey-cli")(client, "set", "kept", "here"),
        look=lambda client: redis("valkey-cli")(client, "get", "kept"),
        sees="here\n",
    ),
    Service(  # a cache: what it forgets with its end, it is told again
        template="memcached",
        port=11211,
        look=lambda client: memcached(client, "set kept 0 0 4", "here", "get kept"),
        sees="STORED\nSTORED\nVALUE kept 0 4\nhere\nEND\n",
    ),
    Service(
        template="mosquitto",
        port=1883,
        leave=lambda client: mosquitto(client, "mosquitto_pub", "-r", "-q", "1", "-m", "here"),
        look=lambda client: mosquitto(client, "mosquitto_sub", "-C", "1", "-W", "10"),
        sees="here\n",
        fast=True,
    ),
]


@pytest.mark.parametrize(("service", "release"), cases(SERVICES))
def test_a_service_answers_its_client_keeps_its_data_and_ends_in_time(
    mkt: Mkt, service: Service, release: str
) -> None:
    prove(mkt, service, release)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.id)
def test_a_normal_users_service_does_the_same(user: UserMkt, service: Service) -> None:
    try:
        prove(user, service, "trixie", publish=free_port())
    finally:
        user.sweep()


# How each client says its password, or that it has none; the service and its arguments are the same for all.
ASKS: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "postgresql": lambda secret: ("psql", "-wAtX", "-h", "{ip}", "-U", "postgres", "-c", "select 41 + 1"),
    "mariadb": lambda secret: (
        *("mariadb", "--no-defaults", "-h", "{ip}", "-u", "root", f"-p{secret}" if secret else "--skip-password"),
        *("--disable-ssl-verify-server-cert", "-BNe", "select 41 + 1"),
    ),
    "redis": lambda secret: ("redis-cli", "-e", "-h", "{ip}", *(("-a", secret) if secret else ()), "echo", "42"),
    "memcached": lambda secret: (
        *(sys.executable, "-c", MEMCACHED, "{ip}", "11211", secret),
        *("set n 0 0 2", "42", "get n"),
    ),
    "mosquitto": lambda secret: (
        *("mosquitto_pub", "-h", "{ip}", *(("-u", "mktemplate", "-P", secret) if secret else ())),
        *("-q", "1", "-t", "n", "-m", "42"),
    ),
}  # fmt: skip
DATA = {
    "postgresql": ("/var/lib/postgresql", "postgres"),
    "mariadb": ("/var/lib/mysql", "mysql"),
    "redis": ("/var/lib/redis", "redis"),
    "memcached": ("/var/lib/memcached", "memcache"),
    "mosquitto": ("/var/lib/mosquitto", "mosquitto"),
}
PLAIN = "memcached/volumes/accounts/users"  # below PATH: what memcached compares with is no digest
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ASKS]


def question(template: str, ip: str, secret: str) -> list[str]:
    return [word.replace("{ip}", ip) for word in ASKS[template](secret)]


def ask(template: str, ip: str, secret: str = "") -> bool:
    """Whether the service does what its client asks with `secret`."""
    words = question(template, ip, secret)
    given = {"PGPASSWORD": secret} if secret else {}
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, env=os.environ | given)
    assert done.returncode or not done.stdout or "42" in done.stdout, done.stdout
    return done.returncode == 0


@pytest.mark.parametrize("template", SLOW)
def test_nothing_answers_over_the_network_without_the_secret_that_was_given(
    mkt: Mkt, template: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{CANARY}\n")

    [ip] = mkt.json("up", template, *PLACE, "--secret", f"password=@{tmp_path}/secret")["ips"]

    assert [ask(template, ip, secret) for secret in (CANARY, "", CANARY[:-1], "mktemplate")] == [
        True, False, False, False
    ]  # fmt: skip


@pytest.mark.parametrize("template", SLOW)
def test_everything_answers_where_anonymous_is_asked_for(mkt: Mkt, template: str) -> None:
    [ip] = mkt.json("up", template, *PLACE, "--set", "anonymous=true")["ips"]

    assert ask(template, ip)


@pytest.mark.parametrize("template", SLOW)
def test_a_new_container_on_old_data_keeps_their_secret_or_gives_them_a_new_one(
    mkt: Mkt, template: str, tmp_path: Path
) -> None:
    path, owner = DATA[template]
    place = mkt.path.parent / f"data-{template}"
    place.mkdir(mode=0o700)
    volume = ("--volume", f"{place}:{path}:owner={owner}")
    answers = []
    try:
        for given, tried in (("one", "one"), ("", "one"), ("two", "two"), ("", "one")):
            secret = ("--secret", "password=env:GIVEN") if given else ()
            mkt.ok("up", template, *PLACE, *volume, *secret, GIVEN=given)
            [ip] = mkt.json("info", template)["ips"]
            answers.append(ask(template, ip, tried))
            mkt.ok("destroy", "--force", template)
    finally:
        shutil.rmtree(place)

    assert answers == [True, True, True, False]


@pytest.mark.slow
def test_a_secret_is_found_in_no_layer_state_file_log_export_or_command_line(
    mkt: Mkt, tmp_path: Path
) -> None:
    """Several services at once; what they keep themselves is a digest, but for memcached."""
    (tmp_path / "secret").write_text(CANARY)
    for template in ASKS:
        done = mkt("up", template, *PLACE, "--secret", f"password=@{tmp_path}/secret")
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
        [ip] = mkt.json("info", template)["ips"]
        assert ask(template, ip, CANARY)

    running = holders(CANARY, str(mkt.path), "/run/mktemplate")
    for template in ASKS:
        mkt.ok("stop", template)
        mkt.ok("export", template, "-o", f"{tmp_path}/{template}.tar")
    (tmp_path / "secret").unlink()

    assert running == f"{mkt.path / PLAIN}\n"
    assert holders(CANARY, str(mkt.path), "/run/mktemplate", str(tmp_path)) == running


@pytest.mark.slow
@pytest.mark.parametrize(
    "service",
    [service for service in SERVICES if service.template in ("postgresql", "mariadb", "redis")],
    ids=lambda service: service.id,
)
def test_data_and_secret_outlive_an_upgrade_its_rollback_and_a_restored_snapshot(
    mkt: Mkt, service: Service, tmp_path: Path
) -> None:
    own = tmp_path / "templates/own"
    own.mkdir(parents=True)
    (own / "template.toml").write_text(f'extends = "{service.template}"\n')
    templates = ("--template-path", str(own.parent))
    told = mkt.json("up", "own", *templates, *PLACE, *service.options)
    client = Client(
        mkt=mkt, name="own", ip=told["ips"][0], port=service.port, secrets=told["secrets"]
    )
    secret = client.secret()
    service.leave(client)
    (own / "tree.j2").write_text(
        f'{{% extends "{service.template}/tree.j2" %}}\n'
        "{% block service %}{{ super() }}\nf /etc/upgraded 0644 root root - yes\n{% endblock %}\n"
    )

    mkt.ok("upgrade", "own", "--offline")
    upgraded = mkt("exec", "own", "--", "cat", "/etc/upgraded").stdout, service.look(client)
    mkt.ok("rollback", "own")
    rolled_back = mkt("exec", "own", "--", "cat", "/etc/upgraded").stdout, service.look(client)
    mkt.ok("stop", "own")
    mkt.ok("snapshot", "own", "create", "kept")
    mkt.ok("copy", "own", "twin")
    mkt.ok("snapshot", "own", "restore", "kept")
    twin = mkt.json("up", "own", "twin")
    mkt.ok("up", "own")

    assert upgraded == ("yes", service.sees)
    assert rolled_back == ("", service.sees)
    assert service.look(client) == service.sees
    assert client.secret() == secret
    copied = Client(
        mkt=mkt, name="twin", ip=twin["ips"][0], port=service.port, secrets=twin["secrets"]
    )
    assert (service.look(copied), copied.secret()) == (service.sees, secret)


@pytest.mark.slow
def test_the_health_check_of_an_image_asks_the_server_and_leaves_no_trace_in_its_log(
    mkt: Mkt, tmp_path: Path
) -> None:
    mkt.ok("up", "postgresql", *PLACE)
    mkt.ok("export", "postgresql", "-o", f"{tmp_path}/image.tar", "--format", "docker")
    with tarfile.open(tmp_path / "image.tar") as image:

        def document(name: str) -> Any:  # noqa: ANN401 - JSON is any
            file = image.extractfile(name)
            assert file
            return json.load(file)

        [about] = document("manifest.json")
        [_, *words] = document(about["Config"])["config"]["Healthcheck"]["Test"]

    assert mkt("exec", "postgresql", "--", *words).returncode == 0
    assert "from client" not in mkt.ok("logs", "postgresql")


@pytest.mark.root
@pytest.mark.parametrize("template", SLOW)
def test_an_image_under_podman_asks_for_the_secret_of_its_environment(
    mkt: Mkt, template: str, tmp_path: Path
) -> None:
    if shutil.which("podman") is None:
        lacking("podman")
    mkt.ok("create", template, *PLACE)
    mkt.ok("export", template, "-o", f"{tmp_path}/image.tar", "--format", "oci")
    podman: tuple[str | Path, ...] = (
        *("podman", "--root", tmp_path / "images", "--runroot", tmp_path / "run"),
        *("--cgroup-manager", "cgroupfs"),
    )
    named = ("--name", "image", "--network", "host", "-e", "MKTEMPLATE_PASSWORD")

    with cell() as apart:

        def answers(secret: str) -> bool:
            words = question(template, "127.0.0.1", secret)
            return apart.run(*words, PGPASSWORD=secret).returncode == 0

        apart.ok(*podman, "load", "-q", "-i", tmp_path / "image.tar", timeout=200)
        try:
            apart.ok(
                *podman, "run", "-d", *named, f"localhost/{template}", MKTEMPLATE_PASSWORD=CANARY
            )
            until(lambda: answers(CANARY), 60)
            assert not answers("")
            apart.ok(*podman, "stop", "-t", str(GRACE), "image")
            assert int(apart.ok(*podman, "wait", "image")) in ENDED
        finally:
            apart.run(*podman, "rm", "-f", "-v", "-t", "0", "image")
            apart.run("umount", tmp_path / "images/overlay")
