"""Which AppArmor profile init and whoever joins it take on, and that the kernel's own parser takes ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtime import apparmor, launch, refuse
from runtime.config import parse
from runtime.errors import ConfigError
from runtime.program import Call, Program

NEEDED = "lxc.rootfs.path = /srv/root\nlxc.init.cmd = /sbin/init\n"


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand for a kernel that has AppArmor: most that build and test us have none."""
    said = tmp_path / "enabled"
    said.write_text("Y\n")
    monkeypatch.setattr(apparmor, "_ENABLED", said)
    monkeypatch.setattr("os.geteuid", lambda: 0)


def program(profile: str) -> Program:
    return launch.decide(
        parse(f"{NEEDED}lxc.apparmor.profile = {profile}\n"), launch.Host(name="c")
    )


def index(calls: list[Call], name: str, word: bytes = b"") -> int:
    return next(
        number
        for number, call in enumerate(calls)
        if call.name == name and (not word or any(word == argument for argument in call.args))
    )


@pytest.mark.usefixtures("enabled")
@pytest.mark.parametrize(
    ("said", "taken"), [("web", b"exec web"), ("generated", b"exec mktemplate")]
)
def test_init_takes_the_profile_on_when_it_executes(said: str, taken: bytes) -> None:
    calls = [call for call in program(said).init if isinstance(call, Call)]

    opened = index(calls, "openat", b"/proc/self/attr/apparmor/exec\0")
    asked = index(calls, "write", taken)
    assert opened < index(calls, "pivot_root"), "the host's /proc, not the container's"
    assert index(calls, "prctl") < asked < index(calls, "execve")
    assert all(call.name in {"close_range", "execve"} for call in calls[asked + 1 :])


@pytest.mark.usefixtures("enabled")
@pytest.mark.parametrize("said", ["", "unchanged", "unconfined"])
def test_there_are_words_for_no_profile(said: str) -> None:
    assert not any(
        isinstance(call, Call) and call.result == "apparmor" for call in program(said).init
    )
    assert not program(said).notes


def test_a_kernel_without_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apparmor, "_ENABLED", tmp_path / "absent")

    assert program("web").notes == (
        "lxc.apparmor.profile: not applied: this kernel has no AppArmor",
    )


@pytest.mark.usefixtures("enabled")
def test_a_user_loads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert "only root may load" in program("generated").notes[0]
    assert not program("web").notes


@pytest.mark.usefixtures("enabled")
def test_nothing_is_added_to_ours() -> None:
    config = parse(
        f"{NEEDED}lxc.apparmor.profile = generated\nlxc.apparmor.raw = deny /secret rwklx,\n"
    )
    with pytest.raises(ConfigError) as caught:
        refuse.refuse(config)

    assert caught.value.subject == "lxc.apparmor.raw"


@pytest.mark.skipif(not shutil.which("apparmor_parser"), reason="no apparmor_parser")
def test_the_profile_compiles(tmp_path: Path) -> None:
    text = tmp_path / "profile"
    text.write_text(apparmor.RULES)

    done = subprocess.run(
        ["apparmor_parser", "--skip-kernel-load", "--skip-cache", text],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
