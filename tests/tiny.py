"""The smallest distribution that is a real one: one Essential package with what dpkg needs to configure, one service.

A cold create of it takes a fraction of a second, so that it can be killed a thousand times. The programs are the
host's own, with the libraries that ld.so(8) says they load.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.archive import Deb, Key, Served, Suite, build, pack, publish, serve
from tests.family import architecture

PROGRAMS = (
    "cat", "chmod", "chown", "dash", "diff", "dpkg", "dpkg-deb", "dpkg-divert", "dpkg-query", "dpkg-trigger",
    "kill", "ln", "mkdir", "mv", "rm", "sed", "seq", "setsid", "sleep", "tar", "touch", "yes",
)  # fmt: skip
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
GROUP = "root:x:0:\nadm:x:4:\nshadow:x:42:\nnogroup:x:65534:\n"
CONTROL = Deb(name="tiny", arch=architecture(), essential=True).control()
HELLO = Deb(
    name="hello",
    files={"usr/share/hello/greeting": "hello\n" * 2000, "etc/hello.conf": "polite\n"},
    scripts={
        "preinst": "#!/bin/sh\nset -e\nmkdir -p /var/lib/hello\n",
        "postinst": "#!/bin/sh\nset -e\ntouch /var/lib/hello/configured\nchown 33:33 /var/lib/hello\n",
    },
    fields={"Depends": "tiny"},
)
OTHER = Deb(name="other", files={"usr/share/other": "other\n"}, fields={"Depends": "tiny"})
TEMPLATE = {
    "template.toml": (
        'summary = "tiny"\ndistros = ["deb"]\nprofile = "service"\ncommand = []\n'
        '[packages]\ndeb = ["hello"]\n'
    ),
    "config.j2": '{% extends "_distro/" ~ distro.name ~ ".config.j2" %}\n',
    "tree.j2": '{% extends "_distro/" ~ distro.name ~ ".tree.j2" %}\n',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """The archive, served, and the words with which the command makes a container of it."""

    served: Served
    key: Key
    templates: Path

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options of `create`."""
        return (
            "--distro", "kali", "--mirror", self.served.url, "--keyring", str(self.key.keyring),
            "--template-path", str(self.templates),
        )  # fmt: skip

    def create(self, name: str = "own", *more: str) -> tuple[str, ...]:
        """Return the words that create `name`."""
        return ("create", "tiny", name, *self.options, *more)

    def release(self, *debs: Deb | Path) -> None:
        """Publish the suite anew, with `debs` beside the Essential package and the service."""
        publish_tiny(self.served.root, self.key, *debs)


def _libraries(program: Path) -> set[Path]:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=20).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", told)}


def _essential(folder: Path) -> Path:
    """Make the Essential package; return its path."""
    tree = folder / "tree"
    found = {name: Path(shutil.which(name) or "") for name in PROGRAMS}
    for name, path in found.items():
        _place(tree / "usr/bin" / name, path)
        for library in _libraries(path):
            folders = [part for part in library.parent.parts[1:] if part != "usr"]
            _place(tree.joinpath("usr", *folders, library.name), library)
    _place(tree / "usr/sbin/ldconfig", Path("/sbin/ldconfig"))
    (tree / "usr/bin/sh").symlink_to("dash")
    for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP), ("DEBIAN/control", CONTROL)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    for name in ("root", "tmp", "run", "var/log", "var/tmp", "dev", "proc", "sys"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    target = folder / f"tiny_1.0_{architecture()}.deb"
    for path in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    (tree / "tmp").chmod(0o1777)
    pack(tree, target, "gzip")
    shutil.rmtree(tree)
    return target


def _place(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.resolve(), target)
    target.chmod(0o755)


def publish_tiny(root: Path, key: Key, *debs: Deb | Path) -> None:
    """Publish the suite below `root`; the Essential package is made once."""
    made = root / "made"
    made.mkdir(exist_ok=True)
    essential = made / f"tiny_1.0_{architecture()}.deb"
    if not essential.exists():
        _essential(made)
    built = [deb if isinstance(deb, Path) else build(deb, made) for deb in (HELLO, OTHER, *debs)]
    suite = Suite(
        name="kali-rolling", origin="Kali", label="Kali", arch=architecture(),
        debs={"main": (essential, *built)},
    )  # fmt: skip
    publish(root, suite, key)


def write_template(folder: Path) -> Path:
    """Write the template `tiny` below `folder`, which is what --template-path takes."""
    place = folder / "tiny"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in TEMPLATE.items():
        (place / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def tiny_archive(
    tmp_path_factory: pytest.TempPathFactory, archive_key: Key, needs: Callable[..., None]
) -> Iterator[Tiny]:
    """Return the tiny distribution, served."""
    needs("ldd", *PROGRAMS)
    root = tmp_path_factory.mktemp("tiny")
    root.chmod(0o755)
    publish_tiny(root, archive_key)
    with serve(root) as served:
        yield Tiny(served=served, key=archive_key, templates=write_template(root / "templates"))
