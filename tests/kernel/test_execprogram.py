"""A command run by an exec program is the one that Python would run; what it cannot do it leaves to Python."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import enter, execprogram, startfile
from runtime.container import Container
from runtime.kernel.libc import MACHINE
from tests.kernel.test_standalone import neutral

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(MACHINE != "x86_64", reason="this machine lacks an x86-64 processor"),
]

Make = Callable[..., Container]
CHECKOUT = Path(__file__).resolve().parents[2]
IN_PYTHON = """
import sys
from runtime import enter
from runtime.container import Container
sys.exit(enter.execute(Container(sys.argv[1], sys.argv[2]), sys.argv[3:]))
"""
WAITS = "/bin/sh -c 'trap \"exit 7\" TERM; while :; do sleep 0.1; done'"
LOOKS = """
cat /proc/self/status /proc/self/limits /proc/self/mountinfo /proc/self/cgroup /proc/self/uid_map
id; env; pwd; umask; hostname; ls -l --time-style=+ /proc/self/fd
"""


def running(make: Make, *lines: str) -> Container:
    container = make("one", WAITS, *lines)
    container.start()
    execprogram.keep(container)
    return container


def argv_of(container: Container, script: Path | str, *words: str) -> list[str]:
    kind = "/" if "/" in words[0] else "-"
    program = str(container.directory / "exec")
    return [program, kind, str(script), "--in-python", "exec", container.name, "--", *words]


def run(
    container: Container, script: Path | str, *words: str, **more: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # what `more` may be is its affair
        argv_of(container, script, *words),
        capture_output=True, text=True, timeout=60, env={"HERE": "yes"},
        **{"stdin": subprocess.DEVNULL, **more},
    )  # fmt: skip


def test_from_inside_both_look_the_same(make: Make, script: Path) -> None:
    container = running(make, "lxc.prlimit.nofile = 900:1000", "lxc.environment = WORD=a b")
    by_program = run(container, script, "sh", "-c", LOOKS)
    python = subprocess.run(
        [sys.executable, "-P", "-c", IN_PYTHON, container.path, container.name, "sh", "-c", LOOKS],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip

    assert by_program.stderr == python.stderr == ""
    first, second = (without_numbers(done.stdout) for done in (by_program, python))
    assert first == second
    assert "WORD=a b" in first
    assert "NoNewPrivs:\t1" in first


def without_numbers(text: str) -> list[str]:
    """Return lines without the numbers of processes, which grow."""
    text = re.sub(r"(?m)^(NS)?(P|T|PP|t|p|s)g?id:.*$", "", text)
    return neutral(re.sub(r"/proc/\d+/", "/proc/N/", text))


def test_its_status_is_the_commands(make: Make, script: Path) -> None:
    container = running(make)

    assert run(container, script, "sh", "-c", "exit 7").returncode == 7
    assert run(container, script, "/bin/sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert run(container, script, "cat", input="said\n", stdin=None).stdout == "said\n"


@pytest.mark.parametrize(
    "words", [("nothere",), ("/etc/passwd",), ("/no/such", "a b")], ids=lambda words: words[0]
)
def test_what_cannot_be_executed_is_left_to_python(
    words: tuple[str, ...], make: Make, script: Path
) -> None:
    done = run(running(make), script, *words)

    asked = " ".join(("--in-python", "exec", "one", "--", *words))
    assert done.returncode == 42
    assert (done.stdout, done.stderr) == (f"fell back: {asked}, HERE=yes\n", "")


def stop(container: Container) -> None:
    container.stop(0)


def freeze(container: Container) -> None:
    container.freeze()


def change_the_config(container: Container) -> None:
    with open(container.directory / "config", "a") as file:
        file.write("lxc.environment = A=b\n")


def change_passwd(container: Container) -> None:
    with open(f"/proc/{container.pid}/root/etc/passwd", "a") as file:
        file.write("new:x:7:7::/:/bin/sh\n")


def link_passwd(container: Container) -> None:
    assert enter.execute(container, ["ln", "-sf", "/nowhere", "/etc/passwd"]) == 0


@pytest.mark.parametrize(
    "happens",
    [stop, freeze, change_the_config, change_passwd, link_passwd],
    ids=lambda f: f.__name__,
)
def test_where_it_is_stale_it_runs_nothing(
    happens: Callable[[Container], None], make: Make, script: Path
) -> None:
    container = running(make)
    happens(container)

    assert run(container, script, "touch", "/tmp/ran").returncode == 42

    if container.state() == "FROZEN":
        container.unfreeze()
    assert not (container.directory / "upper/tmp/ran").exists()


def test_another_init_is_found_after_a_new_start(make: Make, script: Path) -> None:
    container = running(make)
    container.stop(0)
    container.start()

    done = run(container, script, "readlink", "/proc/self/ns/pid")

    assert done.stdout.strip() == os.readlink(f"/proc/{container.pid}/ns/pid")


def test_a_folder_of_the_hosts_is_never_a_stream(make: Make, script: Path) -> None:
    container = running(make)
    folder = os.open("/", os.O_RDONLY)
    try:
        done = run(container, script, "true", stdin=folder)
    finally:
        os.close(folder)

    assert done.returncode == 42


def test_nothing_that_its_caller_has_open_goes_in(make: Make, script: Path) -> None:
    container = running(make)
    with open("/etc/hostname") as file:
        done = run(container, script, "ls", "/proc/self/fd", pass_fds=(file.fileno(),))

    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is that of ls


def test_its_signals_are_the_commands(make: Make, script: Path) -> None:
    container = running(make)
    words = ("sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen(argv_of(container, script, *words), stdout=subprocess.PIPE) as begun:
        assert begun.stdout is not None
        begun.stdout.readline()
        begun.send_signal(signal.SIGUSR1)
        assert begun.wait(30) == 9


def test_without_a_user_namespace_it_is_pythons(make: Make) -> None:
    container = make("plain", WAITS, userns=False)
    container.start()
    execprogram.keep(container)

    assert not (container.directory / "exec").exists()


def test_it_is_kept_as_long_as_it_is_current(make: Make) -> None:
    container = running(make)
    path = container.directory / "exec"
    before = path.stat().st_ino
    execprogram.keep(container)
    assert path.stat().st_ino == before
    change_the_config(container)
    assert startfile.current(path) is None

    execprogram.keep(container)

    assert path.stat().st_ino != before


def test_the_command_reaches_it_without_python(make: Make) -> None:
    container = running(make)
    seen = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=execve", CHECKOUT / "scripts/mktemplate", "exec", "one", "--", "true"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={"MKTEMPLATE_PATH": str(container.path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    assert seen.returncode == 0
    assert "python" not in seen.stderr.replace("--in-python", "")
    assert f'execve("{container.directory}/exec"' in seen.stderr
