"""mktemplate.lxc beside the real python3-lxc: names, arguments, and what everything answers where nothing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lacking

SURFACE = Path(__file__).with_name("surface.py")
REAL = Path("/usr/lib/python3/dist-packages/lxc/__init__.py")
# What ours has more: of keys that only a newer or an older liblxc lists, and of a nic's.
MORE = {
    "keys": {"lxc.namespace.share"},
    "keys of lxc.net.0": {
        *("l2proxy", "veth.mode", "veth.n_rxqueues", "veth.n_txqueues", "veth.vlan.tagged.id"),
    },
}
# What liblxc answers by accident or of its own installation; each with why ours does not.
OTHERWISE = {
    **{
        f"unset lxc.cgroup.dir{more}": "'(null)' is printf's, not an answer"
        for more in ("", ".monitor", ".monitor.pivot", ".container", ".container.inner")
    },
    "unset lxc.rootfs.mount": "a folder of liblxc's",
    "get_config_item('lxc.uts.name')": "a failed clone() left an empty configuration behind",
    "keys": "",
    "keys of lxc.net.0": "",
    "then dir(c.network[0])": "",
}
if os.geteuid():
    OTHERWISE["too long a name"] = "a user's liblxc puts a lock that it cannot make elsewhere"


def surface(python: str, module: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-P", SURFACE, module, folder],
        capture_output=True, text=True, timeout=60, cwd=SURFACE.parents[3],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(SURFACE.parents[3])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.replace(str(folder), "FOLDER")))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    if not REAL.exists():
        lacking("python3-lxc")
    real = surface("/usr/bin/python3", "lxc", tmp_path_factory.mktemp("real"))
    return real, surface(sys.executable, "mktemplate.lxc", tmp_path_factory.mktemp("ours"))


def test_it_has_the_names_and_arguments_of_python3_lxc(
    both: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    real, ours = both

    assert ours["module"] == real["module"]
    assert ours["constants"] == real["constants"]
    assert ours["container"] == real["container"]
    assert {key: ours[key] for key in real if key.startswith("arguments")} == {
        key: value for key, value in real.items() if key.startswith("arguments")
    }


def test_it_answers_as_python3_lxc_does(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = both
    asked = [key for key in real if key not in OTHERWISE]

    assert {key: ours[key] for key in asked} == {key: real[key] for key in asked}
    assert len(asked) > 200


@pytest.mark.parametrize("question", MORE)
def test_it_knows_every_key_that_liblxc_lists(
    both: tuple[dict[str, Any], dict[str, Any]], question: str
) -> None:
    real, ours = both

    assert set(ours[question]) - set(real[question]) <= MORE[question]
    assert set(real[question]) <= set(ours[question])
