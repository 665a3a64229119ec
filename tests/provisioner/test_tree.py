"""The grammar of tree.j2: what each line means, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from provisioner import tree
from provisioner.errors import ProvisionError
from provisioner.tree import Adjust, Copy, Directory, File, Group, Link, Member, Node, Special, User
from tests.conftest import lacking


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("d /srv/a", Directory(path="/srv/a")),
        ("d /srv/a/ 1777 www-data adm -", Directory(path="/srv/a", mode=0o1777, user="www-data", group="adm")),
        ('d "/with space" 0755', Directory(path="/with space")),
        ("d /100%%", Directory(path="/100%")),
        ("f /a", File(path="/a")),
        ("f+ /a 0600 - - - one\\ntwo", File(path="/a", body=b"one\ntwo", mode=0o600, replace=True)),
        ("f /a - - - - \\x41\\101\\u00e9\\\\ 50%%", File(path="/a", body="AAé\\ 50%".encode())),
        ("f /a - - - - @files/motd", File(path="/a", body=b"%d\\n from the template")),
        ("f~ /a - - - - aGVsbG8=", File(path="/a", body=b"hello")),
        ("L /a - - - - ../b c", Link(path="/a", target="../b c")),
        ("L+ /a - - - - /b", Link(path="/a", target="/b", replace=True)),
        ("C /a - - - - /usr/share/a", Copy(path="/a", source="/usr/share/a")),
        ("c /a 0666 - - - 1:3", Special(path="/a", device=(1, 3), mode=0o666)),
        ("p /a 0600", Special(path="/a", mode=0o600)),
        ("z /a - redis -", Adjust(path="/a", user="redis")),
        ("z /a 0640 0 42", Adjust(path="/a", mode=0o640, user="0", group="42")),
        ("g redis", Group(name="redis")),
        ("g redis 700", Group(name="redis", gid=700)),
        ("u redis", User(name="redis")),
        ('u redis 700 "Redis, the server" /var/lib/redis /bin/sh',
         User(name="redis", uid=700, gecos="Redis, the server", home="/var/lib/redis", shell="/bin/sh")),
        ("m redis ssl-cert", Member(user="redis", group="ssl-cert")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_line_is_a_value(line: str, node: Node) -> None:
    parsed = tree.parse(f"# comment\n\n{line}\n", {"motd": b"%d\\n from the template"}, "tree.j2")

    assert parsed.nodes == (node,)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("d relative", "E_TEMPLATE_PATH"),
        ("d /etc/../x", "E_TEMPLATE_PATH"),
        ("d /home/%u", "E_TEMPLATE_PATH"),
        ("d /a\\x0ab", "E_TEMPLATE_SYNTAX"),
        ('d "/a\\x0ab"', "E_TEMPLATE_PATH"),
        ('d "/a\\x00b"', "E_TEMPLATE_SYNTAX"),
        ("f /", "E_TEMPLATE_PATH"),
        ("z /var/*", "E_TEMPLATE_PATH"),
        ("f /a - - - - @files/none", "E_TEMPLATE_PATH"),
        ("f /a - - - - 50%", "E_TEMPLATE_PATH"),
        ("f /a - - - - \\q", "E_TEMPLATE_SYNTAX"),
        ("f~ /a - - - - not base64!", "E_TEMPLATE_SYNTAX"),
        ("d /a 9999", "E_TEMPLATE_SYNTAX"),
        ("d /a ~0755", "E_TEMPLATE_SYNTAX"),
        ("d /a 0755 Root", "E_TEMPLATE_SYNTAX"),
        ("d /a 0755 70000", "E_TEMPLATE_SYNTAX"),
        ("d /a 0755 １", "E_TEMPLATE_SYNTAX"),
        ("d /a 0755 root root 10d", "E_TEMPLATE_SYNTAX"),
        ("d", "E_TEMPLATE_SYNTAX"),
        ('d "/a', "E_TEMPLATE_SYNTAX"),
        ("L /a", "E_TEMPLATE_SYNTAX"),
        ("C /a - - - - relative", "E_TEMPLATE_PATH"),
        ("c /a - - - - null", "E_TEMPLATE_SYNTAX"),
        ("x /tmp/a", "E_TEMPLATE_SYNTAX"),
        ("D /tmp/a", "E_TEMPLATE_SYNTAX"),
        ("d! /a", "E_TEMPLATE_SYNTAX"),
        ("u 1000", "E_TEMPLATE_SYNTAX"),
        ("u a 5432:5432", "E_TEMPLATE_SYNTAX"),
        ('u a - "a:b"', "E_TEMPLATE_SYNTAX"),
        ("u a - x / /bin/sh more", "E_TEMPLATE_SYNTAX"),
        ("m a", "E_TEMPLATE_SYNTAX"),
        ("r - 500-900", "E_TEMPLATE_SYNTAX"),
        ("f /a\nf /a", "E_TEMPLATE_SYNTAX"),
    ],
)
def test_what_is_no_line_is_refused_with_its_place(line: str, code: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        tree.parse(f"# first\n{line}", {}, "sshd/tree.j2")

    assert (refused.value.code, refused.value.path) == (code, "sshd/tree.j2")
    if "5432" not in line:
        assert refused.value.line == line.count("\n") + 2


EVERYTHING = (
    Group(name="redis", gid=700),
    User(name="redis", uid=700, gid=700, gecos='say "hi" 100%', home="/var/lib/re dis"),
    Member(user="redis", group="adm"),
    Directory(path="/a b", mode=0o2750, user="redis", group="700"),
    File(path="/f", body=b" @files/x \\ %\t\xff\n ", replace=True),
    File(path="/nul", body=b"a\0b", replace=True),
    File(path="/dash", body=b"-"),
    File(path="/empty"),
    Link(path="/l", target="/a b%", replace=True),
    Copy(path="/c", source="/usr/share/c"),
    Special(path="/n", device=(1, 3)),
    Special(path="/p"),
    Adjust(path="/z", mode=0o640),
)


def test_what_is_rendered_is_read_back_equal() -> None:
    whole = tree.Tree(nodes=EVERYTHING)

    again = tree.parse(tree.render(whole), {}, "rendered")

    assert again == whole
    assert again.digest == whole.digest


def test_a_changed_body_changes_the_digest() -> None:
    one = tree.parse("f /a - - - - @files/x", {"x": b"1"}, "t")
    other = tree.parse("f /a - - - - @files/x", {"x": b"2"}, "t")

    assert one.digest != other.digest


def test_what_lies_below_run_and_tmp_is_the_inits() -> None:
    whole = tree.parse("d /run/sshd\nd /tmp/x\nd /runner\nf /etc/a", {}, "t")

    assert [node.path for node in whole.volatile] == ["/run/sshd", "/tmp/x"]
    assert [node.path for node in whole.kept] == ["/runner", "/etc/a"]


def test_systemd_agrees_with_what_is_rendered(tmp_path: Path) -> None:
    for program in ("systemd-tmpfiles", "systemd-sysusers"):
        if shutil.which(program) is None:
            lacking(program)
    text = tree.render(tree.Tree(nodes=EVERYTHING))
    accounts = "".join(line for line in text.splitlines(True) if line[0] in "ugm")
    (tmp_path / "etc").mkdir()

    users = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "-"],
        input=accounts, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = subprocess.run(
        ["systemd-tmpfiles", "--dry-run", "--create", f"--root={tmp_path}", "-"],
        input="".join(line for line in text.splitlines(True) if line[0] not in "ugm"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "Failed" not in users.stderr
    assert (files.returncode, "Failed" in files.stderr) == (0, False), files.stderr
