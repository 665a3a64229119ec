"""What a template came to before is what it comes to: for another name, and until anything changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mktemplate.cli.parsing import parse
from mktemplate.errors import CommandError
from mktemplate.making import asked
from mktemplate.template import known, library, rendering, texts
from mktemplate.template.plan import Plan
from tests.mktemplate.test_templates import folder

TEMPLATES = sorted(filter(library.is_built_in, library.built_in().names("")))  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir(mode=0o700)
    return made


def plan(cache: Path | None, template: str, name: str, *more: str) -> Plan:
    request = parse(["create", template, name, "--distro", "debian", *more])
    return texts.plan(*asked.understood(request), (), cache)


def kept(cache: Path) -> dict[str, bytes]:
    folder = cache / known.FOLDER
    return {each.name: each.read_bytes() for each in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the containers whose texts were rendered."""
    seen: list[str] = []
    render = rendering.render

    def noted(template: library.Template, facts: texts.Facts, *more: object) -> rendering.Made:
        seen.append(facts.name)
        return render(template, facts, *more)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(rendering, "render", noted)
    return seen


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_second_container_has_the_texts_that_it_would_have_alone(
    cache: Path, template: str
) -> None:
    alone = plan(None, template, "second")
    plan(cache, template, "first")

    assert plan(cache, template, "second") == alone
    assert plan(cache, template, "second").tree.digest == alone.tree.digest


def test_what_is_known_is_not_rendered_again(cache: Path, rendered: list[str]) -> None:
    for name in ("one", "two", "one"):
        plan(cache, "nginx", name)
    more = plan(cache, "nginx", "three", "--packages", "curl")

    assert rendered == ["one"]
    assert more.rendered.packages == plan(None, "nginx", "x").rendered.packages
    assert "\nlxc.uts.name = three\n" in more.rendered.config


@pytest.mark.parametrize(
    "more",
    [
        ("--set", "port=8080"),
        ("--env", "A=b"),
        ("--memory", "64M"),
        ("--network", "none"),
        ("--no-userns",),
        ("--release", "bookworm"),
    ],
    ids=str,
)
def test_other_facts_are_rendered(cache: Path, rendered: list[str], more: tuple[str, ...]) -> None:
    plan(cache, "nginx", "one")

    assert plan(cache, "nginx", "two", *more) == plan(None, "nginx", "two", *more)
    assert rendered == ["one", "two", "two"]


def test_texts_that_depend_on_the_name_are_not_kept(cache: Path, rendered: list[str]) -> None:
    first, second = (plan(cache, "postfix", name) for name in ("one", "two"))

    assert b"myhostname = one.localdomain" in first.rendered.files["main.cf"]
    assert b"myhostname = two.localdomain" in second.rendered.files["main.cf"]
    assert rendered == ["one", "two"]
    assert kept(cache) == {}


class Changed:
    """A folder of templates with a change."""

    def __init__(
        self, folder: known.Folder, read: Callable[[str, bytes], bytes], more: tuple[str, ...] = ()
    ) -> None:
        self._folder = folder
        self._read = read
        self._more = more
        self.shown = folder.shown

    def read(self, name: str) -> bytes:
        return self._read(name, b"new\n" if name == "files/new.j2" else self._folder.read(name))

    def names(self, under: str) -> tuple[str, ...]:
        return (*self._folder.names(under), *(self._more if under == "files" else ()))


def _longer(name: str, body: bytes) -> bytes:
    return body + b"changed\n" if name == "files/index.html.j2" else body


def _gone(name: str, body: bytes) -> bytes:
    if name == "files/index.html.j2":
        raise CommandError("E_TEMPLATE_PATH", name, "is not there")
    return body


def test_a_changed_file_is_rendered(cache: Path) -> None:
    template, facts = asked.understood(parse(["create", "nginx", "one", "--distro", "debian"]))
    texts.plan(template, facts, (), cache)

    longer = replace(template, folder=Changed(template.folder, _longer))
    more = replace(template, folder=Changed(template.folder, lambda name, body: body, ("new.j2",)))

    assert texts.plan(longer, facts, (), cache).rendered.files["index.html"].endswith(b"changed\n")
    assert texts.plan(more, facts, (), cache).rendered.files["new"] == b"new\n"
    with pytest.raises(CommandError):
        texts.plan(replace(template, folder=Changed(template.folder, _gone)), facts, (), cache)


def test_a_changed_file_of_everybodys_is_rendered(
    cache: Path, rendered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(cache, "nginx", "one")
    shared = library.shared()
    other = Changed(
        shared, lambda name, body: body + b"# more\n" if name.endswith("common.config.j2") else body
    )
    monkeypatch.setattr(library, "shared", lambda: other)

    assert plan(cache, "nginx", "two").rendered.config.endswith("# more\n")
    assert rendered == ["one", "two"]


def test_what_looks_at_the_name_is_found_wherever_it_stands(cache: Path) -> None:
    template, facts = asked.understood(parse(["create", "nginx", "one", "--distro", "debian"]))
    sources = (
        "{{ name }}", "{{ name | upper }}", "{% if name == 'one' %}x{% endif %}", "{{ [name, 'x'] | join }}",
        "{% set other = name %}{{ other }}", "{% filter upper %}{{ name }}{% endfilter %}",
        "{% macro said() %}{{ name }}{% endmacro %}{{ said() }}", "{% for each in [1] %}{{ name }}{% endfor %}",
        "{% set whole %}{{ name }}{% endset %}{{ whole | length }}",
    )  # fmt: skip
    for source in sources:
        looking = Changed(
            template.folder,
            lambda name, body, source=source: (
                source.encode() if name == "files/index.html.j2" else body
            ),  # type: ignore[misc]  # bound now
        )
        texts.plan(replace(template, folder=looking), facts, (), cache)
        assert kept(cache) == {}, source


@pytest.mark.parametrize("damage", [b"", b"x" * 40], ids=["empty", "garbage"])
def test_what_is_damaged_is_rendered_and_kept_again(
    cache: Path, rendered: list[str], damage: bytes
) -> None:
    plan(cache, "nginx", "one")
    [(name, body)] = kept(cache).items()
    (cache / known.FOLDER / name).write_bytes(damage)

    plan(cache, "nginx", "one")

    assert rendered == ["one", "one"]
    assert kept(cache) == {name: body}


def test_nothing_is_kept_where_others_have_a_way_in(cache: Path) -> None:
    cache.chmod(0o755)

    plan(cache, "nginx", "one")

    assert kept(cache) == {}


def test_a_strangers_template_is_rendered_each_time(cache: Path, tmp_path: Path) -> None:
    folder(tmp_path)

    plan(cache, "mine", "one", "--template-path", str(tmp_path))

    assert kept(cache) == {}


def test_another_process_knows_it_too(cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mktemplate.cli.parsing import parse;"
        "from mktemplate.making import asked; from mktemplate.template import texts;"
        "request = parse(['create', 'sshd', sys.argv[2], '--distro', 'debian']);"
        "texts.plan(*asked.understood(request), (), Path(sys.argv[1])); print('jinja2' in sys.modules)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, cache, name],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for name, seed in (("one", "1"), ("two", "2"), ("three", "3"))
    ]  # fmt: skip

    assert told == ["True\n", "False\n", "False\n"]
    assert len(kept(cache)) == 1
