"""The texts of every built-in template are kept as files, and those who read such texts take them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mktemplate.cli.parsing import parse
from mktemplate.making import asked
from mktemplate.template import library, texts
from mktemplate.verbs.texts import document
from provisioner import tree as trees
from tests.conftest import lacking

GOLDEN = Path(__file__).parent.parent / "golden"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvT0mJ7Yx2o0mJ1M9s5cT6aV3t3nqkq0q3m5s9Jx7kq somebody"
TEMPLATES = [
    name
    for name in library.built_in().names("")
    if name[:1].isalpha() and library.built_in().names(name)
]
CASES = [
    (template, release, mode)
    for template in TEMPLATES
    for release in ("trixie", "bookworm")
    for mode in ("provisioned", "shared-host")
    if (template, mode) != ("system", "shared-host")  # a system has packages of its own
]
IDS = ["-".join(case) for case in CASES]
_LOAD = """
import lxc, sys
for path in sys.argv[1:]:
    if not lxc.Container("golden", config_path="/nonexistent").load_config(path):
        print(path)
"""


def plan(template: str, release: str, mode: str) -> texts.Plan:
    argv = ["render", template, "--distro", "debian", "--release", release, "--arch", "amd64"]
    argv += ["--share-host"] if mode == "shared-host" else []
    found, facts = asked.understood(parse(argv))
    return texts.plan(found, replace(facts, keys=(KEY,)))


def texts_of(made: texts.Plan) -> dict[str, str]:
    """Return every text of a plan by the name under which it is kept."""
    told = document(made.rendered)
    files = told["files"]
    packages = told["packages"]
    assert isinstance(files, dict)
    assert isinstance(packages, list)
    return {
        "packages": "".join(f"{name}\n" for name in packages),
        **{name: str(told[name]) for name in ("tree", "fstab", "config")},
        **{f"files/{name}": body for name, body in files.items()},
    }


def folder(template: str, release: str, mode: str) -> Path:
    return GOLDEN / template / f"debian-{release}-{mode}"


@pytest.mark.parametrize(("template", "release", "mode"), CASES, ids=IDS)
def test_a_template_renders_to_what_is_kept(
    template: str, release: str, mode: str, request: pytest.FixtureRequest
) -> None:
    kept = folder(template, release, mode)
    rendered = texts_of(plan(template, release, mode))

    if request.config.getoption("--update-golden"):
        for name, text in rendered.items():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            (kept / name).write_text(text)
    found = {
        str(file.relative_to(kept)): file.read_text() for file in kept.rglob("*") if file.is_file()
    }
    assert rendered == found


def test_the_real_liblxc_loads_every_kept_configuration() -> None:
    if subprocess.run(["/usr/bin/python3", "-c", "import lxc"], capture_output=True).returncode:
        lacking("python3-lxc for /usr/bin/python3")
    configs = [str(folder(*case) / "config") for case in CASES]

    done = subprocess.run(
        ["/usr/bin/python3", "-c", _LOAD, *configs], capture_output=True, text=True
    )

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(("template", "release", "mode"), CASES, ids=IDS)
def test_no_kept_configuration_names_what_lxc_7_does_not_know(
    template: str, release: str, mode: str
) -> None:
    config = (folder(template, release, mode) / "config").read_text()

    assert "lxc.cgroup." not in config
    assert "lxc.environment.runtime" not in config


@pytest.mark.parametrize(("template", "release", "mode"), CASES, ids=IDS)
def test_what_renders_reads_back_to_the_same(template: str, release: str, mode: str) -> None:
    made = plan(template, release, mode)

    text = trees.render(made.tree)

    assert trees.parse(text, {}, "again") == made.tree


@pytest.mark.root
@pytest.mark.parametrize(
    "template", sorted({template for template, _, mode in CASES if mode == "shared-host"})
)
def test_systemd_takes_the_tree_of_a_shared_host_too(template: str, tmp_path: Path) -> None:
    """systemd-sysusers says 0 even after it failed, so it must also print no `Failed`."""
    for program in ("systemd-sysusers", "systemd-tmpfiles"):
        if not os.access(f"/usr/bin/{program}", os.X_OK):
            lacking(program)
    made = plan(template, "trixie", "shared-host")
    lines = trees.render(made.tree).split("\n")
    accounts = [line for line in lines if line[:2] in ("u ", "g ", "m ")]
    (tmp_path / "users.conf").write_text("\n".join(accounts) + "\n")
    (tmp_path / "tree.conf").write_text(
        "\n".join(line for line in lines if line not in accounts and line[:1] != "#") + "\n"
    )
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)

    users = subprocess.run(
        ["systemd-sysusers", f"--root={root}", tmp_path / "users.conf"],
        capture_output=True,
        text=True,
    )
    files = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={root}", tmp_path / "tree.conf"],
        capture_output=True, text=True,
    )  # fmt: skip

    assert (users.returncode, "Failed" in users.stderr) == (0, False), users.stderr
    assert files.returncode == 0, files.stderr
    init = "usr/lib" if made.spec.static else "etc"  # a static one has a /usr of its own
    assert (root / init / "mktemplate/init").stat().st_mode & 0o777 == 0o755
