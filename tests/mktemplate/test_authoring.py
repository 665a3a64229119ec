"""`new`, `check`, `templates add` and tests.toml: what authors write, and what strangers send (T-61, T-20 to T-29)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mktemplate.authoring import parcel, suite
from mktemplate.authoring.templatedocs import page
from mktemplate.cli.parsing import parse
from mktemplate.console import Console
from mktemplate.errors import CommandError, Several
from mktemplate.making import asked
from mktemplate.template import added, facts, library, schema, texts, values
from mktemplate.verbs import perform

FILES = {
    "template.toml": 'summary = "somebody\'s"\ndistros = ["debian"]\n',
    "tree.j2": '{% extends "_distro/" ~ distro.name ~ ".tree.j2" %}\n',
    "config.j2": '{% extends "_distro/" ~ distro.name ~ ".config.j2" %}\n',
}
Packed = Callable[..., Path]


def run(*argv: str) -> int:
    return perform(parse(argv), Console(quiet=True))


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> object:
    perform(parse([*argv, "--json"]), Console(quiet=True, json=True))
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's own templates: root's are looked for in a place of the test's, too."""
    place = tmp_path / "templates"
    monkeypatch.setattr(library, "ETC", str(place))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return place if os.geteuid() == 0 else tmp_path / "config" / "mktemplate" / "templates"


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    """Pack files, and members that are more than files, into a tar."""

    def pack(files: dict[str, str], *members: tarfile.TarInfo, name: str = "theirs.tar.gz") -> Path:
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tar:
            for path, text in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
            for member in members:
                tar.addfile(member)
        return tmp_path / name

    return pack


def below(folder: str) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in FILES.items()}


def member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("name", ["9web.2", "a" * 63])
def test_a_new_template_is_right_as_it_is(tmp_path: Path, name: str) -> None:
    assert run("new", name, str(tmp_path)) == 0

    assert run("check", str(tmp_path / name)) == 0
    text = (tmp_path / name / "tests.toml").read_text()
    assert len(suite.parse(text, "tests.toml").tests) == 3


def test_new_leaves_alone_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()

    with pytest.raises(CommandError, match="E_EXISTS"):
        run("new", "hello", str(tmp_path))
    with pytest.raises(CommandError, match="E_NAME"):
        run("new", "upgrade", str(tmp_path))


def test_check_narrows_to_the_distribution_that_is_asked_for(tmp_path: Path) -> None:
    run("new", "hello", str(tmp_path))
    tree = tmp_path / "hello" / "tree.j2"
    block = '{% block service %}\n{{ {"trixie": ""}[distro.release] }}'
    tree.write_text(tree.read_text().replace("{% block service %}", block))

    assert run("check", str(tmp_path / "hello"), "--distro", "debian", "--release", "trixie") == 0
    assert run("check", str(tmp_path / "hello")) == 2


def test_every_problem_of_tests_toml_is_reported_with_its_line() -> None:
    text = '[set]\na = []\n[[test]]\ncommand = "ls"\non = "moon"\n[[test]]\nexpekted = "x"\n'

    with pytest.raises(Several) as raised:
        suite.parse(text, "mine/tests.toml")

    where = {getattr(failure, "subject", "") for failure in raised.value.failures}
    assert where == {f"mine/tests.toml:{line}" for line in (1, 4, 5, 6, 7)}


