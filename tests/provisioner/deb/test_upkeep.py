"""What the shim answers is what dpkg-maintscript-helper answers; all else is handed on to it."""

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
    path.write_bytes(upkeep._SHIM.replace(b"exec /usr/bin/dpkg-maintscript-helper", b"echo on"))
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
