"""The library as a program uses it: the same containers as the command's, in the same PATH."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest

import mktemplate
from mktemplate import sandbox
from tests.system.command import CHECKOUT, Mkt, until

pytestmark = pytest.mark.system


def test_a_container_lives_its_life_from_python_without_a_word_printed(
    mkt: Mkt, capfd: pytest.CaptureFixture[str]
) -> None:
    one = mktemplate.up("base", "one", distro="debian", path=mkt.path, memory="96M")

    done = one.exec(["sh", "-c", "cat; echo no >&2; id -u; exit 3"], input="yes ", user="daemon")
    one.freeze()
    frozen = one.state
    one.unfreeze()
    one.exec(["tee", "/root/file"], input=b"before\n").check_returncode()
    kept = one.snapshot("before")
    one.exec(["tee", "/root/file"], input=b"after\n").check_returncode()
    two = one.copy("two").start()
    one.stop()
    one.restore(kept.name)

    assert (done.returncode, done.stdout, done.stderr) == (3, "yes 1\n", "no\n")
    assert frozen == "FROZEN"
    assert one.start().wait("RUNNING", 30).exec(["cat", "/root/file"]).stdout == "before\n"
    assert two.exec(["sh", "-c", "hostname; cat /root/file"]).stdout == "two\nafter\n"
    assert set(one.ips).isdisjoint(two.ips)
    assert mktemplate.containers(mkt.path) == (one, two)
    seen = one.info()
    assert seen == mkt.json("info", "one") | {"usage": seen["usage"]}
    two.destroy(force=True)
    assert not two.exists
    assert one.rename("uno") == mktemplate.Container("uno", mkt.path) if one.stop() is None else 0
    assert capfd.readouterr() == ("", "")


def test_a_command_that_takes_too_long_is_killed(mkt: Mkt) -> None:
    one = mktemplate.up("base", "one", distro="debian", path=mkt.path)

    with pytest.raises(mktemplate.MktemplateError) as raised:
        one.exec(["sh", "-c", "exec sleep 4711"], timeout=0.3)

    assert raised.value.code == "E_LIMIT"
    seen = one.exec(["grep", "-l", "^sleep.4711", "-r", "/proc", "--include=cmdline", "-s"]).stdout
    assert seen == ""


def test_output_of_any_size_and_any_bytes_comes_back_whole(mkt: Mkt) -> None:
    one = mktemplate.up("base", "one", distro="debian", path=mkt.path)
    data = os.urandom(3_000_000)

    done = one.exec(["tee", "/dev/stderr"], input=data)

    assert done.stdout.encode("utf-8", "surrogateescape") == data
    assert done.stderr == done.stdout


def test_threads_make_and_use_containers_at_once_and_keep_no_descriptor(mkt: Mkt) -> None:
    said: list[str] = []

    def work(number: int) -> None:
        one = mktemplate.up("base", f"t{number}", distro="debian", path=mkt.path)
        said.extend(one.exec(["hostname"]).stdout.strip() for _ in range(5))

    work(0)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(said) == sorted([f"t{number}" for number in range(5)] * 5)


def test_the_callers_umask_does_not_reach_into_a_container(mkt: Mkt) -> None:
    modes = []
    for name, mask, packages in (("open", 0o000, "less"), ("closed", 0o077, "less,tree")):
        before = os.umask(mask)
        try:
            one = mktemplate.up("nginx", name, distro="debian", packages=packages, path=mkt.path)
        finally:
            os.umask(before)
        found = one.exec(["find", "/", "-xdev", "-printf", "%p %m %U:%G\\n"]).stdout
        modes.append(dict(line.split(" ", 1) for line in found.splitlines()))
    [first, second] = modes

    assert {path: mode for path, mode in second.items() if first.get(path, mode) != mode} == {}
    assert second["/usr/bin/tree"] == first["/usr/bin/less"] == "755 0:0"
    assert len(first.keys() & second.keys()) > 3000
    assert urlopen("http://{}:{}/".format(*one.address()), timeout=10).status == 200


def test_what_a_killed_program_had_is_gone_soon(mkt: Mkt) -> None:
    program = (
        "import os, mktemplate, sys\n"
        "with mktemplate.ephemeral('base', distro='debian', path=sys.argv[1]) as one:\n"
        "    print(one.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, mkt.path],
        env=mkt.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == -signal.SIGKILL
    assert until(lambda: mktemplate.containers(mkt.path) == ())
    assert not Path(f"/proc/{int(done.stdout)}").exists()


def test_a_sandbox_has_what_it_was_given_and_leaves_nothing(mkt: Mkt, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("given\n")

    done = sandbox.run(
        ["sh", "-c", "cat /mnt/data; cat /sys/class/net/*/operstate; touch /mnt/new"],
        volume=f"{tmp_path}:/mnt:ro", memory="64M", distro="debian", path=mkt.path,
    )  # fmt: skip
    with pytest.raises(mktemplate.MktemplateError) as raised:
        sandbox.run(["sleep", "60"], timeout=0.2, distro="debian", path=mkt.path)

    assert done.stdout.split() == ["given", "unknown"]
    assert done.returncode == 1
    assert "Read-only" in done.stderr
    assert raised.value.code == "E_LIMIT"
    assert mktemplate.containers(mkt.path) == ()


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ("web", "answers 200 nginx"),
        ("fleet", "one for all fleet3"),
        ("untrusted", "E_LIMIT: sh did not end in 2 s"),
    ],
)
def test_the_examples_do_what_they_say(mkt: Mkt, example: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "examples" / f"{example}.py"],
        env=mkt.environment | {"MKTEMPLATE_PATH": str(mkt.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert mktemplate.containers(mkt.path) == ()
