"""The catalogue's databases and brokers, each asked by the client that people use, before and after a restart."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.system.command import Mkt
from tests.system.service import Client, Service, cases, prove

pytestmark = pytest.mark.system


def psql(client: Client, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    where = f"postgresql://postgres:{client.secret()}@{{ip}}/"
    return client.run("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", where, *words)


def mariadb(client: Client, command: str) -> str:
    """Run the client of whichever release; one of MariaDB 11 otherwise insists on TLS, which MariaDB 10 has not."""
    words = ("mariadb", "--no-defaults", "--disable-ssl-verify-server-cert")
    return client.run(*words, "-h", "{ip}", "-u", "root", f"-p{client.secret()}", "-BNe", command)


def redis(program: str) -> Callable[..., str]:
    def run(client: Client, *words: str) -> str:
        account = ("-h", "{ip}", "--no-auth-warning", "-a", client.secret())
        return client.run(program, *account, *words)

    return run


def memcached(client: Client, *lines: str) -> str:
    """Send lines of memcached's text protocol and return what it answers."""
    with socket.create_connection((client.ip, 11211), timeout=10) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "quit")).encode())
        with connection.makefile("r", encoding="ascii", newline="\r\n") as answers:
            return answers.read()


def mosquitto(client: Client, program: str, *words: str) -> str:
    account = ("-h", "{ip}", "-u", "mktemplate", "-P", client.secret())
    return client.run(program, *account, "-t", "stay", *words)


SERVICES = [
    Service(
        template="postgresql",
        leave=lambda client: psql(
            client, "create table kept (word text)", "insert into kept values ('here')"
        ),
        look=lambda client: psql(client, "table kept"),
        sees="here\n",
        fast=True,
    ),
    Service(
        template="mariadb",
        options=("--set", "database=app"),
        leave=lambda client: mariadb(
            client, "create table app.kept (word text); insert into app.kept values ('here')"
        ),
        look=lambda client: mariadb(client, "select word from app.kept"),
        sees="here\n",
    ),
    Service(
        template="redis",
        leave=lambda client: redis("redis-cli")(client, "set", "kept", "here"),
        look=lambda client: redis("redis-cli")(client, "get", "kept"),
        sees="here\n",
        fast=True,
    ),
    Service(
        template="valkey",
        leave=lambda client: redis("valkey-cli")(client, "set", "kept", "here"),
        look=lambda client: redis("valkey-cli")(client, "get", "kept"),
        sees="here\n",
    ),
    Service(  # a cache: what it forgets with its end, it is told again
        template="memcached",
        look=lambda client: memcached(client, "set kept 0 0 4", "here", "get kept"),
        sees="STORED\r\nVALUE kept 0 4\r\nhere\r\nEND\r\n",
    ),
    Service(
        template="mosquitto",
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
