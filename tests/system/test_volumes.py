"""What a service keeps: managed volumes, secrets, and who it runs as. The template is tests/templates/keeper."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.canary import holders
from tests.system.command import CHECKOUT, Mkt

pytestmark = [pytest.mark.system, pytest.mark.root]

TEMPLATES = CHECKOUT / "tests" / "templates"
SECRET = "canary-5f0c7be1a94d"
DIGEST = hashlib.sha256(f"{SECRET}\n".encode()).hexdigest()


@pytest.fixture
def keep(mkt: Mkt) -> Iterator[Mkt]:
    """The command with the templates of the tests in its reach."""
    mkt.environment["XDG_CONFIG_HOME"] = str(mkt.path.parent / "config")
    place = mkt.path.parent / "config" / "mktemplate"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "templates").exists():
        (place / "templates").symlink_to(TEMPLATES)
    yield mkt
    del mkt.environment["XDG_CONFIG_HOME"]


def inside(mkt: Mkt, name: str, script: str) -> str:
    return mkt.ok("exec", name, "--", "sh", "-c", script).strip()


@pytest.mark.parametrize(
    "way", [(), ("--no-userns",), ("--flat",)], ids=["userns", "host ids", "flat"]
)
def test_a_volume_is_its_users_and_holds_what_the_layers_have(
    keep: Mkt, way: tuple[str, ...]
) -> None:
    keep.ok("create", "keeper", *way)
    keep.ok("start", "keeper")
    keep.ok("wait", "keeper", "--state", "READY")

    seen = inside(keep, "keeper", "stat -c '%U %a' /srv/data; cat /srv/data/hello; id -un 999")

    assert seen.split() == ["keeper", "750", "hello", "keeper"]
    status = inside(keep, "keeper", "cat /proc/1/status").split("\n")
    told = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert told["Uid"].split()[0] == inside(keep, "keeper", "id -u keeper")
    assert int(told["CapEff"], 16) == 0
    assert "root" not in keep.ok("logs", "keeper")
    assert (keep.path / "keeper/volumes/data/hello").read_text() == "hello\n"


def test_data_go_along_with_a_copy_a_snapshot_and_a_new_name(keep: Mkt) -> None:
    keep.ok("up", "keeper", "one")
    inside(keep, "one", "echo first >/srv/data/told")

    keep.ok("snapshot", "one", "create", "before")
    inside(keep, "one", "echo second >/srv/data/told")
    keep.ok("copy", "one", "two")
    keep.ok("up", "keeper", "two")
    inside(keep, "two", "echo third >/srv/data/told")
    keep.ok("stop", "one")
    keep.ok("rename", "one", "uno")
    keep.ok("start", "uno")
    renamed = inside(keep, "uno", "cat /srv/data/told")
    keep.ok("stop", "uno")
    keep.ok("snapshot", "uno", "restore", "before")
    keep.ok("start", "uno")

    assert renamed == "second"
    assert inside(keep, "uno", "cat /srv/data/told") == "first"
    assert inside(keep, "two", "cat /srv/data/told") == "third"


def test_a_command_in_a_containers_layers_does_not_see_its_data(keep: Mkt) -> None:
    keep.ok("up", "keeper")
    inside(keep, "keeper", "echo mine >/srv/data/told")

    assert keep("run", "keeper", "--", "cat", "/srv/data/told").returncode == 1
    assert inside(keep, "keeper", "cat /srv/data/told") == "mine"


def test_a_volume_of_the_callers_takes_the_place_of_a_managed_one(
    keep: Mkt, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    tmp_path.chmod(0o755)
    os.chown(tmp_path / "data", 12345, 12345)

    keep.ok("up", "keeper", "--volume", f"{tmp_path}/data:/srv/data/:owner=keeper")

    assert sorted(os.listdir(tmp_path / "data")) == ["digest", "ready"]
    assert (tmp_path / "data/digest").stat().st_uid == 12345
    assert os.listdir(keep.path / "keeper/volumes") == []
    keep.ok("destroy", "--force", "keeper")
    assert sorted(os.listdir(tmp_path / "data")) == ["digest", "ready"]


def test_nothing_of_a_volume_is_left_when_its_container_is_destroyed(keep: Mkt) -> None:
    keep.ok("up", "keeper")
    keep.ok("destroy", "--force", "keeper")

    assert not (keep.path / "keeper").exists()


@pytest.mark.parametrize("way", ["@FILE", "-", "env:VAR"])
def test_a_given_secret_is_used_once_and_found_nowhere(keep: Mkt, tmp_path: Path, way: str) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    source = way.replace("FILE", str(tmp_path / "secret")).replace("VAR", "CANARY")
    stdin, variables = (SECRET, {}) if way == "-" else ("", {"CANARY": SECRET})

    done = keep("up", "keeper", "--secret", f"password={source}", stdin=stdin, **variables)

    assert done.returncode == 0, done.stderr
    assert "password" not in done.stderr
    assert inside(keep, "keeper", "cut -d' ' -f1 /srv/data/digest") == DIGEST
    assert inside(keep, "keeper", "ls -A /var/lib/mktemplate/made") == ""
    assert SECRET not in done.stdout + done.stderr + keep.ok("info", "keeper", "--json")
    assert holders(SECRET, str(keep.path), "/run/mktemplate") == ""


def test_a_secret_that_was_not_given_is_made_inside_and_up_says_how_to_read_it(keep: Mkt) -> None:
    said = keep("up", "keeper", "one").stderr
    told = keep.json("up", "keeper", "two")["secrets"]["password"]
    command = next(line for line in said.split("\n") if "password: " in line).split("password: ")[1]

    made = [keep.ok(*line.split()[1:]) for line in (command, told)]

    assert made[0] != made[1]
    assert all(len(secret.strip()) == 24 and secret.strip().isalnum() for secret in made)
    digests = [inside(keep, name, "cut -d' ' -f1 /srv/data/digest") for name in ("one", "two")]
    assert digests == [hashlib.sha256(secret.encode()).hexdigest() for secret in made]
    forbidden = keep("exec", "--user", "keeper", "one", "--", "ls", "/var/lib/mktemplate/made")
    assert "Permission denied" in forbidden.stderr


def test_a_made_secret_stays_when_the_container_is_started_again(keep: Mkt) -> None:
    keep.ok("up", "keeper")
    files = "cat /var/lib/mktemplate/made/password /srv/data/digest"
    before = inside(keep, "keeper", files)

    keep.ok("restart", "keeper")

    assert inside(keep, "keeper", files) == before


def test_an_image_takes_a_secret_from_its_environment_and_the_service_does_not_see_it(
    keep: Mkt,
) -> None:
    keep.ok("up", "keeper", "--env", f"MKTEMPLATE_PASSWORD={SECRET}")

    assert inside(keep, "keeper", "cut -d' ' -f1 /srv/data/digest") == DIGEST
    environment = Path(f"/proc/{keep.json('info', 'keeper')['pid']}/environ").read_text()
    assert "PATH=" in environment
    assert SECRET not in environment


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--secret", "password=@/nonexistent"), "E_PARAM"),
        (("--secret", "password=env:NOT_THERE"), "E_PARAM"),
        (("--secret", "password=@/dev/null"), "E_PARAM"),
        (("--secret", "pasword=-"), "E_PARAM"),
        (("--set", "password=x"), "E_PARAM"),
    ],
    ids=" ".join,
)
def test_a_secret_that_cannot_be_meant_is_refused_before_anything_is_made(
    keep: Mkt, words: tuple[str, ...], code: str
) -> None:
    done = keep("create", "keeper", *words)

    assert (done.returncode, code in done.stderr) == (2, True), done.stderr
    assert keep.names() == []
