"""A normal user's sandbox and containers: a user of a private /etc, whom newuidmap believes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

USER = 54321
FILES = {
    "passwd": f"mktuser:x:{USER}:{USER}::/:/bin/sh\n",
    "group": f"mktuser:x:{USER}:\n",
    "subuid": "mktuser:2000000:65536\n",
    "subgid": "mktuser:2000000:65536\n",
}
BECOME = """
for file in passwd group subuid subgid; do mount --bind "$1/$file" "/etc/$file"; done
export HOME="$1/home" XDG_RUNTIME_DIR="$1/run" PYTHONPATH="$1/code" PYTHONDONTWRITEBYTECODE=1
shift
exec setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=-all "$@"
"""
COMMON = """
import os, sys, tarfile
from pathlib import Path
from types import SimpleNamespace as Root
from runtime import bundle, enter, idmap
from runtime.bundle import Bundle, Record
from runtime.container import Container
from runtime.isolation import isolation
from runtime.sandbox import KernelSandbox
home = Path(os.environ["HOME"])
def unpack():
    archive = tarfile.open(fileobj=stream)
    archive.extractall("/", numeric_owner=True, filter="fully_trusted")
    os.chown("/etc/passwd", 33, 33)
    return b""
(home / "root").mkdir()
(home / "root").chmod(0o755)
stream = open(home.parent / "root.tar", "rb")
sandbox = KernelSandbox()
sandbox.call(Root(upper=home / "root", lowers=(), work=None), unpack)
"""

As = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def as_user(tiny: Path, needs: Callable[..., None]) -> Iterator[As]:
    """Return a function that runs Python code as a normal user with subordinate ids."""
    needs("newuidmap", "newgidmap", "setpriv", "unshare")
    place = Path(tempfile.mkdtemp(prefix="mktemplate-rootless-"))
    place.chmod(0o755)
    for name, line in FILES.items():
        ours = name.startswith("sub")  # the host's may be root's already, as `create` writes them
        before = "" if ours else Path("/etc", name).read_text()
        (place / name).write_text(before + line)
    for name in ("home", "run"):
        (place / name).mkdir(0o700)
        os.chown(place / name, USER, USER)
    for package in ("runtime", "valuetypes"):
        shutil.copytree(Path(__file__).parents[2] / package, place / "code" / package)
    subprocess.run(["tar", "-C", str(tiny), "-cf", str(place / "root.tar"), "."], check=True)

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("unshare", "-m", "--propagation", "private", "sh", "-ec", BECOME, "sh"),
                *(str(place), "/usr/bin/python3", "-c", COMMON + code),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            cwd="/",
        )

    yield run
    shutil.rmtree(place, ignore_errors=True)


def test_owners_are_the_users_and_its_subordinate_ids(as_user: As) -> None:
    done = as_user(
        "print(*(os.stat(home / 'root' / name).st_uid for name in ('bin', 'etc/passwd')))"
    )

    assert done.stdout.split() == [str(USER), "2000032"], done.stderr


CONTAINER = """
import signal, subprocess
path = home / "containers"
folder = path / "one"
for below in ("upper", "work"):
    (folder / below).mkdir(parents=True)
(folder / "upper").chmod(0o755)
ids = idmap.allocate(path, "one")
lines = [
    "lxc.uts.name = one",
    "lxc.init.cmd = /bin/sh -c 'id -u; trap \\"exit 6\\" TERM; while :; do sleep 0.1; done'",
    "lxc.signal.halt = SIGTERM",
    "lxc.mount.auto = proc:mixed sys:ro",
    "lxc.no_new_privs = 1",
    "lxc.cap.keep = chown setuid setgid",
    f"lxc.rootfs.path = overlay:{home}/root:{folder}/upper",
    *(f"{key} = {value}" for key, value in ids.lines),
]
(folder / "config").write_text("\\n".join(lines) + "\\n")
record = Record(name="one", template="t", distro="d", release="r", arch="a", created="c")
bundle.write(Bundle(path=folder, record=record))
container = Container(path, "one")
"""


def test_a_users_container_starts_is_entered_and_leaves_nothing(as_user: As) -> None:
    done = as_user(
        CONTAINER
        + """
