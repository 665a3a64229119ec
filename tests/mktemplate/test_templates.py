"""template.toml, the template library and the Jinja sandbox (B-12 to B-18, B-27 to B-30, T-61, T-62)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mktemplate.cli.parsing import parse
from mktemplate.errors import CommandError, Several
from mktemplate.making import asked, given
from mktemplate.template import library, sharehost, spec, texts
from runtime import config as configs

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

    assert "kill" in configs.parse(plan(tmp_path).rendered.config, "config").cap_drop


@pytest.mark.parametrize("origin", ["own", "a stranger's"])
def test_a_built_in_one_that_has_a_file_from_another_may_be_extended_by_name(
    tmp_path: Path, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`valkey` has no tree.j2: it is that of `redis`."""
    folder(
        tmp_path,
        template__toml='extends = "valkey"\n',
        tree__j2='{% extends "valkey/tree.j2" %}\n'
        "{% block service %}{{ super() }}f /etc/own 0644 root root - yes\n{% endblock %}\n",
    )
    if origin == "own":
        monkeypatch.setattr(
            "mktemplate.template.library.places", lambda *_: ((str(tmp_path), "/etc"),)
        )

    tree = plan(tmp_path).rendered.tree

    assert "/etc/valkey/valkey.conf" in tree
    assert "/etc/own" in tree


def test_every_problem_of_template_toml_is_reported_at_once_with_its_line() -> None:
    text = 'summary = 3\nprofle = "service"\n[options.port]\ntype = "prt"\n[ready]\nport = 99999\n'
    text += 'send = "\\u0100"\n'

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
        ("mine/template.toml:7", "ready.send"),
    }


KEEPS = """\
command = ["{{ init_folder }}/serve", "--port", "{{ options.port }}"]
service_user = "web"
keep = ["/etc/web/id_*"]

[options.port]
type = "port"
default = 80

[options.password]
type = "secret"

[options.token]
type = "secret"
made = false

[[volume]]
name = "data"
path = "/var/lib/web"

[[first_start]]
run = ["/usr/bin/web", "set up", "{{ distro.release }}"]
unless = "/var/lib/web/{{ distro.release }}"
user = "web"
secret = "password"

[[first_start]]
run = ["/usr/bin/web", "enrol"]
secret = "token"
"""


def test_what_a_container_executes_is_filled_in_and_stays_one_word_each(tmp_path: Path) -> None:
    folder(tmp_path, template__toml=FACTS + KEEPS)

    init = plan(tmp_path, "--release", "trixie", "--set", "port=8080").rendered.files["init"]

    lines = [line.strip() for line in init.decode().split("\n")]
    step = next(line for line in lines if "set up" in line)
    assert step.startswith("if [ ! -e /var/lib/web/trixie ] || [ -s $secrets/password ]; then (")
    assert step.endswith("/usr/bin/web 'set up' trixie) <\"$(secret password)\"; fi")
    assert '/usr/bin/web enrol <"$(given token)"' in lines
    assert lines[-2].startswith("HOME=~web USER=web; export HOME USER; exec setpriv --reuid web ")
    assert lines[-2].endswith(" /usr/lib/mktemplate/reaper /usr/lib/mktemplate/serve --port 8080")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[[volume]]\nname = "A"\npath = "/data"', 4, "name"),
        ('[[volume]]\nname = "a"\npath = "/run/data"', 5, "path"),
        ('[[volume]]\nname = "a"\npath = "/srv/../etc"', 5, "path"),
        ('[[volume]]\nname = "a"\npath = "/a"\nmode = "rwx"', 6, "mode"),
        ('[[volume]]\nname = "a"\npath = "/a"\nowner = "1000"', 6, "owner"),
        ('[[volume]]\nname = "a"\npath = "/a"\nsize = "1G"', 6, "unknown key"),
        (
            '[[volume]]\nname = "a"\npath = "/a"\n[[volume]]\nname = "b"\npath = "/a"',
            8,
            "another one's",
        ),
        ('[volume]\nname = "a"', 3, r"must be written as \[\[volume\]\]"),
        ('[[device]]\npath = "/etc/passwd"', 4, "below /dev"),
        ('[[device]]\npath = "/dev/kvm"\noptional = "yes"', 5, "true or false"),
        ('keep = ["etc/id"]', 3, "no absolute path"),
        ('[preseed]\n"/var/x" = ["a"]', 4, "below /etc"),
        ('[preseed]\n"/etc/../x" = ["a"]', 4, "below /etc"),
        ('[preseed]\n"/etc/x" = "a"', 4, "list of strings"),
        ('service_user = "Web Server"', 3, "no user's name"),
        ('[[first_start]]\nrun = ["/a"]\n[[first_start]]\nrun = ["b"]', 6, "absolute path"),
        ('[[first_start]]\nrun = ["/a"]\nsecret = "port"', 5, "no secret"),
        ('[[first_start]]\nrun = ["/a"]\nuser = "0"', 5, "no user's name"),
        ('[options.key]\ntype = "secret"\npattern = "("', 3, "pattern"),
        ('[options.key]\ntype = "secret"\ndefault = "x"', 3, "is a secret"),
    ],
)
def test_what_a_template_says_of_its_data_is_checked_to_the_line(
    text: str, line: int, words: str
) -> None:
    with pytest.raises(CommandError, match=words) as raised:
        spec.parse("mine", FACTS + text, "mine/template.toml", origin="user", trusted=False)

    assert (raised.value.code, raised.value.line) == ("E_TEMPLATE_SYNTAX", line)


