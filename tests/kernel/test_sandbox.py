"""The sandbox that the provisioner borrows, with real namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.errors import ContainerError
from runtime.sandbox import Finished, KernelSandbox

pytestmark = pytest.mark.root

ENVIRONMENT = {"PATH": "/bin"}


@dataclass(frozen=True)
class Root:
    upper: Path
    lowers: tuple[Path, ...] = ()
    work: Path | None = None


@pytest.fixture
def root(tiny: Path, tmp_path: Path) -> Root:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "upper").chmod(0o755)
    return Root(upper=tmp_path / "upper", lowers=(tiny,), work=tmp_path / "work")


def _begun(start: Callable[[], None], originals: Mapping[str, int]) -> tuple[bool, bytes]:
    start()
    return True, b"%d" % len(originals)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is around a program."""

    covers: Mapping[str, str] = field(default_factory=dict)
    first: Callable[[Callable[[], None], Mapping[str, int]], tuple[bool, bytes]] = _begun
    last: Callable[[], bytes] = bytes

    def before(self, start: Callable[[], None], originals: Mapping[str, int]) -> tuple[bool, bytes]:
        return self.first(start, originals)

    def after(self) -> bytes:
        return self.last()


def run(
    root: Root,
    script: str,
    timeout: float = 10,
    around: Scene | None = None,
) -> Finished:
    return KernelSandbox().run(
        root,
        ["/bin/sh", "-c", script],
        environment=ENVIRONMENT,
        timeout=timeout,
        around=around,
    )


def test_a_program_is_root_inside_and_sees_only_its_own_processes(root: Root) -> None:
    finished = run(
        root, "id -u; hostname; ls /proc | while read p; do case $p in [0-9]*) echo $p;; esac; done"
    )

    lines = finished.output.decode().split()
    assert finished.status == 0
    assert lines[:2] == ["0", "build"]
    assert len(lines[2:]) <= 4


def test_owners_on_disk_are_those_inside(root: Root) -> None:
    run(root, "touch /mine /web; chown 33:44 /web")

    assert os.stat(root.upper / "mine").st_uid == 0
    assert (os.stat(root.upper / "web").st_uid, os.stat(root.upper / "web").st_gid) == (33, 44)


def test_the_root_alone_is_written_to(tiny: Path, tmp_path: Path) -> None:
    upper = tmp_path / "alone"
    subprocess.run(["cp", "-a", str(tiny), str(upper)], check=True)

    assert run(Root(upper=upper), "touch /here").status == 0
    assert (upper / "here").exists()


def test_a_covered_file_shows_another_ones_content_and_keeps_its_own(root: Root) -> None:
    run(root, "echo own >/own; echo other >/other")

    finished = run(root, "cat /own; echo more >>/other", around=Scene(covers={"/own": "/other"}))

    assert finished.output == b"other\n"
    assert (root.upper / "own").read_bytes() == b"own\n"


def test_a_cover_is_not_laid_through_a_symlink(root: Root) -> None:
    run(root, "mkdir /real; echo own >/real/own; ln -s real /alias; echo other >/other")

    with pytest.raises(ContainerError, match="/alias/own"):
        run(root, "true", around=Scene(covers={"/alias/own": "/other"}))


def test_what_is_covered_can_be_read_and_its_cover_written_before_the_program_goes_on(
    root: Root,
) -> None:
    run(root, "echo own >/own")

    def first(start: Callable[[], None], originals: Mapping[str, int]) -> tuple[bool, bytes]:
        read = os.read(originals["/own"], 99)
        with open("/build/bin/shim", "wb") as shim:
            shim.write(b"shim\n")
        start()
        return True, read + b"%d" % originals["/absent"]

    covers = {"/own": "/build/bin/shim", "/absent": "/build/bin/other"}
    finished = run(
        root, "cat /own; ls /absent /build/bin", around=Scene(covers=covers, first=first)
    )

    assert finished.begun == b"own\n-1"
    assert b"shim\n" in finished.output
    assert b"other" not in finished.output.replace(b"/other", b"")
    assert (root.upper / "own").read_bytes() == b"own\n"


