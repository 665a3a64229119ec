"""tests.toml → the tests of a template: what is run in a container of it, or beside it, and what that must say."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mktemplate.template import schema
from mktemplate.template.declared import ACCOUNT
from mktemplate.template.report import Report, document
from valuetypes import dataclass

FILE = "tests.toml"
INSIDE, HOST = "inside", "host"
_TOP = ("test", "set")


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One command, and how it must end."""

    __test__ = False  # pytest must not take it for one of its own

    name: str
    command: tuple[str, ...]
    on: str = INSIDE
    user: str = "root"  # who runs it, a name inside
    input: str = ""
    expected: str = ""  # its output holds this
    pattern: str = ""  # or this is found in it
    status: int = 0
    timeout: int = 30  # seconds
    restart: bool = False  # the container is restarted before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tests, and the options of the container that they are run with."""

    tests: tuple[Test, ...]
    sets: tuple[tuple[str, str], ...] = ()


def parse(text: str, path: str) -> Suite:
    """Return the checked tests of `text`, called `path`; raise all its problems at once."""
    data = document(text, path)
    report = Report(path, text)
    for key in data:
        if key not in _TOP:
            report.add(key, f"unknown key: there is {', '.join(_TOP)}")
    tests = tuple(
        _test(table, f"test[{number}]", report)
        for number, table in enumerate(report.tables(data.get("test", []), "test"))
    )
    suite = Suite(tests=tests, sets=_sets(data.get("set", {}), report))
    if not tests:
        report.add("test", "there is none: write [[test]]")
    report.check()
    return suite


def _sets(value: object, report: Report) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(
        isinstance(each, str | int) for each in value.values()
    ):
        report.add("set", "must be a table of options with texts, numbers, true or false")
        return ()
    return tuple(
        (key, str(each).lower() if isinstance(each, bool) else str(each))
        for key, each in value.items()
    )


def _is_word(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _test(table: Mapping[str, object], where: str, report: Report) -> Test:
    report.known(table, where, schema.TEST.names)
    command = table.get("command")
    if not isinstance(command, list) or not command or not all(map(_is_word, command)):
        report.add(f"{where}.command", "is required: a list of texts, the argv")
        command = []
    text = {
        key: report.text(table, key, f"{where}.{key}", default)
        for key, default in (
            ("name", ""),
            ("on", INSIDE),
            ("user", "root"),
            ("expected", ""),
            ("pattern", ""),
        )
    }
    if text["on"] not in (INSIDE, HOST):
        report.add(f"{where}.on", f"must be {INSIDE} or {HOST}")
    if ACCOUNT.fullmatch(text["user"]) is None:
        report.add(f"{where}.user", "is no user's name")
    try:
        re.compile(text["pattern"])
    except re.error as error:
        report.add(f"{where}.pattern", str(error))
    given = table.get("input", "")
    if not isinstance(given, str):
        report.add(f"{where}.input", "must be a text")
    return Test(
        name=text["name"] or " ".join(command)[:60],
        command=tuple(command),
        on=text["on"],
        user=text["user"],
        input=str(given),
        expected=text["expected"],
        pattern=text["pattern"],
        status=report.whole(table, "status", f"{where}.status", default=0, highest=255),
        timeout=report.whole(table, "timeout", f"{where}.timeout", default=30, highest=3600),
        restart=report.truth(table, "restart", f"{where}.restart"),
    )
