"""Names and values from outside: what may pass, and in which words the rest is refused (B-01 to B-11, T-60)."""

from __future__ import annotations

import pytest

from mktemplate.cli.arguments import container_name
from mktemplate.errors import CommandError, escape, exit_status
from mktemplate.template.values import Option, read, settle

CONTROL = [*"\n\r\0\v\f\x1c\x1d\x1e\x85\u2028\u2029\x7f\x1b"]


@pytest.mark.parametrize("name", ["web", "Web1", "a.b_c-d", "0", "a" * 63])
def test_a_plain_word_may_name_a_container(name: str) -> None:
    assert container_name(name) == name


@pytest.mark.parametrize(
    ("name", "shown", "why"),
    [
        ("../evil", '"../evil"', "must start with a letter or digit"),
        ("a/b", '"a/b"', "only A-Z a-z 0-9"),
        ("", '""', "empty"),
        ("-rf", '"-rf"', "must start with a letter or digit"),
        ("web\nlxc.hook.start=/x", '"web\\x0alxc.hook.start=/x"', "only A-Z"),
        ("wéb", '"w\\xc3\\xa9b"', "only ASCII"),
        ("Ｗeb", '"\\xef\\xbc\\xb7eb"', "only ASCII"),
        ("a" * 64, '"' + "a" * 64 + '"', "64 characters, limit 63"),
        ("a..b", '"a..b"', 'contains ".."'),
        (".", '"."', "must start with a letter or digit"),
    ],
)
def test_any_other_name_is_refused_and_shown_escaped(name: str, shown: str, why: str) -> None:
    with pytest.raises(CommandError) as raised:
        container_name(name)

    assert (raised.value.code, raised.value.subject) == ("E_NAME", shown)
    assert why in raised.value.detail


@pytest.mark.parametrize("byte", CONTROL, ids=ascii)
@pytest.mark.parametrize("kind", ["str", "list", "path", "choice", "int"])
def test_no_value_holds_what_a_reader_may_take_for_a_line_end(byte: str, kind: str) -> None:
    option = Option(name="hostname", type=kind, choices=("a",))

    with pytest.raises(CommandError, match="E_PARAM: hostname: contains control byte"):
        read(option, f"a{byte}lxc.hook.start-host = /tmp/x")


def test_backslash_n_is_two_characters() -> None:
    assert read(Option(name="motd", type="str"), r"a\nb") == r"a\nb"


@pytest.mark.parametrize("text", ["８０", " 80", "1_0", "0x50", "70000", "0", "080", "-1", ""])
def test_a_port_is_a_plain_decimal_in_range(text: str) -> None:
    with pytest.raises(CommandError, match="is not a decimal integer in 1…65535"):
        read(Option(name="port", type="port"), text)


def test_an_unknown_option_names_the_nearest() -> None:
    options = (Option(name="port", type="port", default=80),)

    with pytest.raises(CommandError, match=r'no such option \(did you mean "port"'):
        settle("nginx", options, (("prot", "1"),))


def test_a_required_option_that_is_absent_is_named() -> None:
    with pytest.raises(CommandError, match='option "server_name" is required'):
        settle("nginx", (Option(name="server_name", type="str", required=True),), ())


def test_a_secret_is_refused_in_set_with_the_way_to_give_it() -> None:
    with pytest.raises(CommandError) as raised:
        settle("x", (Option(name="password", type="secret"),), (("password", "x"),))

    assert raised.value.detail == "is a secret"
    assert "--secret password=@FILE" in raised.value.hints[0]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("E_USAGE", 2),
        ("E_TRUST_BADSIG", 3),
        ("E_NET_RESOLVE", 4),
        ("E_MIRROR_CAPTIVE", 4),
        ("E_ARCHIVE_PATH", 5),
        ("E_SUBUID_MISSING", 6),
        ("E_NOSPACE", 7),
        ("E_EXISTS", 8),
        ("E_SCRIPT_FAILED", 9),
        ("E_INTERRUPTED", 130),
        ("E_NO_SUCH_CODE", 70),
    ],
)
def test_a_code_has_the_exit_status_of_its_family(code: str, status: int) -> None:
    assert exit_status(code) == status


def test_escaped_text_is_printable_ascii_on_one_line() -> None:
    assert escape("a\n\x1b[31m\udcffé") == r"a\x0a\x1b[31m\xff\xc3\xa9"
