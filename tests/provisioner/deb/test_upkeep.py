"""What the shims answer is what the programs answer; all else is handed on to them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provisioner.deb import upkeep
from tests.conftest import lacking

HELPER = Path("/usr/bin/dpkg-maintscript-helper")
PREINST, POSTINST = ("preinst", "install"), ("postinst", "configure", "")
NOWHERE = "/nonexistent/conf"

NEEDLESS = [
    (script, command.split())
    for script in (PREINST, POSTINST)
    for command in (
        f"rm_conffile {NOWHERE} 6.5.0-3~ --",
        f"rm_conffile {NOWHERE} 1.2 pkg --",
        f"rm_conffile {NOWHERE} 2:4.0.4-7~ --",
        f"rm_conffile {NOWHERE} 1.2 pkg:amd64 --",
        f"rm_conffile {NOWHERE} --",
        f"mv_conffile {NOWHERE} /nonexistent/new 0.9~rc1-1+b2 --",
        f"symlink_to_dir {NOWHERE} ../old 1.0 --",
        f"symlink_to_dir {NOWHERE} /old --",
        f"dir_to_symlink {NOWHERE} ../new 1.0-1 pkg --",
    )
]
HANDED_ON = [
    (("preinst", "install", "0.9"), f"rm_conffile {NOWHERE} 1.2 --"),
    (("preinst", "upgrade", "0.9"), f"rm_conffile {NOWHERE} 1.2 --"),
    (("preinst", "upgrade"), f"rm_conffile {NOWHERE} 1.2 --"),
    (("postinst", "configure", "0.9"), f"mv_conffile {NOWHERE} /b 1.2 --"),
    (("postinst", "triggered", ""), f"mv_conffile {NOWHERE} /b 1.2 --"),
    (("postrm", "purge"), f"rm_conffile {NOWHERE} 1.2 --"),
    (("prerm", "remove"), f"rm_conffile {NOWHERE} 1.2 --"),
    (PREINST, "supports rm_conffile"),
    (PREINST, "rm_conffile relative 1.2 --"),
    (PREINST, f"rm_conffile {NOWHERE}/ 1.2 --"),
    (PREINST, f"rm_conffile {NOWHERE} 12:1.2 --"),
    (PREINST, f"rm_conffile {NOWHERE} 1:1:2 --"),
    (PREINST, f"rm_conffile {NOWHERE} 1:a --"),
    (PREINST, f"rm_conffile {NOWHERE} 1: --"),
    (PREINST, f"rm_conffile {NOWHERE} a.2 --"),
    (PREINST, f"rm_conffile {NOWHERE} 1.2- --"),
    (PREINST, f"rm_conffile {NOWHERE} 1_2 --"),
    (PREINST, f"rm_conffile {NOWHERE} 1.2 pkg more --"),
    (PREINST, f"rm_conffile {NOWHERE} 1.2"),
    (PREINST, f"mv_conffile {NOWHERE} relative 1.2 --"),
    (PREINST, f"symlink_to_dir {NOWHERE} -- --"),
    (PREINST, "--version"),
]


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """Return the shim, made to print what it would hand on."""
    path = tmp_path / "dpkg-maintscript-helper"
    path.write_bytes(upkeep._HELPER.replace(b"exec /usr/bin/dpkg-maintscript-helper", b"echo on"))
    path.chmod(0o755)
    return path


def ask(
    program: Path, script: tuple[str, ...], words: list[str], **more: str
) -> subprocess.CompletedProcess[bytes]:
    name, *arguments = script
    return subprocess.run(
        ["/bin/sh", program, *words, *arguments],
        env={"PATH": os.environ["PATH"], "DPKG_MAINTSCRIPT_PACKAGE": "pkg", "DPKG_MAINTSCRIPT_NAME": name, **more},
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("script", "words"), NEEDLESS, ids=str)
def test_the_shim_ends_where_the_helper_does_nothing(
    shim: Path, script: tuple[str, ...], words: list[str]
) -> None:
    if not HELPER.exists():
        lacking("dpkg")
    theirs = ask(HELPER, script, words)
    ours = ask(shim, script, words)

    assert (theirs.returncode, theirs.stdout, theirs.stderr) == (0, b"", b"")
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, b"", b"")


@pytest.mark.parametrize(("script", "command"), HANDED_ON, ids=str)
def test_the_shim_hands_on_all_else_as_it_is(
    shim: Path, script: tuple[str, ...], command: str
) -> None:
    ours = ask(shim, script, command.split())

    assert ours.stdout.decode() == " ".join(["on", command, *script[1:]]) + "\n"


def test_the_shim_hands_on_what_lacks_a_variable_or_has_another_root(shim: Path) -> None:
    script, words = NEEDLESS[0]

    for more in ({"DPKG_ROOT": "/srv"}, {"DPKG_DEBUG": "7"}, {"DPKG_MAINTSCRIPT_PACKAGE": ""}):
        assert ask(shim, script, words, **more).stdout.startswith(b"on ")


def test_the_shim_hands_on_where_a_backup_lies(shim: Path, tmp_path: Path) -> None:
    (tmp_path / "conf.dpkg-backup").symlink_to("nowhere")

    words = ["symlink_to_dir", str(tmp_path / "conf"), "/old", "1.0", "--"]

    assert ask(shim, POSTINST, words).stdout.startswith(b"on ")


INVOKE = Path("/usr/sbin/invoke-rc.d")
ASKED = [
    "nginx start", "nginx stop", "nginx status", "nginx upgrade", "--quiet nginx status", "--quiet nginx start",
    "--skip-systemd-native nginx restart", "--quiet --skip-systemd-native nginx force-reload", "plain start",
    "plain status", "--quiet plain status", "absent start", "absent status", "absent@1.x reload",
]  # fmt: skip
NOT_ASKED = [
    "", "nginx", "--help", "--query nginx start", "--force nginx start", "--try-anyway nginx start",
    "--disclose-deny nginx start", "--no-fallback nginx start", "nginx --quiet start", "nginx start more", "--quiet",
    "nginx --help", "--quiet nginx --force start", "a/b start",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with our policy, an init script that can be executed and one that cannot."""
    for name, mode in (("nginx", 0o755), ("plain", 0o644)):
        script = tmp_path / "etc/init.d" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text("#!/bin/sh\necho started\n")
        script.chmod(mode)
    policy = tmp_path / "usr/sbin/policy-rc.d"
    policy.parent.mkdir(parents=True)
    policy.write_bytes(upkeep.POLICY)
    policy.chmod(0o755)
    return tmp_path


