"""`show` is enough to configure a template: all that can be given is on its page, and what it says can be typed."""

from __future__ import annotations

import shlex

import pytest

from mktemplate.authoring import showing
from mktemplate.cli.parsing import parse
from mktemplate.making import asked
from mktemplate.template import library
from mktemplate.template.spec import TemplateSpec

TEMPLATES = [name for name in library.built_in().names("") if library.is_built_in(name)]


def facts_of(name: str) -> TemplateSpec:
    found = library.load(name, "", {})
    assert found is not None
    return found.spec


@pytest.mark.parametrize("name", TEMPLATES)
def test_everything_that_can_be_given_is_on_the_page_with_its_meaning(name: str) -> None:
    spec = facts_of(name)

    page = showing.page(spec, str)

    for option in spec.options:
        assert option.help, f"{option.name} says nothing"
        assert f"  {option.name}{'' if option.type == 'secret' else '='}" in page
    for volume in spec.volumes:
        assert volume.help, f"{volume.name} says nothing"
        assert volume.path in page
    typed = tuple(f"  {line}" for line in showing.examples(spec))  # one line each, to be copied
    assert max(len(line) for line in page.split("\n") if line not in typed) <= 110


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_example_can_be_typed(name: str) -> None:
    spec = facts_of(name)

    for line in showing.examples(spec):
        program, *argv = shlex.split(line)
        assert program == "mktemplate"
        request = parse(argv)
        if request.verb in ("up", "create", "run"):
            asked.understood(request)


def test_a_template_of_a_strangers_says_what_it_may_want() -> None:
    from dataclasses import replace

    page = showing.page(replace(facts_of("sshd"), trusted=False, origin="user"), str)

    assert "not trusted (origin: user)" in page
    assert "--grant profile:login" in page
    assert "--grant setuid:programs" in page
