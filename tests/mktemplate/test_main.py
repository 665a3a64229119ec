"""The command as a process: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
START = "from mktemplate.__main__ import run; run()"


def command(*argv: str, cwd: Path | str = "/", **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-P", "-c", START, *argv],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": "/nonexistent"}
        | more,
        cwd=cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


def test_an_error_is_one_line_with_at_most_two_hints() -> None:
    done = command("create", "nginx", "web\nlxc.hook.start=/x")

    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert lines[0].startswith('mktemplate: error[E_NAME]: "web\\x0alxc.hook.start=/x": ')
    assert all(line.startswith("mktemplate: hint: ") for line in lines[1:])
    assert len(lines) <= 3
    assert done.stdout == b""


def test_with_json_the_error_object_is_on_stdout_and_the_text_on_stderr() -> None:
    done = command("--json", "show", "nosuch")

    error = json.loads(done.stdout)["error"]
    assert set(error) == {"code", "exit", "object", "detail", "path", "line", "hint"}
    assert (error["code"], error["exit"], done.returncode) == ("E_USAGE", 2, 2)
    assert done.stderr.startswith(b"mktemplate: error[E_USAGE]: ")


@pytest.mark.parametrize(
    "argv",
    [("templates",), ("distros",), ("show", "sshd"), ("render", "nginx"), ("list", "--path", "/x")],
    ids=" ".join,
)
def test_every_listing_is_one_json_document(argv: tuple[str, ...]) -> None:
    done = command(*argv, "--json")

    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert done.stdout.count(b"\n") == 1


def test_render_json_holds_the_texts() -> None:
    done = command("render", "sshd", "--distro", "debian", "--json")

    assert set(json.loads(done.stdout)) == {"packages", "tree", "fstab", "config", "files"}


def test_render_writes_its_texts_into_a_directory(tmp_path: Path) -> None:
    command("render", "nginx", "--distro", "debian", "-o", str(tmp_path / "out"))

    names = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert names == {"config", "fstab", "tree", "packages", "files"}
    assert (tmp_path / "out" / "packages").read_text() == "nginx\n"


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", START, "render", "sshd"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()

        assert running.wait(timeout=30) == 128 + signal.SIGPIPE
        assert running.stderr.read() == b""


def test_a_closed_standard_output_is_survived() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -P -c '{START}' help >&- 2>&-"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
    )

    assert done.returncode == 0


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-c", START, "help"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
            stdout=full,
            stderr=subprocess.PIPE,
        )

    assert done.returncode == 7
    assert b"error[E_NOSPACE]" in done.stderr


def test_the_bare_command_says_where_to_begin() -> None:
    done = command()

    assert done.returncode == 2
    assert b"hint: mktemplate help" in done.stderr


def test_the_script_works_from_a_checkout_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mkt").symlink_to(CHECKOUT / "scripts" / "mktemplate")

    done = subprocess.run([tmp_path / "mkt", "--version"], capture_output=True, cwd=tmp_path)

    assert done.stdout.startswith(b"mktemplate "), done.stderr


@pytest.mark.parametrize("argv", [("list",), ("stop", "x"), ("help",)], ids=" ".join)
def test_daily_verbs_import_no_heavy_module(argv: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config").write_text("")
    probe = (
        "import sys; from mktemplate.__main__ import main; main(sys.argv[1:]);"
        "sys.exit(bool({'jinja2', 'http.client', 'tqdm', 'debian', 'tomllib'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", probe, *argv, "--path", str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
    )

    assert done.returncode == 0
