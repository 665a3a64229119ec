"""The catalogue's web and file services, each asked by the client that people use, before and after a restart."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.command import Mkt
from tests.system.service import CURL, Client, Service, asks, cases, prove

pytestmark = pytest.mark.system
CHAIN = "/var/lib/mktemplate/tls/chain.pem"
PAGE = "echo a page of ours >/var/www/html/page.html"


def inside(client: Client, script: str) -> str:
    """Run a script in the container, which must succeed; return what it says."""
    return client.mkt.ok("exec", client.name, "--", "sh", "-euc", script)


def over_tls(client: Client, path: str, folder: Path = Path("/tmp")) -> str:
    """Return what https answers to who trusts the container's own certificate, and nobody else's."""
    chain = folder / f"{client.name}-chain.pem"
    chain.write_text(inside(client, f"cat {CHAIN}"))
    try:
        name = f"{client.name}:443:{client.ip}"
        trusted = ("--cacert", str(chain), "--resolve", name)
        return client.run(*CURL, *trusted, f"https://{client.name}{path}") + chain.read_text()
    finally:
        chain.unlink()


SERVICES = [
    Service(
        template="nginx",
        leave=lambda client: inside(client, PAGE),
        look=asks(*CURL, "http://{ip}/page.html"),
        sees="a page of ours\n",
    ),
    Service(
        template="nginx",
        case="tls",
        options=("--set", "tls=true"),
        leave=lambda client: inside(client, PAGE),
        look=lambda client: (
            client.run(*CURL, "-o", "/dev/null", "-w", "%{redirect_url}\n", "http://{ip}/page.html")
            + over_tls(client, "/page.html")
        ),
        sees="/page.html\na page of ours\n-----BEGIN CERTIFICATE-----",
        fast=True,
    ),
]


@pytest.mark.parametrize(("service", "release"), cases(SERVICES))
def test_a_service_answers_its_client_keeps_its_data_and_ends_in_time(
    mkt: Mkt, service: Service, release: str
) -> None:
    prove(mkt, service, release)


@pytest.mark.slow
def test_nginx_shows_the_certificate_that_it_is_given_and_keeps_its_key_to_itself(
    mkt: Mkt, tmp_path: Path
) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=web.test"),
            *("-addext", "subjectAltName=DNS:web.test", "-keyout", "key", "-out", "chain"),
        ],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    key = (tmp_path / "key").read_text()
    (tmp_path / "pem").write_text(key + (tmp_path / "chain").read_text())

    given = ("--set", "tls=true", "--secret", f"tls_pem=@{tmp_path}/pem")
    told = mkt.json("up", "nginx", "--distro", "debian", *given)
    client = Client(mkt=mkt, name="nginx", ip=told["ips"][0])
    trusted = ("--cacert", f"{tmp_path}/chain", "--resolve", f"web.test:443:{client.ip}")

    assert "It works" in client.run(*CURL, *trusted, "https://web.test/")
    assert inside(client, f"stat -Lc '%U %a' {CHAIN}").split() == ["root", "600"]
    holders = client.run("grep", "-rlF", key.splitlines()[5], str(mkt.path), "/run/mktemplate")
    assert {Path(line).parent for line in holders.splitlines()} == {
        mkt.path / "nginx/upper/var/lib/mktemplate/tls"
    }


@pytest.mark.slow
def test_nginx_passes_requests_on_to_the_servers_behind_it(mkt: Mkt) -> None:
    """Containers of one network find each other by name."""
    mkt.ok("up", "nginx", "behind", "--distro", "debian")
    mkt.ok("exec", "behind", "--", "sh", "-c", "echo behind >/var/www/html/told")
    told = mkt.json(
        "up", "nginx", "front", "--distro", "debian", "--set", "proxy=/app/=http://behind/"
    )
    client = Client(mkt=mkt, name="front", ip=told["ips"][0])

    seen = client.run(*CURL, "http://{ip}/app/told", "http://{ip}/")

    assert seen.startswith("behind\n<!doctype html>")
    assert 'GET /told HTTP/1.1" 200' in mkt.ok("logs", "behind")


@pytest.mark.slow
def test_nginx_serves_a_directory_of_the_hosts_that_it_cannot_write(
    mkt: Mkt, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "page.html").write_text("from the host\n")
    given = ("--volume", f"{tmp_path}:/var/www/html:ro", "--set", "rewrite=true")
    (tmp_path / "index.html").write_text("one page\n")
    [ip] = mkt.json("up", "nginx", "--distro", "debian", *given)["ips"]
    client = Client(mkt=mkt, name="nginx", ip=ip)

    seen = client.run(*CURL, "http://{ip}/page.html", "http://{ip}/any/where")

    assert seen == "from the host\none page\n"
    assert mkt("exec", "nginx", "--", "touch", "/var/www/html/x").returncode == 1
