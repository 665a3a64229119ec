"""The command line becomes one Request, or an error of the contract."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from mktemplate.cli import manpage, usage, verbexamples
from mktemplate.cli.grammar import ALIASES, BY_NAME, ELSEWHERE, VERBS
from mktemplate.cli.parsing import parse, unknown_word
from mktemplate.errors import CommandError
from tests.conftest import lacking

CONTRACT = """
    templates show distros render plan create up run start stop restart kill freeze unfreeze wait exec shell
    console ssh cp logs list ls ps info top config check copy rename snapshot outdated upgrade rollback why
    destroy export import push pull lock diff sbom autostart unit prune store trust new test-template adopt
    compose doctor completion help
"""


def test_a_first_word_that_is_no_verb_is_a_template() -> None:
    request = parse(["sshd", "web", "--flat"])

    assert (request.verb, request.words, request.build.flat) == ("create", ("sshd", "web"), True)


@pytest.mark.parametrize("argv", [["ls"], ["ps"], ["list"]], ids=" ".join)
def test_list_has_short_forms(argv: list[str]) -> None:
    assert parse(argv).verb == "list"


def test_options_may_stand_anywhere() -> None:
    before = parse(["--path", "/x", "--distro", "debian", "create", "sshd", "web"])
    between = parse(["create", "--distro", "debian", "sshd", "--path", "/x", "web"])
    after = parse(["create", "sshd", "web", "--path=/x", "--distro=debian"])

    assert before == between == after


def test_what_stands_after_two_dashes_is_no_option() -> None:
    request = parse(["exec", "--user", "bob", "web", "--", "ls", "-la", "--json"])

    assert request.command == ("ls", "-la", "--json")
    assert (request.flags.user, request.json) == ("bob", False)


def test_a_name_after_two_dashes_is_still_a_name() -> None:
    assert parse(["create", "nginx", "--", "-rf"]).words == ("nginx", "-rf")


def test_ssh_takes_its_command_with_or_without_dashes() -> None:
    assert parse(["ssh", "web", "id"]).command == ("id",)
    assert parse(["ssh", "web", "--", "id", "-u"]).command == ("id", "-u")


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(CommandError, match="E_USAGE"):
        parse(["create", "sshd", "--dist", "debian"])


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["exec", "web"], "E_USAGE"),
        (["create"], "E_USAGE"),
        (["create", "a", "b", "c"], "E_USAGE"),
        (["list", "--bogus"], "E_USAGE"),
        (["create", "sshd", "--as-of", "yesterday"], "E_PARAM"),
        (["create", "sshd", "--as-of", "2026-13-01"], "E_PARAM"),
        (["create", "sshd", "--solver", "3.0"], "E_PARAM"),
        (["create", "sshd", "--solver", "best"], "E_PARAM"),
        (["create", "sshd", "--publish", "99999"], "E_PARAM"),
        (["create", "sshd", "--memory", "lots"], "E_PARAM"),
        (["create", "sshd", "--env", "FOO"], "E_ENV"),
        (["create", "sshd", "--env", "=x"], "E_ENV"),
        (["create", "sshd", "--secret", "password=hunter2"], "E_PARAM"),
        (["create", "sshd", "--set", "port"], "E_PARAM"),
        (["create", "sshd", "--volume", "/srv/a"], "E_PARAM"),
        (["wait", "web", "--state", "HAPPY"], "E_USAGE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_word_that_cannot_be_meant_is_refused(argv: list[str], code: str) -> None:
    with pytest.raises(CommandError) as raised:
        parse(argv)

    assert raised.value.code == code


def test_a_secret_never_appears_in_the_error_about_it() -> None:
    with pytest.raises(CommandError) as raised:
        parse(["create", "sshd", "--secret", "password=hunter2"])

    assert "hunter2" not in f"{raised.value} {raised.value.hints}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ("127.0.0.1", 80, 80, "tcp")),
        ("8080:80", ("127.0.0.1", 8080, 80, "tcp")),
        ("0.0.0.0:8080:80", ("0.0.0.0", 8080, 80, "tcp")),
        ("[::1]:8080:80", ("::1", 8080, 80, "tcp")),
        ("53/udp", ("127.0.0.1", 53, 53, "udp")),
    ],
)
def test_publish_reads_address_host_and_container(
    text: str, expected: tuple[str, int, int, str]
) -> None:
    [port] = parse(["create", "nginx", "--publish", text]).build.publish

    assert (port.address, port.host, port.container, port.proto) == expected


def test_the_verbs_are_those_of_the_contract_and_each_has_a_page() -> None:
    assert {*BY_NAME, *ALIASES} == set(CONTRACT.split())
    for verb in VERBS:
        assert f"mktemplate {verb.name}" in usage.verb_page(verb.name)


def test_help_lists_no_verb_that_is_not_here() -> None:
    page = usage.overview(everything=True)

    listed = {line.split()[0] for line in page.split("Verbs:")[1].split("\n") if line[:2] == "  "}
    assert listed == set(BY_NAME)


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_shows_itself_at_work(verb: str) -> None:
    rows = verbexamples.EXAMPLES[verb]

    for line, _ in rows:
        program, *argv = shlex.split(line)
        assert (program, parse(argv).verb) == ("mktemplate", verb)


def test_the_man_page_names_every_verb_and_option_and_man_reads_it() -> None:
    page = manpage.page()

    for verb in VERBS:
        assert f".B {verb.name}".replace("-", "\\-") in page
        for option in verb.options:
            assert option.names[0].replace("-", "\\-") in page
    if shutil.which("groff") is None:
        lacking("groff")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8"], input=page, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("word", ELSEWHERE)
def test_what_others_call_a_verb_is_led_to_ours(word: str) -> None:
    assert word not in BY_NAME
    if not ELSEWHERE[word].startswith("-"):
        assert ELSEWHERE[word] in BY_NAME
    assert ELSEWHERE[word] in unknown_word(word, ()).hints[0]
