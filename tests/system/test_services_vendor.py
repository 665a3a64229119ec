"""What no distribution has: vendors' signed repositories, and one file pinned by its hash.

The vendors' own servers are not asked: their templates are taken as they are, but for the address and the key, and a
repository that the test signs has stand-ins for their packages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.archive import DAY, Deb, Key, Served, Suite, new_key, publish
from tests.family import architecture
from tests.system.command import CHECKOUT, Mkt
from tests.system.service import CURL, ENDED, Client

pytestmark = [pytest.mark.system, pytest.mark.root]
STAND_IN = (CHECKOUT / "tests/programs/stand_in.pl").read_text()
EVIL = Deb(name="libc6", version="99:1", files={"evil": "x"})


def server(name: str, path: str, words: str, user: str) -> Deb:
    """Return a vendor's package: its program, and the account that its script makes."""
    script = (
        f"#!/bin/sh\nset -e\nchmod 0755 /{path}\n"
        f"getent passwd {user} >/dev/null || useradd --system --user-group --shell /usr/sbin/nologin {user}\n"
    )
    return Deb(
        name=name,
        version="11.0",
        files={path: STAND_IN.replace("STAND_IN)", f"{words})")},
        scripts={"postinst": script},
        fields={"Depends": "passwd"},
    )


GRAFANA = server(
    "grafana",
    "usr/share/grafana/bin/grafana",
    "3000 /var/lib/grafana /etc/grafana/admin_password",
    "grafana",
)
JELLYFIN = server(
    "jellyfin-server", "usr/bin/jellyfin", "8096 /var/lib/jellyfin 0 /srv/media", "jellyfin"
)
REST = tuple(Deb(name=name, version="11.0") for name in ("jellyfin-web", "jellyfin-ffmpeg7"))


@pytest.fixture(scope="module")
def vendor_key() -> Iterator[Key]:
    with new_key() as key:
        yield key