def test_what_was_added_is_found_and_is_not_trusted(
    home: Path, packed: Packed, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = packed({**below("theirs-1.0"), "theirs-1.0/notes.txt": "x", "theirs-1.0/files/a.j2": "a"})

    [told] = document(capsys, "templates", "add", str(tar), "--as", "theirs")  # type: ignore[misc]  # one row

    spec = library.from_directory(str(home / "theirs"), "/etc").spec
    assert (spec.trusted, spec.source) == (False, str(tar))
    assert sorted(os.listdir(home / "theirs")) == ["config.j2", "files", "template.toml", "tree.j2"]
    assert told["revision"] == hashlib.sha256(tar.read_bytes()).hexdigest()
    lines = "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
        for name, text in sorted({**FILES, "files/a.j2": "a"}.items())
    )
    assert told["sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_all_templates_of_a_source_are_added_or_those_that_are_named(
    home: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        run("new", name, str(tmp_path / "many"))

    run("templates", "add", str(tmp_path / "many"), "two")
    assert sorted(os.listdir(home)) == [".added", "two"]
    run("templates", "remove", "two")
    run("templates", "add", str(tmp_path / "many"))
    assert sorted(os.listdir(home)) == [".added", "one", "two"]


def test_a_pin_is_the_hash_of_the_tar_or_of_the_files(home: Path, packed: Packed) -> None:
    tar = packed(below("theirs"))
    files = parcel.digest(parcel.read(str(tar)).files)
    whole = hashlib.sha256(tar.read_bytes()).hexdigest()

    with pytest.raises(CommandError, match="E_TRUST_HASH"):
        run("templates", "add", str(tar), "--pin", "0" * 64)
    assert not (home / "theirs").exists()
    for pin in (files, whole):
        assert run("templates", "add", str(tar), "--pin", pin, "--force") == 0


def test_an_update_keeps_what_was_granted_where_a_pin_names_the_new_files(
    home: Path, packed: Packed, capsys: pytest.CaptureFixture[str]
) -> None:
    login = FILES["template.toml"] + 'profile = "login"\n'
    tar = packed({**below("theirs"), "theirs/template.toml": login})
    run("templates", "add", str(tar), "--as", "ours", "--grant", "profile:login")

    def update(*words: str) -> tuple[object, object]:
        [told] = document(capsys, "templates", "update", "ours", *words)  # type: ignore[misc]  # one row
        found = added.record(home, "ours")
        assert found
        return told["updated"], found.grants

    capsys.readouterr()
    same = update()
    packed({**below("theirs"), "theirs/template.toml": login, "theirs/files/a.j2": "1"})
    with pytest.raises(CommandError, match="E_TRUST_HASH"):
        update("--pin", "0" * 64)
    pinned = update("--pin", parcel.digest(parcel.read(str(tar)).files))
    packed({**below("theirs"), "theirs/template.toml": login, "theirs/files/a.j2": "2"})
    loose = update()

    assert same == (False, ("profile:login",))
    assert pinned == (True, ("profile:login",))
    assert loose == (True, ())
    assert (home / "ours/files/a.j2").read_text() == "2"
    with pytest.raises(CommandError, match=r"E_NOTFOUND.*no such template was added"):
        run("templates", "update", "nobody")


def test_what_is_granted_for_good_is_asked_for_by_name(home: Path, packed: Packed) -> None:
    tar = packed(
        {**below("theirs"), "theirs/template.toml": FILES["template.toml"] + 'profile = "login"\n'}
    )
    argv = ("render", "theirs", "--distro", "debian", "-o", str(home / "out"))

    run("templates", "add", str(tar))
    with pytest.raises(CommandError, match="E_CONFIG_GRANT"):
        run(*argv)
    with pytest.raises(CommandError, match="does not ask for it"):
        run("templates", "add", str(tar), "--force", "--grant", "device:/dev/kvm")
    with pytest.raises(CommandError, match="not for good"):
        run("templates", "add", str(tar), "--force", "--grant", "trust:none")
    run("templates", "add", str(tar), "--force", "--grant", "profile:login")
    assert run(*argv) == 0


def test_what_was_added_is_removed_and_nothing_else(home: Path, packed: Packed) -> None:
    run("templates", "add", str(packed(below("theirs"))))
    run("new", "mine", str(home))

    run("templates", "remove", "theirs")

    assert sorted(os.listdir(home)) == [".added", "mine"]
    assert os.listdir(home / ".added") == []
    for name in ("mine", "theirs", "nginx"):
        with pytest.raises(CommandError, match="E_NOTFOUND"):
            run("templates", "remove", name)


def test_a_record_that_came_along_grants_nothing(tmp_path: Path, home: Path) -> None:
    """Somebody's repository holds a template and a record as we write them."""
    run("new", "theirs", str(tmp_path / "clone"))
    (tmp_path / "clone" / ".added").mkdir()
    record = {"source": "us", "grants": ["profile:login"]}
    (tmp_path / "clone" / ".added" / "theirs.json").write_text(json.dumps(record))
    toml = tmp_path / "clone" / "theirs" / "template.toml"
    toml.write_text('profile = "login"\n' + toml.read_text())

    with pytest.raises(CommandError, match="E_CONFIG_GRANT"):
        run("render", "theirs", "--template-path", str(tmp_path / "clone"), "--distro", "debian")
    run("templates", "add", str(tmp_path / "clone"))
    assert library.from_directory(str(home / "theirs"), "user").spec.grants == ()


@pytest.mark.root
def test_a_record_that_others_may_write_grants_nothing(home: Path, packed: Packed) -> None:
    run("templates", "add", str(packed(below("theirs"))), "--grant", "mount:/srv")
    assert library.from_directory(str(home / "theirs"), "/etc").spec.grants == ("mount:/srv",)
    file = home / ".added" / "theirs.json"
    file.chmod(0o666)

    assert library.from_directory(str(home / "theirs"), "/etc").spec.grants == ()
    file.chmod(0o644)
    os.chown(file, 65534, 65534)
    assert library.from_directory(str(home / "theirs"), "/etc").spec.grants == ()
    file.unlink()
    file.symlink_to("/etc/hostname")
    spec = library.from_directory(str(home / "theirs"), "/etc").spec
    assert (spec.trusted, spec.grants) == (False, ())


HOSTILE: dict[str, tuple[dict[str, str], list[tarfile.TarInfo], str]] = {
    "leaves its root": ({**below("theirs"), "../evil/template.toml": "x"}, [], "E_ARCHIVE_PATH"),
    "is absolute": ({"/etc/evil/template.toml": "x"}, [], "E_ARCHIVE_PATH|E_NOTFOUND"),
    "links a file": (below("t"), [member("t/files/a.j2", tarfile.SYMTYPE, "/etc/shadow")], "E_ARCHIVE_LINK"),
    "hard links a file": (below("t"), [member("t/tests.toml", tarfile.LNKTYPE, "t/tree.j2")], "E_ARCHIVE_LINK"),
    "links its facts": ({}, [member("template.toml", tarfile.SYMTYPE, "/etc/shadow")], "E_ARCHIVE_LINK"),
    "holds a device": (below("t"), [member("t/files/a.j2", tarfile.CHRTYPE)], "E_ARCHIVE_TYPE"),
    "holds a fifo": (below("t"), [member("t/config.j2", tarfile.FIFOTYPE)], "E_ARCHIVE_TYPE"),
    "holds one twice": (below("t"), [member("t/tree.j2", tarfile.REGTYPE)], "E_ARCHIVE_DUP"),
    "holds none": ({"readme": "x"}, [], "E_NOTFOUND"),
    "is called a verb": (below("upgrade"), [], "E_NAME"),
    "is called as ours": (below("nginx"), [], "E_EXISTS"),
    "is called .added": (below("_x"), [], "E_NAME"),
    "has many members": (below("t"), [member(f"x{n}", tarfile.DIRTYPE) for n in range(1200)], "E_ARCHIVE_LIMIT"),
    "reads /etc/shadow": (
        {**below("t"), "t/tree.j2": "{% include '../../../../etc/shadow' %}"}, [], "E_TEMPLATE_PATH"),
    "breaks the sandbox": ({**below("t"), "t/tree.j2": "{{ ''.__class__ }}"}, [], "E_TEMPLATE_SANDBOX"),
    "uses up the host": (
        {**below("t"), "t/tree.j2": "{% for i in range(10**9) %}x{% endfor %}"}, [], "E_TEMPLATE_LIMIT"),
    "has a hook": (
        {**below("t"), "t/config.j2": FILES["config.j2"] + "{% block service %}\nlxc.hook.mount = /x\n{% endblock %}"},
        [], "E_CONFIG_GRANT"),
    "mounts the host": (
        {**below("t"), "t/config.j2": FILES["config.j2"]
         + "{% block service %}\nlxc.mount.entry = / mnt none bind,create=dir 0 0\n{% endblock %}"},
        [], "E_FSTAB_SOURCE"),
    "names a key of the host": (
        {**below("t"), "t/template.toml": FILES["template.toml"]
         + '[[repository]]\nuris = "http://x/"\nsuites = "a"\ncomponents = "b"\nfingerprint = "' + "A" * 40
         + '"\nsigned_by = "/etc/shadow"\n'}, [], "E_TEMPLATE_SYNTAX"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_source_adds_nothing(home: Path, packed: Packed, case: str) -> None:
    files, members, code = HOSTILE[case]
    tar = packed(files, *members)

    with pytest.raises(Exception, match=code):
        run("templates", "add", str(tar))

    left = sorted(os.listdir(home)) if home.exists() else []
    assert left in ([], [".added"])


@pytest.mark.parametrize(
    "body", [b"", b"x" * 4096, b"\x1f\x8b" + b"\0" * 100], ids=["empty", "none", "gzip"]
)
def test_what_is_no_archive_is_told(home: Path, tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(body)

    with pytest.raises(Exception, match="E_ARCHIVE"):
        run("templates", "add", str(tmp_path / "x.tar"))


def test_a_bomb_is_not_unpacked(home: Path, tmp_path: Path) -> None:
    import gzip

    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(bytes(64 << 20)))

    with pytest.raises(Exception, match="E_ARCHIVE_BOMB"):
        run("templates", "add", str(tmp_path / "x.tar.gz"))


@pytest.fixture
def repository(tmp_path: Path, needs: Callable[..., None]) -> Path:
    """A git repository with a template at its top, hooks and filters that would show if they ran."""
    needs("git")
    place = tmp_path / "theirs"
    run("new", "theirs", str(tmp_path))
    (place / ".gitattributes").write_text("* filter=evil\n*.j2 export-subst\n")
    for argv in (
        ("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "one"), ("tag", "v1"),
    ):  # fmt: skip
        git(place, *argv)
    toml = place / "template.toml"
    toml.write_text(toml.read_text().replace('"theirs, in one line"', '"newer"'))
    git(place, "commit", "-q", "-a", "-m", "two")
    return place


def git(place: Path, *argv: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *argv], cwd=place, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_git_gives_the_newest_commit_or_the_one_that_is_named(home: Path, repository: Path) -> None:
    run("templates", "add", f"file://{repository}")
    newest = added.record(home, "theirs")
    run("templates", "add", f"file://{repository}#v1", "--as", "older")

    assert newest is not None
    assert newest.revision == git(repository, "rev-parse", "HEAD")
    assert library.from_directory(str(home / "theirs"), "user").spec.summary == "newer"
    assert "theirs" in library.from_directory(str(home / "older"), "user").spec.summary


def test_git_runs_nothing_of_what_it_fetches(
    home: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's own git knows a filter that the repository asks for, and hooks."""
    canary = tmp_path / "canary"
    (tmp_path / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = touch {canary}\n\tclean = touch {canary}\n\trequired = true\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path))

    run("templates", "add", f"file://{repository}#v1")

    assert not canary.exists()


@pytest.mark.parametrize(
    "source", ["ext::sh -c id", "--upload-pack=x", "file:///nowhere", "nowhere", "https://x#a b"]
)
def test_what_git_must_not_be_asked_is_refused(home: Path, source: str) -> None:
    with pytest.raises(CommandError, match=r"E_USAGE|E_NET_CONNECT|E_PARAM"):
        run("templates", "add", "--", source)


def shop(tmp_path: Path, toml: str, **files: str) -> texts.Plan:
    """Render a template that extends nginx."""
    place = tmp_path / "shop"
    (place / "files").mkdir(parents=True)
    (place / "template.toml").write_text(toml)
    for name, text in files.items():
        (place / f"{name}.j2").write_text(text)
    request = parse(["render", "shop", "--template-path", str(tmp_path), "--distro", "debian"])
    return texts.plan(*asked.understood(request))


def test_a_template_extends_a_built_in_one_and_says_only_what_differs(tmp_path: Path) -> None:
    toml = """
        extends = "nginx"
        summary = "the shop"
        [options.port]
        default = 8080
        [options.motto]
        type = "str"
        default = "buy"
        [packages]
        "debian/trixie" = ["nginx-light"]
        [[volume]]
        name = "orders"
        path = "/srv/orders"
    """
    tree = '{% extends "nginx/tree.j2" %}{% block service %}{{ super() }}\nd /srv/orders - - - - -\n{% endblock %}'

    made = shop(tmp_path, toml, tree=tree, **{"files/index.html": "<p>{{ options.motto }}</p>\n"})

    nginx = library.load("nginx", "", {})
    assert nginx is not None
    assert made.spec.summary == "the shop"
    assert {option.name for option in made.spec.options} == {
        *(option.name for option in nginx.spec.options),
        "motto",
    }
    assert made.spec.packages["deb"] == nginx.spec.packages["deb"]
    assert [each.name for each in made.spec.volumes][-1] == "orders"
    assert made.rendered.files["nginx.conf"].count(b"listen 8080") == 1
    assert not made.spec.trusted


def test_what_a_template_extends_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        Several, match=r'template.toml:1: extends: "nginks" is no built-in template'
    ) as raised:
        shop(tmp_path, 'extends = "nginks"\n')

    assert getattr(raised.value.failures[0], "hints", ()) == ("did you mean nginx?",)


def test_what_is_extended_gives_no_right_that_was_not_granted(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"E_CONFIG_GRANT.*profile login"):
        shop(tmp_path, 'extends = "sshd"\n')


def test_the_reference_is_current() -> None:
    """scripts/template-reference > docs/template-reference.md"""
    stored = Path(__file__).parents[2] / "docs" / "template-reference.md"

    assert stored.read_text() == page()


def test_the_reference_names_all_that_a_file_may_name() -> None:
    _, told = asked.understood(parse(["render", "nginx", "--distro", "debian"]))
    nginx = library.load("nginx", "", {})
    assert nginx is not None

    assert set(facts.values(nginx.spec, told)) == set(schema.VALUES)
    assert set(schema.TYPES) == set(values.TYPES)


def test_the_tests_of_a_strangers_template_set_no_path_of_the_host(tmp_path: Path) -> None:
    toml = (
        FILES["template.toml"] + '[options.source]\ntype = "mount"\ndefault = ""\nat = "/srv/a"\n'
    )
    (tmp_path / "mine").mkdir()
    for name, text in {**FILES, "template.toml": toml}.items():
        (tmp_path / "mine" / name).write_text(text)
    (tmp_path / "mine" / "tests.toml").write_text(
        'set = { source = "/etc" }\n[[test]]\ncommand = ["ls", "/srv/a"]\n'
    )

    with pytest.raises(CommandError, match="E_CONFIG_GRANT"):
        run("test-template", str(tmp_path / "mine"), "--path", str(tmp_path / "path"))