@pytest.mark.parametrize("folder", ["/build", "/build/bin"])
def test_a_cover_is_not_made_behind_a_symlink(root: Root, tmp_path: Path, folder: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run(root, f"echo own >/own; mkdir -p {os.path.dirname(folder)}; ln -s {outside} {folder}")

    with pytest.raises(ContainerError, match="/build/bin/shim"):
        run(root, "true", around=Scene(covers={"/own": "/build/bin/shim"}))

    assert list(outside.iterdir()) == []


def _after_it_waits(start: Callable[[], None], _: Mapping[str, int]) -> tuple[bool, bytes]:
    """Write what the program reads once it has been seen to have begun, and to wait."""
    start()
    while not os.path.exists("/begun"):
        time.sleep(0.001)
    with open("/written", "wb") as file:
        file.write(b"in time\n")
    return True, b"done"


def test_a_program_is_started_and_waits_for_what_comes_before_it(root: Root) -> None:
    finished = run(
        root, "touch /begun; read -r x; cat /written", around=Scene(first=_after_it_waits)
    )

    assert (finished.status, finished.output, finished.begun) == (0, b"in time\n", b"done")


def _no(start: Callable[[], None], _: Mapping[str, int]) -> tuple[bool, bytes]:
    start()
    return False, b"refused"


def test_a_program_does_not_go_on_where_what_comes_before_it_says_no(root: Root) -> None:
    finished = run(root, "read -r x; touch /made", around=Scene(first=_no, last=_remove_it))

    assert (finished.status, finished.begun, finished.answer) == (0, b"refused", b"")
    assert not (root.upper / "made").exists()


def _raised(start: Callable[[], None], _: Mapping[str, int]) -> tuple[bool, bytes]:
    start()
    raise ValueError("of its own")


def test_what_is_raised_before_a_program_goes_on_is_told_with_its_trace(root: Root) -> None:
    with pytest.raises(ContainerError, match="of its own"):
        run(root, "read -r x; touch /made", around=Scene(first=_raised))

    assert not (root.upper / "made").exists()


# Leaves a sleep running, which was a shell before.
_LEAVE = "sleep 1234 & while read n </proc/$!/comm; [ $n != sleep ]; do :; done; exit 0"


def _remove_it() -> bytes:
    os.unlink("/made")
    return b"gone"


def _fail_at_it() -> bytes:
    raise ValueError("of its own")


def test_what_comes_after_is_called_in_the_same_root(root: Root) -> None:
    finished = run(root, "echo said; touch /made /kept", around=Scene(last=_remove_it))

    assert (finished.status, finished.output, finished.answer) == (0, b"said\n", b"gone")
    assert sorted(os.listdir(root.upper)) == ["kept"]


@pytest.mark.parametrize(
    ("script", "status", "leftover"),
    [
        ("touch /made; exit 3", 3, ()),
        (f"touch /made; {_LEAVE}", 0, ("sleep",)),
    ],
)
def test_what_comes_after_is_not_called_after_a_failure_nor_beside_others(
    root: Root, script: str, status: int, leftover: tuple[str, ...]
) -> None:
    finished = run(root, script, around=Scene(last=_remove_it))

    assert (finished.status, finished.leftover, finished.answer) == (status, leftover, b"")
    assert (root.upper / "made").exists()


def test_what_comes_after_and_fails_is_an_error_of_ours(root: Root) -> None:
    with pytest.raises(ContainerError, match="ValueError: of its own"):
        run(root, "true", around=Scene(last=_fail_at_it))


def test_there_is_no_network_and_no_right_to_mount(root: Root) -> None:
    finished = run(
        root, "ls /sys; cat /proc/net/dev; mount -t tmpfs x /mnt; grep . /proc/self/status"
    )

    assert b"eth0" not in finished.output
    assert b"lo:" in finished.output
    assert (
        finished.output.count(b"permission denied") + finished.output.count(b"not permitted") >= 1
    )


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("cat /proc/self/status", "CapEff:\t00000000800400fb"),
        ("cat /proc/self/status", "CapBnd:\t00000000800400fb"),
        ("cat /proc/self/status", "NoNewPrivs:\t1"),
        ("cat /proc/self/status", "Seccomp:\t2"),
        ("cat /proc/self/status", "SigIgn:\t0000000000000000"),
        ("umask", "0022"),
        ("readlink /proc/self/fd/0", "/dev/null"),
        ("env", "PATH=/bin"),
    ],
)
def test_what_a_program_starts_with(root: Root, script: str, line: str) -> None:
    assert line in run(root, script).output.decode().split("\n")


def test_pid_1_of_ours_cannot_be_looked_into(root: Root) -> None:
    finished = run(root, "ls /proc/1/fd; cat /proc/1/environ; echo x >/proc/1/mem")

    assert finished.output.lower().count(b"permission denied") == 3