@pytest.fixture
def vendor(served: Served, vendor_key: Key, tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Return a function that publishes packages and gives the words that use the built-in template with them."""

    def make(template: str, suite: str, *debs: Deb, key: Key = vendor_key) -> tuple[str, ...]:
        what = Suite(
            name=suite, origin="Vendor", label="Vendor", arch=architecture(), debs={"main": (*debs, EVIL)},
            valid=7 * DAY,
        )  # fmt: skip
        publish(served.root / "debian", what, key)
        folder = tmp_path / "templates" / template
        folder.parent.mkdir(exist_ok=True)
        for file in (CHECKOUT / "templates" / template).rglob("*"):
            if file.is_file():
                place = folder / file.relative_to(CHECKOUT / "templates" / template)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read_bytes())
        armored = vendor_key.gpg("--armor", "--export", vendor_key.fingerprint).decode()
        text = (folder / "template.toml").read_text()
        text = re.sub('uris = ".*"', f'uris = "{served.url}/debian"', text)
        text = re.sub('fingerprint = ".*"', f'fingerprint = "{vendor_key.fingerprint}"', text)
        text = re.sub('signed_by = """.*?"""', f'signed_by = """\n{armored}"""', text, flags=re.S)
        (folder / "template.toml").write_text(text)
        return (template, "--template-path", str(folder.parent), "--distro", "debian")

    return make


def told(client: Client, port: int) -> dict[str, str]:
    """Return what the stand-in says of itself."""
    lines = client.run(*CURL, f"http://{{ip}}:{port}/").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_grafana_comes_from_its_own_repository_and_its_secret_stays(
    mkt: Mkt, vendor: Callable[..., tuple[str, ...]]
) -> None:
    up = mkt.json("up", *vendor("grafana", "stable", GRAFANA))
    client = Client(mkt=mkt, name="grafana", ip=up["ips"][0], secrets=up["secrets"])
    seen = told(client, 3000)

    assert (seen["user"], seen["secret"]) == ("grafana", client.secret())
    assert seen["args"].startswith("server --homepath=/usr/share/grafana --config=/etc/grafana/")
    packages = {each["name"]: each["version"] for each in mkt.json("info", "grafana")["packages"]}
    assert packages["grafana"] == "11.0"
    assert not packages["libc6"].startswith("99:")
    assert "Vendor" in mkt.ok("why", "grafana", "grafana")
    mkt.ok("restart", "grafana")
    mkt.ok("wait", "grafana", "--state", "READY", "--timeout", "60")
    assert told(client, 3000) == seen
    assert mkt.ok("exec", "grafana", "--", "cat", "/var/lib/grafana/starts") == "started\n" * 2
    mkt.ok("stop", "grafana")
    assert mkt.json("info", "grafana")["exit_status"] in ENDED


@pytest.mark.slow
def test_jellyfin_shows_the_media_that_it_is_given(
    mkt: Mkt, vendor: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir(mode=0o700)
    (media / "film").write_text("a film\n")
    (media / "film").chmod(0o600)
    words = vendor("jellyfin", "trixie", JELLYFIN, *REST)
    [ip] = mkt.json("up", *words, "--release", "trixie", "--set", f"media={media}")["ips"]
    client = Client(mkt=mkt, name="jellyfin", ip=ip)

    seen = told(client, 8096)

    assert (seen["user"], seen["media"]) == ("jellyfin", "a film")
    assert "--datadir=/var/lib/jellyfin " in seen["args"]
    mkt.ok("stop", "jellyfin")
    assert mkt.json("info", "jellyfin")["exit_status"] in ENDED


def test_a_repository_that_another_key_signed_is_refused(
    mkt: Mkt, vendor: Callable[..., tuple[str, ...]], archive_key: Key
) -> None:
    done = mkt("create", *vendor("grafana", "stable", GRAFANA, key=archive_key))

    assert done.returncode == 3
    assert "error[E_TRUST_" in done.stderr
    assert mkt.names() == []


GITEA = """
summary = "a program that its makers publish as one file"
distros = ["deb"]
static = "/usr/bin/busybox"
command = ["/usr/local/bin/server"]
service_user = "app"

[packages]
deb = ["busybox-static"]

[ready]
port = 8080

[[download]]
url = "{url}/server-1.0-linux-amd64"
sha256 = "{sha256}"
to = "/usr/local/bin/server"
mode = "0755"
"""
TREE = """{% extends "_distro/" ~ distro.name ~ ".tree.j2" %}
{% from "_macros/busybox.j2" import applets %}
{% block service %}
{{ applets("busybox") }}
g app -
u app - "the server" / /usr/sbin/nologin
{% endblock %}
"""


def test_one_file_that_is_pinned_by_its_hash_is_a_service(
    mkt: Mkt,
    served: Served,
    program: Path,
    tmp_path: Path,
) -> None:
    """As Gitea and others are published: docs/apps.md shows how."""
    body = program.read_bytes()
    (served.root / "server-1.0-linux-amd64").write_bytes(body)
    folder = tmp_path / "templates/server"
    folder.mkdir(parents=True)
    pinned = GITEA.format(url=served.url, sha256=hashlib.sha256(body).hexdigest())
    (folder / "template.toml").write_text(pinned)
    (folder / "tree.j2").write_text(TREE)
    (folder / "config.j2").write_text('{% extends "_distro/" ~ distro.name ~ ".config.j2" %}\n')
    words = ("server", "--template-path", str(folder.parent), "--distro", "debian")

    [ip] = mkt.json("up", *words)["ips"]

    client = Client(mkt=mkt, name="server", ip=ip)
    assert client.run(*CURL, "http://{ip}:8080/") == "static, alone.\n"
    asked = len(served.requests)
    mkt.ok("destroy", "--force", "server")
    mkt.ok("up", *words)
    assert len(served.requests) == asked > 0
