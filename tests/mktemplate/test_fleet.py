"""A compose file: what it may say, in which order its services start, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mktemplate.cli.parsing import parse
from mktemplate.errors import CommandError, Several
from mktemplate.life import fleet


def read(tmp_path: Path, text: str, name: str = "fleet.toml") -> fleet.Fleet:
    (tmp_path / name).write_text(text)
    return fleet.read(str(tmp_path / name))


def wrong(tmp_path: Path, text: str) -> list[str]:
    """Return each problem, with the line and the hint."""
    with pytest.raises((CommandError, Several)) as caught:
        read(tmp_path, text)
    failures = getattr(caught.value, "failures", (caught.value,))
    return [f"{f.line}: {f.detail}" + "".join(f" ({hint})" for hint in f.hints) for f in failures]


def test_services_start_behind_those_that_they_depend_on(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '[services.web]\ntemplate = "nginx"\ndepends_on = ["app", "db"]\n'
        '[services.app]\ntemplate = "python-app"\ndepends_on = ["db"]\n'
        '[services.db]\ntemplate = "postgresql"\n',
    )

    assert [service.name for service in found.services] == ["db", "app", "web"]


def test_a_services_keys_are_the_options_of_up(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '[defaults]\ndistro = "debian"\nmemory = "64M"\n'
        '[services.nginx]\npublish = ["8080:80", 443]\nmemory = "1G"\nset = { port = 81, index = true }\n'
        'env = { A = "b c" }\nsecret = { tls_pem = "@./pem" }\nshare_host = true\nallow_stale = 3\n',
    )

    [service] = found.services
    request = parse(service.argv)
    build = request.build
    assert request.words == ("nginx", "nginx")  # the table's name is a template's
    assert (build.distro, build.memory, build.share_host, build.allow_stale) == (
        "debian",
        1 << 30,
        True,
        3,
    )
    assert build.sets == (("port", "81"), ("index", "true"))
    assert build.env == (("A", "b c"),)
    assert [(port.host, port.container) for port in build.publish] == [(8080, 80), (443, 443)]
    assert [(secret.key, secret.kind, secret.where) for secret in build.secrets] == [
        ("tls_pem", "file", "./pem")
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["1: services: must be tables, each written as [services.NAME]"]),
        ("[services", ["1: Expected ']' at the end of a table declaration (at end of document)"]),
        (
            '[services.a]\nports = ["80"]\nmemroy = 1\n',
            [
                "2: services.a.ports: unknown key (here it is publish)",
                "3: services.a.memroy: unknown key (did you mean memory?)",
            ],
        ),
        (
            '[services.a]\npublish = "x"\n\n[services."b c"]\n[other]\n',
            [
                "5: other: unknown key: there is services and defaults",
                '2: services.a.publish: "x" is not [[ADDR:]HOST:]CONTAINER[/udp] '
                "(examples: 8080:80, 127.0.0.1:2222:22, 53/udp)",
                "4: services.b c: only A-Z a-z 0-9 . _ -, first a letter or digit, at most 63",
            ],
        ),
        (
            '[services.a]\nsecret = { password = "hunter2" }\n',
            [
                "2: services.a.secret: a secret never stands in the command line "
                "(write password=@FILE, password=- (standard input) or password=env:VAR)"
            ],
        ),
        (
            '[services.a]\ndepends_on = ["bb"]\n[services.b]\n',
            ['2: services.a.depends_on: "bb" is no service of this file (did you mean b?)'],
        ),
        (
            '[services.a]\ndepends_on = ["b"]\n[services.b]\ndepends_on = ["a"]\n',
            ["2: services.a.depends_on: goes round in a circle: a → b → a"],
        ),
    ],
    ids=["nothing", "no TOML", "unknown keys", "values", "a secret itself", "nobody", "a circle"],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: list[str]) -> None:
    assert wrong(tmp_path, text) == said


def test_yaml_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is YAML; a compose file of ours is TOML"):
        read(tmp_path, "services: {}\n", "compose.yaml")