@pytest.mark.parametrize("optional", [True, False], ids=["optional", "needed"])
def test_a_template_that_is_not_trusted_gets_no_device_without_a_grant(
    optional: bool,
) -> None:
    toml = f'{FACTS}[[device]]\npath = "/dev/null"\noptional = {str(optional).lower()}\n'
    mine = spec.parse("mine", toml, "mine/template.toml", origin="user", trusted=False)
    granted = parse(["create", "mine", "--grant", "device:/dev/null"]).build

    assert [device.path for device in given.devices(mine, granted)] == ["/dev/null"]
    if optional:
        assert given.devices(mine, parse(["create", "mine"]).build) == ()


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
        "lxc.rootfs.path = dir:/",
        "lxc.rootfs.options = suid",
        "lxc.net.0.type = veth",
        "lxc.mount.entry =",
        "lxc.prlimit.nofile = unlimited",
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


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("/ mnt none bind,create=dir 0 0", "E_FSTAB_SOURCE"),
        ("/srv/mktemplate/a mnt none bind,create=dir 0 0", "E_FSTAB_SOURCE"),
        ("/run/docker.sock s none bind,create=file 0 0", "E_FSTAB_SOURCE"),
        ("/dev/sda1 mnt squashfs ro,create=dir 0 0", "E_FSTAB_OPTION"),
        ("proc mnt proc rw,create=dir 0 0", "E_FSTAB_OPTION"),
        ("tmpfs proc/sys tmpfs rw 0 0", "E_FSTAB_TARGET"),
        ("tmpfs ../../etc tmpfs rw 0 0", "E_FSTAB_TARGET"),
    ],
)
def test_what_a_template_mounts_by_its_configuration_keeps_to_the_rules_of_fstab(
    tmp_path: Path, line: str, code: str
) -> None:
    folder(tmp_path, config__j2=service(f"lxc.mount.entry = {line}"))

    with pytest.raises(CommandError) as raised:
        plan(tmp_path)

    assert raised.value.code in (code, "E_CONFIG_VALUE")


def test_a_path_of_the_host_is_mounted_where_it_was_granted(tmp_path: Path) -> None:
    folder(
        tmp_path, config__j2=service("lxc.mount.entry = /srv/a/b mnt none bind,ro,create=dir 0 0")
    )

    made = plan(tmp_path, "--grant", "mount:/srv/a")

    assert "/srv/a/b" in [entry.source for entry in made.mount_entries]


@pytest.mark.parametrize(
    ("toml", "grant"),
    [
        ('profile = "login"', "profile:login"),
        ('profile = "system"\ncommand = ["/sbin/init"]', "profile:system"),
        ("needs_setuid = true", "setuid:programs"),
        ('needs_setuid = "su"\n[options.su]\ntype = "bool"\ndefault = true', "setuid:programs"),
        ('[[device]]\npath = "/dev/null"', "device:/dev/null"),
    ],
)
def test_a_template_that_is_not_trusted_gets_more_than_a_service_has_by_grant_only(
    tmp_path: Path, toml: str, grant: str
) -> None:
    folder(tmp_path, template__toml=f"{FACTS}{toml}\n")

    with pytest.raises(CommandError, match="E_CONFIG_GRANT") as raised:
        plan(tmp_path)

    assert raised.value.hints == (f"--grant {grant} gives it",)
    assert plan(tmp_path, "--grant", grant).rendered.config


@pytest.mark.parametrize(
    "word",
    ["all", "device", "devce:/dev/null", "device:null", "profile:root", "trust:all", "net:host"],
)
def test_a_grant_is_one_that_can_be_given(word: str) -> None:
    with pytest.raises(CommandError, match="E_PARAM"):
        parse(["create", "nginx", "--grant", word])


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


def test_a_host_that_lacks_the_program_is_told_which_package_has_it() -> None:
    with pytest.raises(CommandError) as raised:
        sharehost.check_programs(("postgresql-17", "more"), ["/bin/sh", "/nonexistent/postgres"])

    assert (raised.value.code, raised.value.subject) == ("E_NOTFOUND", "/nonexistent/postgres")
    assert raised.value.hints == ("install postgresql-17 on this host, or leave out --share-host",)
