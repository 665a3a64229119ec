"""What is wrong with a rendered text is told with the line of the template's file that it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mktemplate.__main__ import main
from mktemplate.template import whence

SOURCE = """\
{% for name in names %}
d /srv/{{ name }} 0755 root root
{% endfor %}
f /etc/{{ a }}{{ b }}.conf 0644 root root
f /etc/plain 0644 root root
{{ whole }}
"""
EXTENDS = '{% extends "_distro/" ~ distro.name ~ ".NAME.j2" %}\n'
TEMPLATE = {
    "template.toml": (
        'summary = "x"\ndistros = ["debian"]\ncommand = ["/bin/x"]\n[options.port]\ntype = "port"\ndefault = 80\n'
    ),
    "tree.j2": (
        EXTENDS.replace("NAME", "tree") + "{% block service %}\n{# what follows is wrong #}\n"
        "d /srv/../x 0755 root root - -\nf /etc/{{ options.port }} 9999 root root - -\n"
        "d /srv/fine 0755 root root - -\nd /srv/fine 0755 root root - -\n{% endblock %}\n"
    ),
    "config.j2": (
        EXTENDS.replace("NAME", "config")
        + "{% block service %}\nlxc.nonsense = 1\n{% endblock %}\n"
    ),
}


@pytest.mark.parametrize(
    ("rendered", "number"),
    [
        ("d /srv/www 0755 root root", 2),
        ("  f /etc/plain 0644 root root", 5),
        ("f /etc/xy.conf 0644 root root", 4),
        ("from a macro", 0),
        ("", 0),
    ],
    ids=["an expression", "as it is", "two expressions", "nothing like it", "an empty line"],
)
def test_a_rendered_line_is_traced_to_the_file(rendered: str, number: int) -> None:
    assert whence.origin(rendered, SOURCE) == number


def test_a_line_of_many_expressions_is_traced_in_no_time() -> None:
    source = "a" + "{{ x }}b" * 5000 + "c"

    assert whence.origin("a" + "b" * 4999 + "d", source) == 0


def write(folder: Path, **changed: str) -> Path:
    place = folder / "wrong"
    place.mkdir()
    for name, text in TEMPLATE.items():
        (place / name).write_text(changed.get(name.replace(".", "_"), text))
    return place


def check(place: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, int, str]]:
    assert main(["check", str(place), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)["findings"]
    return [(each["path"], each["line"], each["code"]) for each in found]


def test_check_tells_every_wrong_line_of_a_tree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write(tmp_path), capsys) == [
        ("wrong/tree.j2", 4, "E_TEMPLATE_PATH"),
        ("wrong/tree.j2", 5, "E_TEMPLATE_SYNTAX"),
        ("wrong/tree.j2", 6, "E_TEMPLATE_SYNTAX"),
    ]


def test_check_tells_the_wrong_line_of_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = TEMPLATE["tree.j2"].partition("\n")[0] + "\n"

    assert check(write(tmp_path, tree_j2=tree), capsys) == [("wrong/config.j2", 3, "E_CONFIG_KEY")]
