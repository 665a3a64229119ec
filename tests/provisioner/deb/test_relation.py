"""Relationship fields are read as dpkg and apt read them, or refused."""

from __future__ import annotations

import pytest

from provisioner.deb.relation import (
    parse_clauses,
    parse_relation,
    parse_relations,
    spell,
    spell_clauses,
    spell_relations,
)
from provisioner.errors import UntrustedIndex
from provisioner.index import Clause, Relation


def test_a_field_becomes_clauses_of_alternatives() -> None:
    clauses = parse_clauses(
        "libc6 (>= 2.38), default-mta | mail-transport-agent,\n perl:any (<< 6~)"
    )

    assert clauses == (
        Clause((Relation(name="libc6", operator=">=", version="2.38"),)),
        Clause((Relation(name="default-mta"), Relation(name="mail-transport-agent"))),
        Clause((Relation(name="perl", qualifier="any", operator="<<", version="6~"),)),
    )


def test_an_empty_field_has_no_clauses() -> None:
    assert parse_clauses("") == parse_relations("") == ()


def test_the_old_spellings_mean_or_equal() -> None:
    assert parse_relation("a1 (< 1)").operator == "<="
    assert parse_relation("a1 (> 1)").operator == ">="


def test_spaces_do_not_matter() -> None:
    assert parse_relation(" foo(>=1.0 ) ") == parse_relation("foo (>= 1.0)")


@pytest.mark.parametrize("text", ["foo", "foo:any", "foo (>= 1:2.0-3)", "foo:native (= 1)"])
def test_a_relation_is_spelled_as_it_was_read(text: str) -> None:
    assert spell(parse_relation(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo (>= )",
        "foo (~ 1)",
        "foo (>= 1",
        "../foo",
        "foo bar",
        "foo (>= 1\x00)",
        "foo\n(>= １)",
    ],
    ids=repr,
)
def test_what_is_no_relation_is_refused(text: str) -> None:
    with pytest.raises(UntrustedIndex, match="E_TRUST_FIELD"):
        tuple(parse_relations(f"good, {text}, good"))


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("a1, b2 (>= 1.0-1) | c3:any, d4 (<< 2:3~)", "a1, b2 (>= 1.0-1) | c3:any, d4 (<< 2:3~)"),
        ("a1,b2(>=1)|c3", "a1, b2 (>= 1) | c3"),
        ("a1 (> 1), b2 (< 2)", "a1 (>= 1), b2 (<= 2)"),
        ("a1,\n b2,", "a1, b2"),
        ("", ""),
    ],
)
def test_a_field_is_spelt_the_same_whether_it_was_looked_at_or_not(text: str, spelt: str) -> None:
    read = tuple(parse_clauses(text))

    assert spell_clauses(parse_clauses(text)) == spell_clauses(read) == spelt
    if "|" not in text:
        assert spell_relations(parse_relations(text)) == spelt


def test_a_relation_with_alternatives_is_refused_where_it_is_spelt() -> None:
    with pytest.raises(UntrustedIndex):
        spell_relations(parse_relations("a1 | b2"))
