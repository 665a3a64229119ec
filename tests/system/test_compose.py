"""Several containers from one file: in order, by name, and nobody else's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.system.command import CHECKOUT, Mkt
from tests.system.service import CURL, Client

pytestmark = [pytest.mark.system, pytest.mark.root]
# The second one needs the first by its name, as soon as it starts; it stands first in the file.
FILE = """
[services.front]
template = "static-app"
depends_on = ["back"]
set = { source = "./front" }

[services.back]
template = "busybox"
set = { port = 8081 }
volume = "./site:/srv/www:ro"
"""
FRONT = """#!/bin/sh
mkdir /tmp/www
wget -q -O /tmp/www/index.html http://back:8081/ || exit 1
exec httpd -f -p "$PORT" -h /tmp/www
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("from the back\n")
    (tmp_path / "front").write_text(FRONT)
    (tmp_path / "front").chmod(0o755)
    (tmp_path / "fleet.toml").write_text(FILE)
    return tmp_path / "fleet.toml"


def states(mkt: Mkt, file: Path) -> dict[str, str]:
    rows = mkt.json("compose", "ps", str(file))
    return {row["name"]: row["state"] for row in rows}


def test_services_come_in_order_find_each_other_by_name_and_go(mkt: Mkt, file: Path) -> None:
    words = ("compose", "up", str(file))
    assert states(mkt, file) == {"back": "ABSENT", "front": "ABSENT"}

    made = mkt.json(*words)

    assert [service["name"] for service in made["services"]] == ["back", "front"]
    assert all(service["ready"] for service in made["services"])
    client = Client(mkt=mkt, name="front", ip=made["services"][1]["ips"][0])
    assert client.run(*CURL, "http://{ip}:8080/") == "from the back\n"
    again = mkt(*words)
    assert (again.returncode, "warning" in again.stderr) == (0, False), again.stderr
    down = mkt.json("compose", "down", str(file))
    assert [service["name"] for service in down["services"]] == ["front", "back"]
    assert states(mkt, file) == {"back": "STOPPED", "front": "STOPPED"}
    mkt.ok(*words)
    assert client.run(*CURL, "http://{ip}:8080/") == "from the back\n"
    mkt.ok("compose", "down", str(file), "--destroy")
    assert mkt.names() == []


def test_a_container_that_the_file_did_not_make_is_left_alone(mkt: Mkt, file: Path) -> None:
    mkt.ok("create", "busybox", "back")

    for action in ("up", "down"):
        done = mkt("compose", action, str(file), "--json")
        assert done.returncode == 8
        assert json.loads(done.stdout)["error"]["object"] == "back"

    assert mkt.names() == ["back"]
    assert states(mkt, file) == {"back": "ABSENT", "front": "ABSENT"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (('"busybox"', '"busybocks"'), "E_USAGE"),
        (("port = 8081", "port = 99999"), "E_PARAM"),
        (("port = 8081", "prot = 8081"), "E_PARAM"),
    ],
)
def test_nothing_starts_where_one_service_cannot_be_meant(
    mkt: Mkt, file: Path, change: tuple[str, str], code: str
) -> None:
    file.write_text(file.read_text().replace('depends_on = ["back"]\n', "").replace(*change))

    done = mkt("compose", "up", str(file))

    assert (done.returncode, f"error[{code}]" in done.stderr) == (2, True), done.stderr
    assert mkt.names() == []


@pytest.mark.slow
def test_a_proxy_stands_in_front_of_an_application(mkt: Mkt, tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(
        f'[services.app]\ntemplate = "python-app"\n'
        f'set = {{ source = "{CHECKOUT}/examples/apps/asgi", server = "uvicorn" }}\n'
        '[services.web]\ntemplate = "nginx"\nset = { proxy = "http://app:8000" }\n'
        'publish = "18484:80"\ndepends_on = ["app"]\n'
    )
    mkt.ok("compose", "up", str(tmp_path / "shop.toml"))

    seen = subprocess.run(
        [*CURL, "http://127.0.0.1:18484/basket"], capture_output=True, text=True, timeout=30
    )

    assert seen.stdout == "asgi, as app: /basket\n"
