"""Applications of one's own: Python, Node.js and one static program, each asked by curl, before and after a restart."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.system.command import CHECKOUT, Mkt, free_port
from tests.system.service import CURL, ENDED, Client, Service, asks, cases, prove
from tests.system.user import UserMkt

pytestmark = [pytest.mark.system, pytest.mark.root]
APPS = CHECKOUT / "examples/apps"
# The network of this machine may be one whose proxy has a certificate of its own: its store is what knows it.
STORE = "/etc/ssl/certs/ca-certificates.crt"
NETWORK = ("--volume", f"{STORE}:{STORE}:ro")
SERVICES = [
    Service(
        template="static-app",
        case="directory",
        options=(
            *("--set", "source=/usr/bin", "--set", "program=busybox"),
            *("--set", "args=httpd,-f,-p,8080,-h,/usr/lib/mktemplate"),
        ),
        look=asks(*CURL, "http://{ip}:8080/app"),
        sees="Starts the program as the user app",
    ),
    Service(
        template="static-app",
        case="example",
        look=asks(*CURL, "http://{ip}:8080/"),
        sees="Hello from mktemplate's static-app.",
        fast=True,
    ),
    Service(
        template="python-app",
        case="wsgi",
        look=asks(*CURL, "http://{ip}:8000/"),
        sees="Hello from mktemplate's python-app.",
    ),
    Service(
        template="python-app",
        case="asgi",
        options=("--set", f"source={APPS}/asgi", "--set", "server=uvicorn"),
        look=asks(*CURL, "http://{ip}:8000/path"),
        sees="asgi, as app: /path",
    ),
    Service(
        template="python-app",
        case="flask",
        options=("--set", f"source={APPS}/flask", *NETWORK),
        look=asks(*CURL, "http://{ip}:8000/"),
        sees="flask, as app",
    ),
    Service(
        template="python-app",
        case="pyproject",
        options=("--set", f"source={APPS}/pyproject", *NETWORK),
        look=asks(*CURL, "http://{ip}:8000/"),
        sees="signer 1.0, as app",
    ),
    Service(
        template="node-app",
        options=("--set", f"source={APPS}/node", "--set", "main=server.js"),
        look=asks(*CURL, "http://{ip}:3000/path"),
        sees="node, as app: /path",
    ),
    Service(
        template="node-app",
        case="npm",
        options=("--set", f"source={APPS}/npm", "--set", "npm=true", *NETWORK),
        look=asks(*CURL, "http://{ip}:3000/"),
        sees="two days are 172800000 ms",
    ),
]


@pytest.mark.parametrize(("service", "release"), cases(SERVICES))
def test_an_application_answers_keeps_answering_and_ends_in_time(
    mkt: Mkt, service: Service, release: str
) -> None:
    if not Path("/usr/bin/busybox").exists():
        lacking("busybox-static")
    prove(mkt, service, release)


def wheel(folder: Path, version: str) -> str:
    """Make the wheel of a package `greeting` (PEP 427) in `folder`; return its SHA-256."""
    folder.mkdir(exist_ok=True)
    path = folder / f"greeting-{version}-py3-none-any.whl"
    about = f"greeting-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("greeting.py", f'WORDS = b"greeting {version}\\n"\n')
        file.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: greeting\nVersion: {version}\n"
        )
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


WSGI = """
import greeting
import os

def app(environ, start_response):
    start_response("200 OK", [])
    return [greeting.WORDS, f"uid {os.getuid() > 0}\\n".encode()]
