"""template.toml, the template library and the Jinja sandbox (B-12 to B-18, B-27 to B-30, T-61, T-62)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mktemplate import asked, library, spec, texts
from mktemplate.cli import parse
from mktemplate.errors import CommandError, Several

FACTS = 'summary = "a test"\ndistros = ["debian"]\n'


def folder(tmp_path: Path, **files: str) -> Path:
    """Make a template `mine` that is whole but for `files` (dots as `__`)."""
    made = tmp_path / "mine"
    (made / "files").mkdir(parents=True)
    whole = {
        "template__toml": FACTS,
        "tree__j2": '{% extends "_distro/debian.tree.j2" %}\n',
        "config__j2": '{% extends "_distro/debian.config.j2" %}\n',
        **files,
    }
    for name, text in whole.items():
        (made / name.replace("__", ".")).write_text(text)
    return made


def service(line: str) -> str:
    """Return a config.j2 that adds `line` to the common part."""
    block = "{% block service %}\n" + line + "\n{% endblock %}"
    return '{% extends "_distro/debian.config.j2" %}' + block


def plan(tmp_path: Path, *more: str) -> texts.Plan:
    request = parse(
        ["render", "mine", "--template-path", str(tmp_path), "--distro", "debian", *more]
    )
    return texts.plan(*asked.understood(request))


def test_a_users_template_may_extend_a_built_in_one(tmp_path: Path) -> None:
    folder(tmp_path, config__j2=service("lxc.cap.drop = kill"))

    assert "kill" in plan(tmp_path).config.cap_drop


def test_every_problem_of_template_toml_is_reported_at_once_with_its_line() -> None:
    text = 'summary = 3\nprofle = "service"\n[options.port]\ntype = "prt"\n[ready]\nport = 99999\n'

    with pytest.raises(Several) as raised:
        spec.parse("mine", text, "mine/template.toml", origin="user", trusted=False)

    where = {
        (failure.subject, failure.detail.split(":")[0])
        for failure in raised.value.failures
        if isinstance(failure, CommandError)
    }
    assert where >= {
        ("mine/template.toml:1", "summary"),
        ("mine/template.toml:2", "profle"),
        ("mine/template.toml:4", "options.port.type"),
        ("mine/template.toml:6", "ready.port"),
    }


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{% if x %}", "E_TEMPLATE_SYNTAX"),
        ("{{ undefined_var }}", "E_TEMPLATE_UNDEFINED"),
        ("{{ ''.__class__.__mro__ }}", "E_TEMPLATE_SANDBOX"),
        ("{{ name|attr('__class__') }}", "E_TEMPLATE_SANDBOX"),
        ("{{ '%s'|format(name) }}", "E_TEMPLATE_SANDBOX"),
        ("{{ '{0}'.format(name) }}", "E_TEMPLATE_SANDBOX"),
        ("{{ '%s' % name }}", "E_TEMPLATE_SANDBOX"),
        ("{{ keys.append(1) }}", "E_TEMPLATE_SANDBOX"),
        ("{{ cycler.__init__ }}", "E_TEMPLATE_SANDBOX"),
        ("{% for i in range(1000000000) %}x{% endfor %}", "E_TEMPLATE_LIMIT"),
        ("{{ 'a'*999999999 }}", "E_TEMPLATE_LIMIT"),
        ("{{ 9**999999999 }}", "E_TEMPLATE_LIMIT"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "E_TEMPLATE_LIMIT"),
        ("{% include '../../../../etc/shadow' %}", "E_TEMPLATE_PATH"),
        ("{% include '/etc/shadow' %}", "E_TEMPLATE_PATH"),
        ("{% include 'no.such.file' %}", "E_TEMPLATE_PATH"),
        ("{{ 1 + 'a' }}", "E_TEMPLATE_SYNTAX"),
        ("{{ [][5] + 1 }}", "E_TEMPLATE_UNDEFINED"),
        ("{{ 1 // 0 }}", "E_TEMPLATE_SYNTAX"),
    ],
)  # fmt: skip
def test_what_a_template_may_not_do_is_an_error_of_the_contract(
    tmp_path: Path, line: str, code: str
) -> None:
    folder(tmp_path, config__j2=f"# first line\n{line}\n")

    with pytest.raises(CommandError) as raised:
        plan(tmp_path)

    assert raised.value.code == code
    assert raised.value.line in (2, 3, None)


def test_a_link_among_the_files_is_refused(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "files" / "site.j2").symlink_to("/etc/hostname")

    with pytest.raises(CommandError, match=r"E_TEMPLATE_PATH: mine/files/site\.j2: is a symlink"):
        plan(tmp_path)


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ("f+ /../../etc/cron.d/x 0644 root root - x", "E_TEMPLATE_PATH"),
        ("d run/x 0755 root root - -", "E_TEMPLATE_PATH"),
        ("Q /var/x 0755 root root - -", "E_TEMPLATE_SYNTAX"),
        ("u bob 100:100 - - -", "E_TEMPLATE_SYNTAX"),
    ],
)
def test_a_tree_line_that_leaves_the_grammar_is_refused(
    tmp_path: Path, tree: str, code: str
) -> None:
    folder(tmp_path, tree__j2=f"{tree}\n")

    with pytest.raises(Exception, match=code):
        plan(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "lxc.hook.pre-start = /x",
        "lxc.include = /etc/lxc/default.conf",
        "lxc.apparmor.profile = unconfined",
        "lxc.idmap = u 0 0 4294967295",
        "lxc.seccomp.profile = /x",
        "lxc.net.0.type = none",
        "lxc.no_new_privs = 0",
        "lxc.cap.drop =",
        "lxc.autodev = 0",
        "lxc.cap.keep = sys_admin",
    ],
)
def test_a_template_may_not_loosen_its_container(tmp_path: Path, line: str) -> None:
    folder(tmp_path, config__j2=service(line))

    with pytest.raises(CommandError) as raised:
        plan(tmp_path)

    assert raised.value.code in (
        "E_CONFIG_GRANT",
        "E_CONFIG_VALUE",
    )  # keep and drop exclude each other


def test_a_template_may_not_leave_out_what_confines_it(tmp_path: Path) -> None:
    folder(tmp_path, config__j2="lxc.uts.name = mine\n")

    with pytest.raises(CommandError, match="may not be left out by a template"):
        plan(tmp_path)


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    folder(tmp_path, config__j2=service("lxc.cap.dorp = kill"))

    with pytest.raises(CommandError, match=r"did you mean lxc\.cap\.drop"):
        plan(tmp_path)


def test_no_template_bears_the_name_of_a_verb(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="E_NAME"):
        library.from_directory(str(tmp_path / "upgrade"), "user")


def test_every_built_in_template_is_found_and_works_without_options() -> None:
    names = library.names("", {"HOME": "/nonexistent"})

    assert {"base", "nginx", "sshd"} <= set(names)


def test_rendering_is_pure() -> None:
    request = parse(["render", "nginx", "--distro", "debian", "--arch", "amd64"])

    first, second = (texts.plan(*asked.understood(request)).rendered for _ in range(2))
    assert first == second


def test_backslash_n_in_a_value_adds_no_key() -> None:
    plain = parse(["render", "nginx", "--distro", "debian", "--env", "MOTD=ab"])
    tricky = parse(["render", "nginx", "--distro", "debian", "--env", r"MOTD=a\nlxc.hook.start=/x"])

    counts = {texts.plan(*asked.understood(r)).rendered.config.count("\nlxc.") for r in (plain, tricky)}  # fmt: skip
    assert len(counts) == 1


@pytest.mark.parametrize(
    "loop",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    ],
    ids=["time", "memory"],
)
def test_a_template_of_somebody_elses_cannot_use_up_the_host(tmp_path: Path, loop: str) -> None:
    folder(tmp_path, config__j2=loop)

    with pytest.raises(CommandError, match="E_TEMPLATE_LIMIT"):
        plan(tmp_path)
