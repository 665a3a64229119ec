"""What a slim container leaves out, with dpkg itself as the second opinion."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner import slim
from provisioner.sandbox import Root
from provisioner.tar import DIRECTORY, FILE, SYMLINK
from provisioner.unpack import Layout, unpack
from runtime.idmap import single_range
from runtime.sandbox import KernelSandbox
from tests.archive import Deb, build
from tests.hostile import cached_bytes

MEMBERS = {
    "usr/bin/tool": "#!/bin/sh\n",
    "usr/lib/locale/C.utf8/LC_CTYPE": "x",
    "usr/lib/locale/de_DE.utf8/LC_CTYPE": "x",
    "usr/share/doc/tool/copyright": "free",
    "usr/share/doc/tool/README": "read me",
    "usr/share/doc/tool/examples/one/copyright": "free",
    "usr/share/doc/tool/examples/two": "x",
    "usr/share/info/tool.info": "x",
    "usr/share/locale/de/LC_MESSAGES/tool.mo": "x",
    "usr/share/locale/locale.alias": "x",
    "usr/share/lintian/overrides/tool": "x",
    "usr/share/man/man1/tool.1.gz": "x",
    "usr/share/tool/data": "x",
}


@pytest.mark.parametrize(
    ("name", "kind", "gone"),
    [
        (b"usr/share/doc/a/changelog.gz", FILE, True),
        (b"usr/share/doc/a/copyright", FILE, False),
        (b"usr/share/doc/a", DIRECTORY, False),
        (b"usr/share/doc/a", SYMLINK, False),
        (b"usr/share/man/de", DIRECTORY, True),
        (b"usr/share/man", DIRECTORY, False),
        (b"usr/share/mandatory", FILE, False),
        (b"usr/share/doc/a\nb", FILE, True),
        (b"usr/share/doc/\xff", FILE, True),
        (b"etc/usr/share/man/x", FILE, False),
        (b"usr/lib/locale/C.utf8", DIRECTORY, False),
    ],
)
def test_the_last_rule_that_matches_decides(name: bytes, kind: bytes, gone: bool) -> None:
    assert slim.leaves_out(name, kind) is gone


@pytest.mark.root
def test_dpkg_with_the_same_rules_unpacks_the_same(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    deb = build(Deb(name="tool", files=MEMBERS), tmp_path)
    ours, theirs, cache = (tmp_path / name for name in ("ours", "theirs", "cache"))
    for folder in (ours, theirs, cache):
        folder.mkdir()
    package = replace(cached_bytes("tool", deb.read_bytes(), cache), version="1.0")

    unpack(
        [package], Root(upper=ours), cache=cache, layout=Layout(exclude=slim.leaves_out),
        sandbox=KernelSandbox(single_range(1_000_000)),
    )  # fmt: skip

    (theirs / "var/lib/dpkg").mkdir(parents=True)
    (theirs / "var/lib/dpkg/status").touch()
    words = [f"--{line}" for line in slim.text().splitlines() if line[0] != "#"]
    subprocess.run(
        ["dpkg", f"--root={theirs}", "--force-all", *words, "--unpack", deb],
        check=True, capture_output=True, timeout=60, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    listing = "var/lib/dpkg/info/tool.list"
    assert _tree(ours) == _tree(theirs)
    assert (ours / listing).read_text() == (theirs / listing).read_text()


def _tree(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in (top / "usr").rglob("*")}
