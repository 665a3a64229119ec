"""The catalogue's network services, each asked by the client that people really use, before and after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.command import Mkt
from tests.system.service import CURL, Client, Service, asks, cases, prove

pytestmark = pytest.mark.system
DIG = ("dig", "+short", "+tries=2", "+time=3", "@{ip}")
SERVICES = [
    Service(
        template="unbound",
        options=("--set", "records=www.lan=10.1.2.3,www.lan=fd00::3"),
        look=lambda client: (
            client.run(*DIG, "www.lan", "A")
            + client.run(*DIG, "+tcp", "www.lan", "AAAA")
            + client.run(*DIG, "-x", "10.1.2.3")
        ),
        sees="10.1.2.3\nfd00::3\nwww.lan.\n",
        fast=True,
    ),
    Service(
        template="dnsmasq",
        options=("--set", "records=www.lan=10.1.2.3", "--set", "wildcards=apps.lan=10.9.9.9"),
        look=lambda client: (
            client.run(*DIG, "www.lan")
            + client.run(*DIG, "+tcp", "any.apps.lan")
            + client.run(*DIG, "-x", "10.1.2.3")
        ),
        sees="10.1.2.3\n10.9.9.9\nwww.lan.\n",
    ),
    Service(
        template="apache",
        look=asks(*CURL, "http://{ip}/"),
        sees="Apache, from mktemplate",
    ),
    Service(
        template="apache",
        case="php",
        options=("--set", "php=true"),
        look=asks(*CURL, "http://{ip}/index.php"),
        sees="Apache with PHP 8.",
    ),
    Service(
        template="haproxy",
        options=("--set", "stats=true"),
        look=lambda client: (
            client.run("curl", "-sS", "http://{ip}/")
            + client.run(*CURL, "http://{ip}:8404/metrics").partition("{")[0]
        ),
        sees="no server is behind this",
    ),
]


@pytest.mark.parametrize(("service", "release"), cases(SERVICES))
def test_a_service_answers_its_client_keeps_its_data_and_ends_in_time(
    mkt: Mkt, service: Service, release: str
) -> None:
    prove(mkt, service, release)


@pytest.mark.slow
def test_haproxy_shares_the_load_among_two_web_servers_and_skips_the_dead_one(mkt: Mkt) -> None:
    """A dead server is out after three failed checks, two seconds apart."""
    ips = {
        name: mkt.json("up", "nginx", name, "--distro", "debian")["ips"][0]
        for name in ("one", "two")
    }
    for name in ips:
        mkt.ok("exec", name, "--", "sh", "-c", f"echo {name} >/var/www/html/index.html")
    backends = ",".join(f"{ip}:80" for ip in ips.values())
    [ip] = mkt.json("up", "haproxy", "--distro", "debian", "--set", f"backends={backends}")["ips"]
    client = Client(mkt=mkt, name="haproxy", ip=ip)

    both = {client.run(*CURL, "http://{ip}/") for _ in range(4)}
    mkt.ok("stop", "one")
    alone = {
        client.run(*CURL, "--retry", "9", "--retry-all-errors", "http://{ip}/") for _ in range(4)
    }

    assert both == {"one\n", "two\n"}
    assert alone == {"two\n"}


@pytest.mark.slow
def test_unbound_asks_the_resolver_that_it_is_given_and_validates_all_but_what_is_excepted(
    mkt: Mkt,
) -> None:
    records = ("--set", "records=www.lan=10.1.2.3,www.example=10.1.2.4")
    [upstream] = mkt.json("up", "dnsmasq", "--distro", "debian", *records)["ips"]
    [ip] = mkt.json(
        "up", "unbound", "--distro", "debian", "--set", f"forward={upstream}", "--set", "insecure=lan"
    )["ips"]  # fmt: skip
    client = Client(mkt=mkt, name="unbound", ip=ip)

    excepted = client.run(*DIG, "www.lan")
    unsigned = client.run("dig", "+tries=1", "+time=10", "@{ip}", "www.example")

    assert excepted == "10.1.2.3\n"
    assert "status: SERVFAIL" in unsigned


@pytest.mark.slow
def test_sftp_only_gives_a_user_one_directory_and_no_command(mkt: Mkt, tmp_path: Path) -> None:
    [ip] = mkt.json(
        "up", "sshd", "--distro", "debian", "--set", "user=guest", "--set", "sftp_only=true"
    )["ips"]  # fmt: skip
    client = Client(mkt=mkt, name="sshd", ip=ip)
    known = f"UserKnownHostsFile={tmp_path}/known"
    ssh = ("-i", f"{mkt.path}/sshd/ssh/key", "-o", known, "-o", "StrictHostKeyChecking=no")
    (tmp_path / "batch").write_text(f"put {tmp_path}/batch here\nls -l\nls /\n")

    seen = client.run("sftp", "-q", "-b", f"{tmp_path}/batch", *ssh, "guest@{ip}")
    refused = mkt("ssh", "sshd", "id", timeout=30)

    assert mkt.ok("exec", "sshd", "--", "stat", "-c", "%U %n", "/srv/sftp/files/here").split() == [
        "guest",
        "/srv/sftp/files/here",
    ]
    assert seen.splitlines()[-1].strip() == "/files"
    assert "uid=" not in refused.stdout
    assert "sftp connections only" in refused.stdout