container.start()
print(container.state(), flush=True)
print(enter.execute(container, ["sh", "-c", "id -u; stat -c %u /etc/passwd"]), flush=True)
container.stop()
print(container.exit_status, (folder / "log").read_text().strip())
container.start()
container.destroy(force=True)
print(os.listdir(path), os.listdir(path / ".store/trash"))
"""
    )

    assert done.stdout.split("\n")[:6] == [
        "RUNNING",
        "0",
        "33",
        "0",
        "6 0",
        "['.store'] []",
    ], done.stderr


def test_a_users_start_program_starts_it_once_and_again_after_its_end(as_user: As) -> None:
    done = as_user(
        CONTAINER
        + """
program = container.start_program()
def execute():
    done = subprocess.run([program.path, "detach"], stderr=subprocess.PIPE, text=True, env={})
    print(done.returncode, done.stderr.split("\\n")[0])
    sys.stdout.flush()
execute()
print(os.readlink(f"/proc/{container.run.monitor.pid}/exe"))
execute()
os.kill(container.run.monitor.pid, signal.SIGKILL)
container.wait("STOPPED", 60)
execute()
container.stop()
print(container.state(), container.start().pid > 0)
execute()
container.destroy(force=True)
"""
    )

    again = "mktemplate: error[E_RUNNING]: one: is running already"
    assert (
        done.stdout.split("\n")[:6]
        == [
            "0 ",
            "/memfd:mktemplate (deleted)",  # root inside has the rights of the user, who may write the file
            f"125 {again}",
            "0 ",
            "STOPPED True",
            f"125 {again}",
        ]
    ), done.stderr


def test_a_user_without_subordinate_ids_is_told_what_to_do(as_user: As) -> None:
    done = as_user(
        """
empty = home / "subuid"
empty.write_text("")
try:
    idmap.allocate(home, "one", (empty, empty))
except Exception as error:
    print(error.code, *error.hints)
"""
    )

    assert done.stdout.startswith("E_SUBUID_MISSING as root: usermod --add-subuids"), done.stderr


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("mktuser:2000000:1000", "E_SUBUID_SMALL", "only 1000 ids"),
        ("mktuser:2000000:65536\neve:2000100:1", "E_SUBUID_OVERLAP", "eve (2000100:1)"),
        ("mktuser:60000:65536", "E_SUBUID_OVERLAP", "nobody (65534:1)"),
        ("eve:100000:65536", "E_SUBUID_MISSING", "--add-subuids 165536-231071"),
    ],
    ids=["too few", "another's", "a user's own id", "none; the hint names what is free"],
)
def test_ranges_that_will_not_do_are_named(line: str, code: str, words: str, as_user: As) -> None:
    done = as_user(
        f"""
files = home / "subuid", home / "subgid"
for file in files:
    file.write_text({line + chr(10)!r})
try:
    idmap.of_user(files)
except Exception as error:
    print(error.code, error.detail, *error.hints)
"""
    )

    assert done.stdout.startswith(code), done.stderr
    assert words in done.stdout


def test_a_helper_that_may_not_map_is_named(as_user: As) -> None:
    done = as_user(
        """
import shutil
idle = home / "newuidmap"
shutil.copyfile("/usr/bin/newuidmap", idle)
idle.chmod(0o755)
for program in (str(idle), "/usr/bin/nothing"):
    try:
        idmap._check_helper(program)
    except Exception as error:
        print(error.code, error.detail, *error.hints)
"""
    )

    idle, absent = done.stdout.split("\n")[:2]
    assert idle.startswith("E_NEWUIDMAP is neither setuid"), done.stderr
    assert "chmod u+s /" in idle
    assert absent.startswith(
        "E_NEWUIDMAP is not installed as root: apt install uidmap or --single-id"
    )
