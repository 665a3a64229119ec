"""The catalogue's web and file services, each asked by the client that people use, before and after a restart."""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
from email.message import EmailMessage
from pathlib import Path

import pytest

from mktemplate.template import sharehost
from runtime import ready
from runtime.bundle import Ready
from tests.conftest import lacking
from tests.system.canary import CANARY, holders
from tests.system.command import Mkt
from tests.system.service import CURL, ENDED, GRACE, Client, Service, asks, cases, prove
from tests.system.test_flat import until

pytestmark = pytest.mark.system
CHAIN = "/var/lib/mktemplate/tls/chain.pem"
MAILBOX = "/var/mail/localdomain/postmaster/new/"
LOCAL_AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"
PAGE = "echo a page of ours >/var/www/html/page.html"


def inside(client: Client, script: str) -> str:
    """Run a script in the container, which must succeed; return what it says."""
    return client.mkt.ok("exec", client.name, "--", "sh", "-euc", script)


def over_tls(client: Client, path: str, authority: str = CHAIN) -> str:
    """Return what https answers to who trusts the certificate `authority` of the container's own, then that one."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as trusted:
        trusted.write(inside(client, f"cat {authority}"))
        trusted.flush()
        name = ("--cacert", trusted.name, "--resolve", f"{client.name}:443:{client.ip}")
        answer = client.run(*CURL, *name, f"https://{client.name}{path}")
        return answer + Path(trusted.name).read_text()


def rsync(client: Client, *words: str, password: str = "") -> str:
    """Return what rsync says about the module of the daemon, as the user whom it lets in."""
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(password or client.secret())
        secret.flush()
        url = f"rsync://mktemplate@{client.ip}/data/"
        return client.run("rsync", f"--password-file={secret.name}", *words, url)


def smb(client: Client, commands: str) -> str:
    """Return what smbclient says to commands on the share, as the user whom it lets in."""
    with tempfile.NamedTemporaryFile("w") as account:
        account.write(f"username = mktemplate\npassword = {client.secret()}\n")
        account.flush()
        share = f"//{client.ip}/share"
        return client.run("smbclient", "-A", account.name, share, "-c", commands)


def mail(client: Client) -> None:
    """Deliver a message over SMTP, encrypted, and wait until it is in the mailbox."""
    message = EmailMessage()
    message["From"], message["To"] = "somebody@example.org", "postmaster@localdomain"
    message["Subject"] = "a message of ours"
    message.set_content("read me\n")
    trusting = ssl.create_default_context(cadata=inside(client, f"cat {CHAIN}"))
    with smtplib.SMTP(client.ip, timeout=20) as server:
        server._host = client.name  # type: ignore[attr-defined]  # whom the certificate names
        server.starttls(context=trusting)
        server.send_message(message)
    inside(client, f"until ls {MAILBOX}* >/dev/null 2>&1; do sleep 0.1; done")


def git(client: Client, *words: str) -> str:
    """Return what git says, with the key and the password that let it in; {ip} is the container's address."""
    with tempfile.NamedTemporaryFile("w") as store:
        store.write(f"http://mktemplate:{client.secret()}@{client.ip}\n")
        store.flush()
        key = f"-i {client.mkt.path}/git/ssh/key -o UserKnownHostsFile=/dev/null"
        ssh = f"core.sshCommand=ssh {key} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        helper = f"credential.helper=store --file={store.name}"
        me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        return client.run("git", "-c", ssh, "-c", helper, *me, *words)