"""


def test_an_application_is_installed_from_its_own_wheels_and_anew_where_they_changed(
    mkt: Mkt, tmp_path: Path
) -> None:
    """No network, its owner's closed directory, the version and hash that requirements.txt pins."""
    source = tmp_path / "app"
    source.mkdir(mode=0o700)
    (source / "app.py").write_text(WSGI)
    digest = wheel(source / "wheels", "1.0")
    (source / "requirements.txt").write_text(f"greeting==1.0 --hash=sha256:{digest}\n")
    words = ("python-app", "--distro", "debian", "--set", f"source={source}")
    [ip] = mkt.json("up", *words, "--network", "bridge,internal")["ips"]
    client = Client(mkt=mkt, name="python-app", ip=ip)
    first = client.run(*CURL, "http://{ip}:8000/")

    digest = wheel(source / "wheels", "2.0")
    (source / "requirements.txt").write_text(f"greeting==2.0 --hash=sha256:{digest}\n")
    mkt.ok("restart", "python-app")
    mkt.ok("wait", "python-app", "--state", "READY")
    second = client.run(*CURL, "http://{ip}:8000/")
    mkt.ok("restart", "python-app")
    mkt.ok("wait", "python-app", "--state", "READY")

    assert (first, second) == ("greeting 1.0\nuid True\n", "greeting 2.0\nuid True\n")
    assert mkt.ok("logs", "python-app").count("python-app: installing") == 2
    mkt.ok("stop", "python-app")
    assert mkt.json("info", "python-app")["exit_status"] in ENDED
    (source / "requirements.txt").write_text(f"greeting==2.0 --hash=sha256:{'0' * 64}\n")
    mkt.ok("start", "python-app")
    refused = mkt("wait", "python-app", "--state", "READY", "--timeout", "60")
    assert (refused.returncode, "DO NOT MATCH THE HASHES" in mkt.ok("logs", "python-app")) == (
        8,
        True,
    )


def test_one_static_file_is_an_application(mkt: Mkt, program: Path) -> None:
    [ip] = mkt.json("up", "static-app", "--set", f"source={program}")["ips"]
    client = Client(mkt=mkt, name="static-app", ip=ip)

    assert client.run(*CURL, "http://{ip}:8080/") == "static, alone.\n"
    who = mkt.ok("exec", "static-app", "--", "ps", "-o", "user,args")
    assert [line.split()[0] for line in who.splitlines() if "/srv/app" in line] == ["app"]
    mkt.ok("stop", "static-app")
    assert mkt.json("info", "static-app")["exit_status"] == 143


@pytest.mark.parametrize(
    ("source", "said"),
    [("/bin/sh", "needs libraries that are not here"), ("/etc/apt", "is no program")],
)
def test_what_cannot_run_alone_is_named(mkt: Mkt, source: str, said: str) -> None:
    done = mkt("up", "static-app", "--set", f"source={source}")

    assert done.returncode == 8
    assert said in mkt.ok("logs", "static-app")


def test_a_source_is_recorded_as_its_whole_path_and_may_be_said_again_from_anywhere(
    mkt: Mkt, tmp_path: Path
) -> None:
    mkt.ok(
        "create", "static-app", "--set", "source=usr/bin/busybox", "--set", "args=busybox,sleep,9"
    )

    info = mkt.json("info", "static-app")

    assert "source=/usr/bin/busybox" in info["options"]["sets"]
    done = mkt("create", "static-app", "other", "--set", "source=usr/bin/nothing")
    assert (done.returncode, "E_MOUNT_SOURCE" in done.stderr) == (5, True)


@pytest.mark.slow
def test_a_normal_user_has_it_too(user: UserMkt) -> None:
    """Its own closed directory is not the application's to read there: it must be open to others."""
    user.ok("up", "static-app", "--set", "source=/usr/bin", "--set", "program=busybox",
            "--set", "args=httpd,-f,-p,8080,-h,/etc",
            "--publish", "18482:8080")  # fmt: skip

    done = Client(mkt=user, name="static-app", ip="127.0.0.1").run(
        *CURL, "http://{ip}:18482/hostname"
    )

    assert "static-app" in done


@pytest.mark.slow
@pytest.mark.parametrize(("template", "port"), [("python-app", 8000), ("node-app", 3000)])
def test_a_normal_users_application_answers_keeps_answering_and_ends_in_time(
    user: UserMkt, template: str, port: int
) -> None:
    hello = asks(*CURL, "http://{ip}:{port}/")
    service = Service(template=template, port=port, look=hello, sees=f"mktemplate's {template}")
    try:
        prove(user, service, "trixie", publish=free_port())
    finally:
        user.sweep()
