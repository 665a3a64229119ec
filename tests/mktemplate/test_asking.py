"""When mirrors are asked at once, while the rest is loaded, and when that would be in somebody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mktemplate.cli.parsing import Build
from mktemplate.making import asking
from mktemplate.template import spec
from mktemplate.template.facts import Facts, Target
from tests.provisioner.web import Web, answer, served_web
from valuetypes import replace

FACTS = Facts(name="one", target=Target(distro="debian", release="trixie", arch="amd64"))
SUITES = tuple(
    f"/{archive}/dists/{suite}/InRelease"
    for archive, suite in (
        ("debian", "trixie"),
        ("debian", "trixie-updates"),
        ("debian-security", "trixie-security"),
    )
)


@pytest.fixture
def web() -> Iterator[Web]:
    with served_web() as web:
        web.answers = {path: answer(path.encode()) for path in SUITES}
        yield web


def begun(path: Path, build: Build, facts: Facts = FACTS, *, trusted: bool = True) -> set[str]:
    """Return what was asked for before anybody needed it, once the answers are here."""
    text = 'summary = "a test"\ndistros = ["deb"]\n'
    template = spec.parse("mine", text, "mine/template.toml", origin="", trusted=trusted)
    with asking.begun(template, facts, build, path) as asked:
        expected = set(asked.fetch._expected)
        for url in expected:
            assert url.endswith(asked.fetch.document(url, 99).decode())
    return expected


def test_every_suite_is_asked_at_once(tmp_path: Path, web: Web) -> None:
    asked = begun(tmp_path, Build(mirror=web.url("/debian")))

    assert asked == {web.url(path) for path in SUITES}


@pytest.mark.parametrize(
    ("build", "facts", "trusted"),
    [
        (Build(offline=True), FACTS, True),
        (Build(lock="a.lock"), FACTS, True),
        (Build(), replace(FACTS, shared_host=True), True),
        (Build(), FACTS, False),
    ],
    ids=("offline", "locked", "shared-host", "untrusted"),
)
def test_nobody_is_asked_who_need_not_be(
    tmp_path: Path, web: Web, build: Build, facts: Facts, *, trusted: bool
) -> None:
    build = replace(build, mirror=web.url("/debian"))

    assert begun(tmp_path, build, facts, trusted=trusted) == set()


@pytest.mark.parametrize("there", ["one", ".store/staging/killed", ".store/trash/left"])
def test_nobody_is_asked_while_something_is_told_or_undone(
    tmp_path: Path, web: Web, there: str
) -> None:
    (tmp_path / there).mkdir(parents=True)

    assert begun(tmp_path, Build(mirror=web.url("/debian"))) == set()
