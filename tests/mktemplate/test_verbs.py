"""Verbs that need no container to run: check, config, list, logs, prune, doctor, up on what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mktemplate.__main__ import main
from runtime import bundle
from runtime.bundle import Bundle, Record

CONFIG = "lxc.uts.name = web\nlxc.cap.drop = sys_admin\nlxc.cap.drop = sys_boot\n"
RECORD = Record(
    name="web",
    template="nginx",
    distro="debian",
    release="trixie",
    arch="amd64",
    created="2026-11-24T07:00:00Z",
    layers=("a" * 64,),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with one stopped container, `web`."""
    place = tmp_path / "web"
    place.mkdir()
    (place / "config").write_text(CONFIG)
    (place / "fstab").write_text("# nothing\n")
    bundle.write(Bundle(path=place, record=RECORD))
    return tmp_path


def run(path: Path, *argv: str) -> int:
    return main(["--path", str(path), *argv])


def test_list_tells_of_every_container(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "list", "--json") == 0

    [row] = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"], row["template"]) == ("web", "STOPPED", "nginx")
    assert row["exit_status"] is None


def test_a_damaged_container_does_not_hide_the_others(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path / "bad").mkdir()
    (path / "bad" / "config").write_text("")
    (path / "bad" / "state.json").write_text('{"version": 1, "name": ')

    assert run(path, "list", "--json") == 0

    told = capsys.readouterr()
    assert [row["name"] for row in json.loads(told.out)] == ["web"]
    assert "error[E_CORRUPT]: bad" in told.err


def test_info_tells_the_recorded_facts(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "info", "web", "--json") == 0

    value = json.loads(capsys.readouterr().out)
    assert value["config"] == CONFIG
    assert {"mounts", "layers", "packages", "isolation", "limits", "usage"} <= set(value)


def test_config_reads_a_key_and_changes_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "config", "web", "get", "lxc.cap.drop") == 0
    assert capsys.readouterr().out == "sys_admin\nsys_boot\n"

    assert run(path, "config", "web", "set", "lxc.cap.drop", "sys_time") == 0

    assert (path / "web" / "config").read_text() == "lxc.uts.name = web\nlxc.cap.drop = sys_time\n"


def test_config_unset_takes_every_line_of_a_key(path: Path) -> None:
    assert run(path, "config", "web", "unset", "lxc.cap.drop") == 0

    assert (path / "web" / "config").read_text() == "lxc.uts.name = web\n"


def test_config_reads_a_line_with_those_before_it(path: Path) -> None:
    for key, value in (("lxc.net.0.type", "vlan"), ("lxc.net.0.vlan.id", "7")):
        assert run(path, "config", "web", "set", key, value) == 0

    assert (path / "web" / "config").read_text().endswith("type = vlan\nlxc.net.0.vlan.id = 7\n")
    assert run(path, "config", "web", "unset", "lxc.net.0.vlan.id") == 0
    assert (path / "web" / "config").read_text().endswith("lxc.net.0.type = vlan\n")


@pytest.mark.parametrize(
    ("key", "value"),
    [("lxc.cap.dorp", "x"), ("lxc.uts.name", "a\nlxc.hook.start = /x"), ("lxc.idmap", "u 0")],
)
def test_config_writes_nothing_that_would_not_load(path: Path, key: str, value: str) -> None:
    assert run(path, "config", "web", "set", key, value) == 2

    assert (path / "web" / "config").read_text() == CONFIG


def test_logs_prints_the_last_lines(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (path / "web" / "log").write_bytes(b"one\ntwo\nthree\n")

    assert run(path, "logs", "web", "-n", "2") == 0

    assert capfd.readouterr().out == "two\nthree\n"


@pytest.mark.parametrize(
    "argv",
    [("start",), ("stop",), ("destroy",), ("info",), ("logs",), ("wait",), ("shell",), ("ssh",)],
    ids=" ".join,
)
def test_a_container_that_does_not_exist_is_not_found(
    path: Path, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(path, *argv, "nosuch")

    assert status == (125 if argv[0] == "shell" else 8)
    assert "error[E_NOTFOUND]: nosuch" in capsys.readouterr().err


def test_verbs_with_many_names_try_all_and_report_each(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(path, "stop", "one", "web", "two", "--json") == 8

    told = capsys.readouterr()
    errors = [line.split(": ") for line in told.err.splitlines() if "error" in line]
    assert [words[2] for words in errors] == ["one", "web", "two"]
    assert json.loads(told.out)["error"]["object"] == "one"


def test_prune_says_what_it_would_free(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = path / ".store" / "cache" / "sha256" / "aa"
    archive.mkdir(parents=True)
    (archive / ("aa" + "0" * 62)).write_bytes(b"x" * 1000)

    assert run(path, "prune", "--dry-run", "--json") == 0

    freed = json.loads(capsys.readouterr().out)
    assert (freed["downloads"], freed["dry_run"]) == (1, True)
    assert (archive / ("aa" + "0" * 62)).exists()


def test_check_proves_a_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "mine"
    made.mkdir()
    (made / "template.toml").write_text('summary = "a test"\ndistros = ["debian"]\n')
    (made / "tree.j2").write_text('{% extends "_distro/debian.tree.j2" %}\n')
    (made / "config.j2").write_text('{% extends "_distro/debian.config.j2" %}\n')

    assert run(tmp_path, "check", str(made)) == 0
    (made / "tree.j2").write_text("# a comment\nd relative 0755 root root - -\n")
    assert run(tmp_path, "check", str(made)) == 2

    assert "mine/tree.j2:2: error[E_TEMPLATE_PATH]" in capsys.readouterr().out


def test_a_file_that_check_cannot_read_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path, "check", str(tmp_path / "nosuch")) == 2


def test_a_taken_name_is_refused_before_anything_is_fetched(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(path, "create", "nginx", "web", "--distro", "debian") == 8

    assert "error[E_EXISTS]: web: already exists (created 2026-11-24" in capsys.readouterr().err
    assert sorted(entry.name for entry in path.iterdir()) == ["web"]


@pytest.mark.root
def test_doctor_tries_and_says_what_mends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "doctor", "--json")

    value = json.loads(capsys.readouterr().out)
    names = {row["name"] for row in value["checks"]}
    assert {"root", "user namespaces", "keyrings", "/dev/net/tun"} <= names
    assert all(row["mend"] for row in value["checks"] if not row["ok"])
