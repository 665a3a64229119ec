"""What a container was asked to be is recorded so that it can be asked for again, value by value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mktemplate.cli.parsing import parse
from mktemplate.making import recorded
from runtime.bundle import Record

RECORD = Record(
    name="web", template="nginx", distro="debian", release="trixie", arch="amd64", created="x"
)
WORDS = (
    *("--set", "greeting=a, b=c", "--set", "root=/srv"), *("--env", "A=1, B=2"), "--slim",
    *("--packages", "curl,/debs/x.deb"), *("--publish", "8080:80", "--publish", "[::1]:53:53/udp"),
    *("--volume", "/srv/a:/a:ro", "--volume", "/srv/b:/b:owner=www-data"), *("--device", "/dev/null:group=tty"),
    *("--memory", "64M", "--cpus", "0.5", "--pids", "9"), *("--restart", "on-failure:3"), "--no-userns",
    *("--grant", "seccomp:ptrace"), *("--mirror", "http://mine/debian"), *("--ssh-key", "/keys/a.pub"),
)  # fmt: skip


def test_every_value_comes_back_as_it_was_given() -> None:
    request = parse(["create", "nginx", "web", *WORDS])

    record = replace(RECORD, options=recorded.given_options(request))
    again = recorded.build(record, parse(["upgrade", "web"]))

    assert again == replace(request.build, distro="debian", release="trixie", arch="amd64")


@pytest.mark.parametrize(
    "words",
    [("--as-of", "2026-01-01", "--mirror", "http://old/{timestamp}"), ("--allow-stale", "9")],
    ids=["as-of", "allow-stale"],
)
def test_what_chose_the_packages_of_that_day_is_not_asked_again(words: tuple[str, ...]) -> None:
    request = parse(["create", "nginx", "web", *words])

    record = replace(RECORD, options=recorded.given_options(request))
    again = recorded.build(record, parse(["upgrade", "web"]))

    assert (again.as_of, again.mirror, again.allow_stale) == ("", "", 0)


def test_where_packages_come_from_may_be_said_anew() -> None:
    record = replace(RECORD, options=(("mirror", "http://old/debian"),))

    again = recorded.build(record, parse(["upgrade", "web", "--mirror", "http://new/debian"]))

    assert again.mirror == "http://new/debian"


def test_the_values_of_one_option_are_shown_side_by_side() -> None:
    assert recorded.shown((("sets", "a=1"), ("sets", "b=2"), ("flat", "True"))) == {
        "sets": "a=1, b=2",
        "flat": "True",
    }
