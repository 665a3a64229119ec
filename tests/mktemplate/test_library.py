"""`import mktemplate`: what needs no container."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest

import mktemplate
from mktemplate import sandbox
from mktemplate.cli.options import BUILD
from mktemplate.keywords import Options, request


def test_importing_it_loads_nothing_else() -> None:
    code = (
        "import sys, mktemplate;"
        "print(*(name for name in sys.modules if name.startswith(('mktemplate', 'runtime'))))"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["mktemplate"]


def test_every_public_name_is_there() -> None:
    for name in mktemplate.__all__:
        assert getattr(mktemplate, name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        mktemplate.nothing_like_it  # noqa: B018


def test_its_keywords_are_the_options_of_the_command_line() -> None:
    options = {row.names[0].removeprefix("--").replace("-", "_") for row in BUILD}

    assert set(get_type_hints(Options)) == options | {"path", "template_path"}


def test_keywords_mean_what_the_same_words_mean_on_the_command_line(tmp_path: Path) -> None:
    options: Options = {
        "path": tmp_path,
        "memory": 64 << 20,
        "cpus": 0.5,
        "publish": [8080, "53/udp"],
        "set": {"greeting": "a=b", "public": True},
        "env": {"LANG": "C", "EMPTY": ""},
        "packages": ["curl", "less"],
        "recommends": True,
        "slim": False,
    }

    with request("create", ("nginx", "web"), options) as asked:
        build = asked.build

    assert (asked.verb, asked.words, asked.path) == ("create", ("nginx", "web"), str(tmp_path))
    assert (build.memory, build.cpus) == (64 << 20, 0.5)
    assert [(port.host, port.proto) for port in build.publish] == [(8080, "tcp"), (53, "udp")]
    assert build.sets == (("greeting", "a=b"), ("public", "true"))
    assert build.env == (("LANG", "C"), ("EMPTY", ""))
    assert build.packages == ("curl", "less")
    assert (build.recommends, build.slim) == (True, False)
    assert "slim" not in asked.given


def test_a_secret_is_read_from_memory_that_nobody_else_opens() -> None:
    with request("create", ("base",), {"secret": {"password": "a\nb"}}) as asked:
        [source] = asked.build.secrets
        held = Path(source.where).read_bytes()

    assert held == b"a\nb"
    assert not Path(source.where).exists()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda path: mktemplate.Container("../x", path), "E_NAME"),
        (lambda path: mktemplate.Container("absent", path).state, "E_NOTFOUND"),
        (lambda path: mktemplate.Container("absent", path).exec(["true"]), "E_NOTFOUND"),
        (lambda path: mktemplate.create("nosuch", path=path), "E_USAGE"),
        (lambda path: mktemplate.create("-x", path=path), "E_USAGE"),
        (lambda path: mktemplate.create("base", memroy="1G", path=path), "E_USAGE"),
        (lambda path: mktemplate.create("base", memory="much", path=path), "E_PARAM"),
        (lambda path: mktemplate.create("base", memory=object(), path=path), "E_PARAM"),
        (lambda path: sandbox.run("ls", path=path), "E_USAGE"),
        (lambda path: sandbox.run([], path=path), "E_USAGE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failures_have_the_codes_of_the_command_line(
    call: Callable[[Path], object], code: str, tmp_path: Path
) -> None:
    with pytest.raises(mktemplate.MktemplateError) as raised:
        call(tmp_path)

    assert raised.value.code == code
    assert raised.value.object
    assert raised.value.detail
    assert raised.value.status == (8 if code == "E_NOTFOUND" else 2)
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_keyword_is_told_the_right_one() -> None:
    with pytest.raises(mktemplate.MktemplateError) as raised:
        mktemplate.create("base", memroy="1G")  # type: ignore[call-arg]

    assert raised.value.hint == "did you mean --memory?"


def test_there_are_no_containers_where_there_is_no_path(tmp_path: Path) -> None:
    assert mktemplate.containers(tmp_path / "nowhere") == ()
