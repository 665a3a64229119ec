"""The catalogue's network services, each asked by the client that people really use, before and after a restart."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.system.command import Mkt

pytestmark = pytest.mark.system
GRACE = 10  # seconds that `stop` gives a service, as users get without --timeout
ENDED = {0, 143}  # by itself, or by the SIGTERM that it was sent; 137 would be a kill


@dataclass(frozen=True, kw_only=True)
class Client:
    """Whoever talks to a running container from outside."""

    mkt: Mkt
    name: str
    ip: str

    def run(self, *argv: str) -> str:
        """Run a program of this machine that must succeed; {ip} in its words is the container's address."""
        words = [word.replace("{ip}", self.ip) for word in argv]
        if shutil.which(words[0]) is None:
            lacking(words[0])
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (
            f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout


@dataclass(frozen=True, kw_only=True)
class Service:
    """A template with options, what its client leaves there, how the client looks, and what it must see."""

    template: str
    options: tuple[str, ...] = ()
    leave: Callable[[Client], object] = lambda client: None
    look: Callable[[Client], str]
    sees: str
    case: str = ""  # tells apart what is of one template
    fast: bool = False  # runs by default

    @property
    def id(self) -> str:
        return f"{self.template}{'-' if self.case else ''}{self.case}"


def asks(*argv: str) -> Callable[[Client], str]:
    """Return how a client looks by running one program."""
    return lambda client: client.run(*argv)


CURL = ("curl", "-sS", "--fail", "--max-time", "10")
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


@pytest.mark.parametrize(
    ("service", "release"),
    [
        pytest.param(
            service,
            release,
            id=f"{service.id}-{release}",
            marks=[] if service.fast and release == "trixie" else pytest.mark.slow,
        )
        for service in SERVICES
        for release in ("trixie", "bookworm")
    ],
)
def test_a_service_answers_its_client_keeps_its_data_and_ends_in_time(
    mkt: Mkt, service: Service, release: str
) -> None:
    name = service.template
    place = ("--distro", "debian", "--release", release)
    [ip] = mkt.json("up", name, *place, *service.options)["ips"]
    client = Client(mkt=mkt, name=name, ip=ip)
    service.leave(client)
    seen = service.look(client)
    assert service.sees in seen

    mkt.ok("restart", name)
    mkt.ok("wait", name, "--state", "READY", "--timeout", "60")

    assert service.look(client) == seen
    mkt.ok("stop", "--timeout", str(GRACE), name)
    assert mkt.json("info", name)["exit_status"] in ENDED


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
