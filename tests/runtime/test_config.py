"""The configuration's syntax and values, and the verdict of the real liblxc beside ours."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import check, config
from runtime.errors import ConfigError
from runtime.keydocs import page

PROBES = json.loads(Path(__file__).with_name("liblxc_probes.json").read_text())
ORACLE = """
import json, os, sys, tempfile
import lxc
folder = tempfile.mkdtemp()
answers = []
for number, text in enumerate(json.load(sys.stdin)):
    path = os.path.join(folder, "config")
    with open(path, "w") as file:
        file.write(text)
    container = lxc.Container(f"x{number}", config_path=folder)
    container.clear_config()
    answers.append(bool(container.load_config(path)))
print(json.dumps(answers))
"""
LXC_PYTHON = "/usr/bin/python3"


def verdicts(texts: list[str]) -> list[bool]:
    """Return whether the real liblxc loads each of `texts`."""
    answer = subprocess.run(
        [LXC_PYTHON, "-c", ORACLE],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [bool(word) for word in json.loads(answer.stdout.strip().split("\n")[-1])]


@pytest.fixture(scope="module")
def liblxc() -> Callable[[list[str]], list[bool]]:
    try:
        subprocess.run(
            [LXC_PYTHON, "-c", "import lxc"], check=True, capture_output=True, timeout=20
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lacks python3-lxc")
    return verdicts


def loads(text: str) -> bool:
    """Whether we say that liblxc 6 loads `text`."""
    lines, problems = config.read(text, "config")
    expanded, more = config.expand(lines)
    _, bad = config.examine(expanded)
    newer = (
        found for line in expanded for found in check._of_key(line) if found.severity == "error"
    )
    return all(problem.loads for problem in (*problems, *more, *bad)) and not any(newer)


def test_our_verdict_is_liblxcs_for_every_kind_of_value(
    liblxc: Callable[[list[str]], list[bool]],
) -> None:
    texts = [f"{probe}\n" for probe in PROBES]

    theirs = liblxc(texts)

    assert [text for text, wanted in zip(texts, theirs, strict=True) if loads(text) != wanted] == []


def test_our_verdict_is_liblxcs_for_its_own_configurations(
    liblxc: Callable[[list[str]], list[bool]],
) -> None:
    files = sorted(Path("/usr/share/lxc/config").glob("*.conf"))
    texts = [f"lxc.include = {file}\n" for file in files]

    theirs = liblxc(texts)

    assert [
        str(file)
        for file, wanted in zip(files, theirs, strict=True)
        if loads(f"lxc.include = {file}\n") != wanted
    ] == []


def test_the_last_line_of_a_scalar_counts_and_lists_add_up() -> None:
    text = "lxc.uts.name = a\nlxc.uts.name = b\nlxc.cap.drop = chown kill\nlxc.cap.drop = fowner\n"

    got = config.parse(text)

    assert got.hostname == "b"
    assert got.cap_drop == ("chown", "kill", "fowner")


def test_an_empty_value_clears() -> None:
    text = "lxc.cap.drop = chown\nlxc.cap.drop =\nlxc.cgroup2.pids.max = 4\nlxc.cgroup2.pids.max =\nlxc.autodev =\n"

    got = config.parse(text)

    assert (got.cap_drop, got.cgroup2, got.autodev) == ((), (), False)


def test_every_problem_is_told_at_once_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse("lxc.cap.dorp = sys_admin\nlxc.cap.drop = SYS_ADMINN\n", "config")

    assert (caught.value.code, caught.value.subject) == ("E_CONFIG_KEY", "config:1")
    assert caught.value.detail == 'unknown key "lxc.cap.dorp" (did you mean lxc.cap.drop?)'
    assert [(one.code, one.line, one.detail) for one in caught.value.also] == [
        ("E_CAP", 2, "'SYS_ADMINN': unknown capability")
    ]


@pytest.mark.parametrize("byte", ["\0", "\r"], ids=["NUL", "CR"])
def test_a_byte_that_liblxc_mistakes_is_refused(byte: str) -> None:
    with pytest.raises(ConfigError, match="control byte"):
        config.parse(f"lxc.uts.name = a{byte}b\n")


def test_folders_are_included_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.conf").write_text("lxc.uts.name = second\n")
    (tmp_path / "a.conf").write_text("lxc.uts.name = first\n")
    (tmp_path / "c.txt").write_text("nonsense\n")

    assert config.parse(f"lxc.include = {tmp_path}\n").hostname == "second"


@pytest.mark.parametrize(
    "value", ["plain", '"quoted"', "a'b", "'", "tab\tinside", " lead"], ids=repr
)
def test_a_rendered_value_is_read_back(value: str) -> None:
    text = config.render([("lxc.uts.name", value)])

    [line], _ = config.read(text, "config")
    assert line.value == value


@pytest.mark.parametrize("value", ["a\nlxc.hook.start = /x", "a\rb", "a\0b"], ids=repr)
def test_a_value_never_becomes_a_second_line(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.render([("lxc.uts.name", value)])

    assert caught.value.code == "E_CONFIG_ROUNDTRIP"


@pytest.mark.parametrize(
    "line",
    ["lxc.hook.pre-start = /x", "lxc.include = /etc", "lxc.apparmor.profile = unconfined", "lxc.net.0.type = none",
     "lxc.idmap = u 0 0 4294967295", "lxc.no_new_privs = 0", "lxc.cap.drop =", "lxc.tty.max = 5"],
)  # fmt: skip
def test_a_template_may_not_write(line: str) -> None:
    lines, _ = config.read(line, "config")

    with pytest.raises(ConfigError) as caught:
        config.check_grants(lines)

    assert caught.value.code == "E_CONFIG_GRANT"


def test_a_nic_knows_its_own_keys_after_its_type() -> None:
    keys = ("type = veth", "veth.mode = router", "ipv4.address = 10.1.2.3", "flags = down")
    text = "".join(f"lxc.net.0.{key}\n" for key in keys)

    [nic] = config.parse(text).nics

    assert (nic.veth_mode, nic.ipv4[0].prefix, nic.up) == ("router", 8, True)


def test_check_names_what_lxc_takes_for_comments_and_what_seven_refuses(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(
        "lcx.uts.name = a\nlxc.cgroup.memory.limit_in_bytes = 1\nlxc.seccomp.profile = /nowhere\n"
    )

    found = [(one.severity, one.line) for one in check.check_config(file)]

    assert found == [("warning", 1), ("warning", 2), ("error", 3)]


def test_the_page_of_keys_is_current() -> None:
    stored = Path(__file__).parents[2] / "docs" / "lxc-keys.md"

    assert stored.read_text() == page()