def within(text: bytes, root: Path) -> Path:
    """Return a program of `text` that finds what it looks at below `root`."""
    program = root / "usr/sbin/invoke-rc.d"
    for folder in (b"/etc/init.d/", b"/usr/sbin/", b"/run/", b"/sbin/runlevel"):
        text = text.replace(b" " + folder, b" %b%b" % (bytes(root), folder))
        text = text.replace(b"=" + folder, b"=%b%b" % (bytes(root), folder))
        text = text.replace(b'"' + folder, b'"%b%b' % (bytes(root), folder))
        text = text.replace(b"<" + folder, b"<%b%b" % (bytes(root), folder))
        text = text.replace(b"$DPKG_ROOT" + folder, b"%b%b" % (bytes(root), folder))
    program.write_bytes(text)
    return program


def invoked(text: bytes, root: Path, words: str) -> tuple[int, bytes, bytes]:
    done = ask(within(text, root), ("postinst",), words.split())
    return done.returncode, done.stdout, done.stderr.replace(bytes(root), b"")


SHORT = upkeep._INVOKE.replace(b"exec /usr/sbin/invoke-rc.d", b"echo on")


@pytest.mark.parametrize("words", ASKED)
def test_a_service_is_not_started_in_the_words_of_invoke_rc_d(root: Path, words: str) -> None:
    if not INVOKE.exists():
        lacking("init-system-helpers")
    theirs = invoked(INVOKE.read_bytes(), root, words)

    assert invoked(SHORT, root, words) == theirs
    assert theirs[0] == (4 if words.endswith("status") else 0)


@pytest.mark.parametrize("words", NOT_ASKED)
def test_what_invoke_rc_d_must_judge_is_handed_on_to_it(root: Path, words: str) -> None:
    assert invoked(SHORT, root, words)[1].decode() == " ".join(["on", *words.split()]) + "\n"


@pytest.mark.parametrize(
    "other",
    ["run/systemd/system/", "run/openrc/softlevel", "sbin/runlevel", "usr/sbin/policy-rc.d"],
)
def test_where_something_could_start_invoke_rc_d_is_asked(root: Path, other: str) -> None:
    path = root / other
    path.parent.mkdir(parents=True, exist_ok=True)
    if other.endswith("/"):
        path.mkdir()
    else:
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(0o755)

    assert invoked(SHORT, root, "nginx start")[1] == b"on nginx start\n"