@pytest.mark.parametrize(
    ("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_status_is_the_programs(root: Root, script: str, status: int) -> None:
    assert run(root, script).status == status


def test_a_program_that_is_not_there_is_127(root: Root) -> None:
    finished = KernelSandbox().run(root, ["/nowhere"], environment=ENVIRONMENT, timeout=10)

    assert finished.status == 127
    assert b"No such file" in finished.output


def test_what_is_left_running_is_named_and_killed(root: Root) -> None:
    finished = run(root, _LEAVE)

    assert finished.leftover == ("sleep",)
    assert not _running("sleep 1234")


def test_a_program_that_hangs_is_killed_at_its_limit(root: Root) -> None:
    began = time.monotonic()

    finished = run(root, "sleep 1235 & sleep 1235", timeout=0.3)

    assert finished.timed_out
    assert time.monotonic() - began < 3
    assert not _running("sleep 1235")


def test_only_the_end_of_a_long_output_is_kept(root: Root) -> None:
    finished = run(root, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")

    assert len(finished.output) <= 64 << 10
    assert finished.output.endswith(b"line 19999\n")


def test_a_function_answers_from_inside(root: Root) -> None:
    def inside() -> bytes:
        os.mkdir("/made")
        return b" ".join(sorted(os.fsencode(name) for name in os.listdir("/")))

    answer = KernelSandbox().call(root, inside)

    assert b"made" in answer.split()
    assert b"home" not in answer.split()
    assert (root.upper / "made").is_dir()


def test_nothing_inside_waits_for_the_disk(root: Root) -> None:
    def sync() -> bytes:
        os.fsync(os.pipe()[0])  # of which the kernel says EINVAL
        return b"done"

    answer = KernelSandbox().call(root, sync)

    assert answer == b"done"


def test_a_function_has_the_callers_descriptors(root: Root, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"content")
    with open(tmp_path / "archive", "rb") as archive:
        answer = KernelSandbox().call(root, archive.read)

    assert answer == b"content"


def test_a_long_answer_arrives_whole(root: Root) -> None:
    assert KernelSandbox().call(root, lambda: b"x" * 3_000_000) == b"x" * 3_000_000


def test_an_exception_in_a_function_is_an_error_with_its_trace(root: Root) -> None:
    def inside() -> bytes:
        raise KeyError("inside")

    with pytest.raises(ContainerError, match="KeyError: 'inside'"):
        KernelSandbox().call(root, inside)


def test_a_layer_that_is_not_there_is_named(root: Root) -> None:
    lost = Root(upper=root.upper, lowers=(Path("/nowhere"),), work=root.work)

    with pytest.raises(ContainerError, match="E_MOUNT_SOURCE: /nowhere"):
        run(lost, "true")


def test_a_proc_that_is_a_symlink_is_refused(root: Root, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (root.upper / "proc").symlink_to(canary)

    with pytest.raises(
        ContainerError, match="E_ROOTFS_SYMLINK: proc: must be an ordinary directory"
    ):
        run(root, "true")
    assert list(canary.iterdir()) == []


def test_shared_memory_is_anybodys_as_on_a_host(root: Root) -> None:
    done = run(root, "stat -c '%a %U' /dev/shm")

    assert done.output.decode().split() == ["1777", "root"]


def test_nothing_is_left_mounted(root: Root) -> None:
    before = Path("/proc/self/mountinfo").read_text()

    run(root, "true")

    assert Path("/proc/self/mountinfo").read_text() == before


def test_everything_dies_with_the_caller(tiny: Path, root: Root) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.kernel.test_sandbox import Root, run;"
        "upper, lower, work = map(Path, sys.argv[1:]); print('up', flush=True);"
        "run(Root(upper, (lower,), work), 'sleep 1236 & sleep 1236', timeout=60)"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code, str(root.upper), str(tiny), str(root.work)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    _wait(lambda: _running("sleep 1236"))

    caller.send_signal(signal.SIGKILL)
    caller.communicate()

    _wait(lambda: not _running("sleep 1236"))


def _running(words: str) -> bool:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if line.rstrip(b"\0").split(b"\0")[-2:] == words.encode().split():
                return True
    return False


def _wait(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_a_function_can_be_called_beside_other_work(root: Root) -> None:
    sandbox = KernelSandbox()
    reading, writing = os.pipe()

    with sandbox.begin(root, lambda: os.read(reading, 9)) as answer:
        other = sandbox.run(root, ["/bin/true"], environment=ENVIRONMENT, timeout=10)
        os.write(writing, b"go")
        answered = answer()

    os.close(reading)
    os.close(writing)
    assert (other.status, answered) == (0, b"go")


def test_a_function_ends_with_the_block_that_does_not_wait_for_it(root: Root) -> None:
    reading, writing = os.pipe()

    with KernelSandbox().begin(root, lambda: os.read(reading, 9)):
        os.close(writing)  # the child has a copy, so its read never ends by itself

    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""  # nobody has the other end any more
    os.close(reading)