def push(client: Client) -> None:
    """Push what was cloned over http, clone that over ssh and push it to a name that is not there yet."""
    with tempfile.TemporaryDirectory() as place:
        git(client, "clone", "-q", "http://{ip}/project.git", f"{place}/one")
        git(client, "-C", f"{place}/one", "commit", "-q", "--allow-empty", "-m", "first")
        git(client, "-C", f"{place}/one", "push", "-q", "origin", "HEAD:main")
        git(client, "clone", "-q", "git@{ip}:project.git", f"{place}/two")
        git(client, "-C", f"{place}/two", "commit", "-q", "--allow-empty", "-m", "second")
        git(client, "-C", f"{place}/two", "push", "-q", "origin", "HEAD:main")
        git(client, "-C", f"{place}/two", "push", "-q", "ssh://git@{ip}/other.git", "HEAD:main")


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
    Service(
        template="caddy",
        leave=lambda client: inside(client, PAGE),
        look=asks(*CURL, "http://{ip}/page.html"),
        sees="a page of ours\n",
    ),
    Service(
        template="caddy",
        case="tls",
        options=("--set", "tls=internal"),
        leave=lambda client: inside(client, PAGE),
        look=lambda client: (
            client.run(*CURL, "-o", "/dev/null", "-w", "%{redirect_url}\n", "http://{ip}/page.html")
            + over_tls(client, "/page.html", LOCAL_AUTHORITY)
        ),
        sees="/page.html\na page of ours\n-----BEGIN CERTIFICATE-----",
    ),
    Service(
        template="node-exporter",
        options=("--set", "collectors=uname,meminfo"),
        look=lambda client: "".join(
            line
            for line in client.run(*CURL, "http://{ip}:9100/metrics").splitlines(keepends=True)
            if line.startswith(("node_uname_info", "node_memory_MemTotal_bytes"))
        ),
        sees='nodename="node-exporter"',
    ),
    Service(
        template="rsync",
        leave=lambda client: rsync(client, "-rt", __file__),
        look=lambda client: rsync(client, "--list-only") + client.secret(),
        sees=Path(__file__).name,
    ),
    Service(
        template="samba",
        leave=lambda client: smb(client, f"put {__file__} a-file"),
        look=lambda client: smb(client, "get a-file -") + client.secret(),
        sees="The catalogue's web and file services",
    ),
    Service(
        template="postfix",
        leave=mail,
        look=lambda client: inside(client, f"cat {MAILBOX}* {CHAIN}"),
        sees="Subject: a message of ours\n",
    ),
    Service(
        template="git",
        leave=push,
        look=lambda client: (
            git(client, "ls-remote", "http://{ip}/project.git")
            + git(client, "ls-remote", "ssh://git@{ip}/other.git")
            + inside(client, "cat /etc/ssh/ssh_host_ed25519_key.pub")
        ),
        sees="\trefs/heads/main\n",
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
@pytest.mark.parametrize(
    ("template", "proxy", "asked"),
    [("nginx", "/app/=http://behind/", "/app/told"), ("caddy", "/told=http://behind", "/told")],
    ids=["nginx", "caddy"],
)
def test_a_web_server_passes_requests_on_to_the_servers_behind_it(
    mkt: Mkt, template: str, proxy: str, asked: str
) -> None:
    """Containers of one network find each other by name."""
    mkt.ok("up", "nginx", "behind", "--distro", "debian")
    mkt.ok("exec", "behind", "--", "sh", "-c", "echo behind >/var/www/html/told")
    told = mkt.json("up", template, "front", "--distro", "debian", "--set", f"proxy={proxy}")
    client = Client(mkt=mkt, name="front", ip=told["ips"][0])

    behind = client.run(*CURL, f"http://{{ip}}{asked}")
    own = client.run(*CURL, "http://{ip}/")

    assert behind == "behind\n"
    assert own.startswith("<!doctype html>")
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


@pytest.mark.slow
def test_who_is_no_root_has_a_low_port_under_lxc_start_too(mkt: Mkt) -> None:
    """LXC cannot give low ports to all in a network of its own, so the service keeps the right to them."""
    mkt.ok("create", "caddy", "--flat", "--distro", "debian")
    place = ("-P", str(mkt.path), "-n", "caddy")
    subprocess.run(["lxc-start", *place], check=True, timeout=60)
    try:
        told = subprocess.run(["lxc-info", *place, "-pH"], capture_output=True, check=True)
        init = int(told.stdout)
        ready.wait_ready(Ready(kind="port", value="80"), init, 30, lambda argv: False)
        status = Path(f"/proc/{init}/status").read_text()
    finally:
        subprocess.run(["lxc-stop", *place], check=True, timeout=60)

    assert "CapEff:\t0000000000000400" in status  # CAP_NET_BIND_SERVICE alone


@pytest.mark.slow
@pytest.mark.parametrize("release", ["trixie", "bookworm"])
def test_prometheus_asks_a_node_exporter_by_name_and_remembers_what_it_said(
    mkt: Mkt, release: str
) -> None:
    place = ("--distro", "debian", "--release", release)
    mkt.ok("up", "node-exporter", *place)
    given = ("--set", "targets=node-exporter:9100", "--set", "interval=1s")
    told = mkt.json("up", "prometheus", *place, *given)
    client = Client(mkt=mkt, name="prometheus", ip=told["ips"][0])

    def ask(query: str, *when: str) -> list[str]:
        """Return the values that a query has, now or at another time."""
        words = ("--get", "--data-urlencode", f"query={query}", *when)
        answer = client.run(*CURL, *words, "http://{ip}:9090/api/v1/query")
        return [found["value"][1] for found in json.loads(answer)["data"]["result"]]

    until(lambda: ask('up{job="targets"}') == ["1"], 30)
    [asked] = ask('timestamp(up{job="targets"})')
    mkt.ok("stop", "node-exporter")
    mkt.ok("restart", "prometheus")
    mkt.ok("wait", "prometheus", "--state", "READY", "--timeout", "60")

    assert ask('up{job="targets"}', "--data-urlencode", f"time={asked}") == ["1"]
    until(lambda: ask('up{job="targets"}') == ["0"], 30)
    mkt.ok("stop", "--timeout", str(GRACE), "prometheus")
    assert mkt.json("info", "prometheus")["exit_status"] in ENDED


@pytest.mark.slow
def test_who_knows_no_password_neither_reads_nor_writes(mkt: Mkt) -> None:
    [ip] = mkt.json("up", "rsync", "--distro", "debian")["ips"]
    refused = run("rsync", "--list-only", f"rsync://mktemplate@{ip}/data/", RSYNC_PASSWORD="wrong")
    assert "auth failed" in refused.stderr
    mkt.ok("destroy", "--force", "rsync")
    [ip] = mkt.json("up", "samba", "--distro", "debian")["ips"]
    for who in ("-N", "-Umktemplate%wrong"):
        refused = run("smbclient", who, f"//{ip}/share", "-c", "ls")
        assert "NT_STATUS_" in refused.stdout
        refused = run("smbclient", who, "-L", f"//{ip}")
        assert "NT_STATUS_" in refused.stdout + refused.stderr
    mkt.ok("destroy", "--force", "samba")
    [ip] = mkt.json("up", "git", "--distro", "debian")["ips"]
    refused = run("git", "ls-remote", f"http://mktemplate:wrong@{ip}/project.git")
    assert "Authentication failed" in refused.stderr
    mkt.ok("destroy", "--force", "git")
    [ip] = mkt.json("up", "postfix", "--distro", "debian")["ips"]
    with smtplib.SMTP(ip, timeout=20) as server, pytest.raises(smtplib.SMTPRecipientsRefused):
        server.sendmail("somebody@example.org", "somebody@example.com", "Subject: no\n\nno\n")


@pytest.mark.slow
@pytest.mark.parametrize("template", ["rsync", "samba"])
def test_a_service_that_asks_nobody_for_a_password_makes_none(mkt: Mkt, template: str) -> None:
    told = mkt.json("up", template, "--distro", "debian", "--set", "anonymous=true")
    client = Client(mkt=mkt, name=template, ip=told["ips"][0])

    if template == "rsync":
        client.run("rsync", __file__, "rsync://{ip}/data/a-file")
    else:
        client.run("smbclient", "-N", "//{ip}/share", "-c", f"put {__file__} a-file")

    place = {"rsync": "/srv/rsync", "samba": "/srv/share"}[template]
    assert inside(client, f"stat -c %U {place}/a-file") == f"{template}\n"
    assert told["secrets"] == {}


KEPT = {"rsync": "upper/var/lib/mktemplate/rsyncd.secrets"}  # others keep a digest


@pytest.mark.slow
@pytest.mark.parametrize("template", ["git", "rsync", "samba"])
def test_a_secret_that_was_given_lets_in_and_lies_where_the_service_needs_it_alone(
    mkt: Mkt, template: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(CANARY)
    given = ("--secret", f"password=@{tmp_path}/secret")
    done = mkt("up", template, "--distro", "debian", *given)
    assert done.returncode == 0, done.stderr
    [ip] = mkt.json("info", template)["ips"]
    word = urllib.parse.quote(CANARY, safe="")
    ask: dict[str, tuple[str, ...]] = {
        "git": ("git", "ls-remote", f"http://mktemplate:{word}@{ip}/project.git"),
        "rsync": ("rsync", "--list-only", f"rsync://mktemplate@{ip}/data/"),
        "samba": ("smbclient", f"-Umktemplate%{CANARY}", f"//{ip}/share", "-c", "ls"),
    }

    answer = run(*ask[template], RSYNC_PASSWORD=CANARY)
    mkt.ok("restart", template)
    mkt.ok("wait", template, "--state", "READY", "--timeout", "60")
    again = run(*ask[template], RSYNC_PASSWORD=CANARY)
    running = holders(CANARY, str(mkt.path), "/run/mktemplate")
    mkt.ok("stop", template)
    mkt.ok("export", template, "-o", f"{tmp_path}/{template}.tar")
    (tmp_path / "secret").unlink()

    assert (answer.returncode, again.returncode) == (0, 0), answer.stderr + again.stderr
    assert CANARY not in done.stdout + done.stderr
    assert running == (f"{mkt.path}/{template}/{KEPT[template]}\n" if template in KEPT else "")
    assert holders(CANARY, str(mkt.path), "/run/mktemplate", str(tmp_path)) == running


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine; nothing is checked."""
    return subprocess.run(
        argv, env=os.environ | environment, text=True, capture_output=True, timeout=120
    )


@pytest.mark.slow
def test_anybody_reads_an_anonymous_git_and_only_who_knows_the_password_writes(
    mkt: Mkt, tmp_path: Path
) -> None:
    told = mkt.json("up", "git", "--distro", "debian", "--set", "anonymous=true")
    client = Client(mkt=mkt, name="git", ip=told["ips"][0], secrets=told["secrets"])
    url = f"http://{client.ip}/project.git"

    client.run("git", "clone", "-q", url, f"{tmp_path}/one")
    git(client, "-C", f"{tmp_path}/one", "commit", "-q", "--allow-empty", "-m", "first")
    refused = run("git", "-C", f"{tmp_path}/one", "push", url, "HEAD:main", GIT_TERMINAL_PROMPT="0")
    git(client, "-C", f"{tmp_path}/one", "push", "-q", url, "HEAD:main")

    assert "could not read Username" in refused.stderr
    assert client.run("git", "ls-remote", url).endswith("refs/heads/main\n")


PROGRAMS = {
    "caddy": "caddy",
    "git": "lighttpd",
    "nginx": "nginx",
    "node-exporter": "prometheus-node-exporter",
    "postfix": "postfix",
    "prometheus": "prometheus",
    "rsync": "rsync",
    "samba": "smbd",
}
LEND = """
LIBMOUNT_FORCE_MOUNT2=always mount -t overlay -o "lowerdir=$1:/usr" lent /usr
shift; exec "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("template", sorted(PROGRAMS))
def test_a_host_that_has_the_programs_lends_them(mkt: Mkt, template: str) -> None:
    """The packages' own /usr over that of this host: what it would be had they been installed here."""
    if sharehost.os_release().get("VERSION_CODENAME") != "trixie":
        lacking("the release that the packages are of")
    place = ("--distro", "debian", "--release", "trixie")
    mkt.ok("create", template, *place)
    layers = [mkt.path / ".store/layers" / each for each in mkt.json("info", template)["layers"]]
    folders = [str(layer / "root/usr") for layer in layers if (layer / "root/usr").is_dir()]
    mkt.ok("destroy", template)

    refused = mkt("up", template, *place, "--share-host")
    lent = ("unshare", "-m", "--propagation", "private", "sh", "-euc", LEND, "sh")
    words = [sys.executable, "-P", "-m", "mktemplate", "--path", str(mkt.path), "up", template]
    words += [*place, "--share-host", "--no-userns"]  # overlays take no id-mapped mounts
    up = run(*lent, ":".join(reversed(folders)), *words, **mkt.environment)

    assert shutil.which(PROGRAMS[template]) or "this host does not have it" in refused.stderr
    assert up.returncode == 0, up.stderr
    mkt.ok("stop", "--timeout", str(GRACE), template)
    assert mkt.json("info", template)["exit_status"] in ENDED
