"""Jinja's code of trusted templates below PATH: taken only where nobody else could have put it."""

from __future__ import annotations

import hashlib
import marshal
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import CodeType

import pytest

from mktemplate.cli.parsing import parse
from mktemplate.making import asked
from mktemplate.template import known, rendering, texts
from mktemplate.template.compiled import FOLDER, compiled
from mktemplate.template.keeping import is_ours
from tests.mktemplate.test_templates import folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir(mode=0o700)
    return made


def plan(cache: Path, template: str = "nginx", *more: str) -> texts.Plan:
    request = parse(["create", template, "--distro", "debian", *more])
    shutil.rmtree(cache / known.FOLDER, ignore_errors=True)  # else nothing is compiled
    return texts.plan(*asked.understood(request), (), cache)


def kept(cache: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (cache / FOLDER).iterdir()}


def shown(body: bytes) -> str:
    """Return what an entry's template is called in messages."""
    code: CodeType = marshal.loads(body[32:])
    return code.co_filename


def planted(text: str) -> bytes:
    """Return an entry whose code renders `text`, whatever it was asked for."""
    source = f"def root(context, missing=None, environment=None):\n    yield {text!r}\n"
    code = marshal.dumps(
        compile(f"name = 'x'\nblocks = {{}}\ndebug_info = ''\n{source}", "x", "exec")
    )
    return hashlib.sha256(code).digest() + code


def test_what_was_kept_gives_the_same_texts_and_is_not_made_again(cache: Path) -> None:
    first = plan(cache)
    entries = kept(cache)
    second = plan(cache)

    assert second.rendered == first.rendered
    assert entries and kept(cache) == entries


def test_what_is_kept_is_what_runs(cache: Path) -> None:
    plan(cache)
    [config] = [name for name, body in kept(cache).items() if shown(body) == "nginx/config.j2"]
    (cache / FOLDER / config).write_bytes(planted("lxc.uts.name = planted\n"))

    made = rendering.render(
        *asked.understood(parse(["create", "nginx", "--distro", "debian"])), compiled(cache)
    )

    assert made.rendered.config == "lxc.uts.name = planted\n"


@pytest.mark.parametrize(
    "damage", [lambda body: b"", lambda body: body[:-1], lambda body: body[::-1]],
    ids=["empty", "cut", "garbage"],
)  # fmt: skip
def test_what_a_power_cut_left_is_made_again(cache: Path, damage: type) -> None:
    first = plan(cache)
    entries = kept(cache)
    for name, body in entries.items():
        (cache / FOLDER / name).write_bytes(damage(body))

    assert plan(cache).rendered == first.rendered
    assert kept(cache) == entries


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o755], ids=oct)
def test_nothing_is_kept_where_others_have_a_way_in(cache: Path, mode: int) -> None:
    cache.chmod(mode)

    plan(cache)

    assert not (cache / FOLDER).exists()


def test_a_folder_above_that_others_can_write_is_a_way_in(cache: Path) -> None:
    assert is_ours(cache)

    cache.parent.chmod(0o777)

    assert not is_ours(cache)


@pytest.mark.root
def test_a_folder_of_another_user_above_is_a_way_in(cache: Path) -> None:
    os.chown(cache.parent, 12345, 12345)

    assert not is_ours(cache)


def test_a_users_template_is_compiled_in_its_jail_each_time(cache: Path, tmp_path: Path) -> None:
    folder(tmp_path)

    plan(cache, "mine", "--template-path", str(tmp_path))

    names = set(map(shown, kept(cache).values()))
    assert names
    assert not [name for name in names if name.startswith("mine/")]


def test_the_code_of_a_changed_text_is_another(cache: Path, tmp_path: Path) -> None:
    template, facts = asked.understood(parse(["create", "nginx", "--distro", "debian"]))
    changed = replace(template, folder=_Changed(template.folder))

    texts.plan(template, facts, (), cache)
    rendered = texts.plan(changed, facts, (), cache).rendered

    assert texts.plan(template, facts, (), cache).rendered != rendered

    assert rendered.files["index.html"].endswith(b"changed\n")


class _Changed:
    """A folder whose page has one more line."""

    def __init__(self, folder: object) -> None:
        self._folder = folder
        self.shown = "nginx"

    def read(self, name: str) -> bytes:
        body: bytes = self._folder.read(name)  # type: ignore[attr-defined]
        return body + b"changed\n" if name == "files/index.html.j2" else body

    def names(self, under: str) -> tuple[str, ...]:
        return self._folder.names(under)  # type: ignore[attr-defined, no-any-return]
