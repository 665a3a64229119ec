"""The resolver chooses what apt's internal solver chooses, in an order that can be installed, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.errors import Unresolvable
from provisioner.index import Package
from provisioner.resolver import PackageSet, resolve, why
from tests.provisioner.offering import index_of

BASE = ("base 1 ; Essential: yes ; Pre-Depends: libc (>= 1)", "libc 1")


def names(packages: tuple[Package, ...]) -> list[str]:
    return [each.name for each in packages]


def added(tmp_path: Path, wanted: str, *lines: str, recommends: bool = False) -> list[str]:
    return names(
        resolve(wanted.split(), index_of(tmp_path, *BASE, *lines), recommends=recommends).added
    )


def test_the_essential_closure_stands_apart_from_what_is_added(tmp_path: Path) -> None:
    chosen = resolve(["app"], index_of(tmp_path, *BASE, "app 1 ; Depends: lib, libc", "lib 1"))

    assert names(chosen.essential) == ["libc", "base"]
    assert names(chosen.added) == ["lib", "app"]
    assert chosen.packages == chosen.essential + chosen.added


def test_nothing_wanted_is_the_essential_closure_alone(tmp_path: Path) -> None:
    assert resolve([], index_of(tmp_path, *BASE)).added == ()


def test_the_first_alternative_that_can_be_is_taken(tmp_path: Path) -> None:
    lines = ("app 1 ; Depends: gone | hard | soft", "hard 1 ; Depends: missing", "soft 1")

    assert added(tmp_path, "app", *lines) == ["soft", "app"]


def test_an_alternative_that_will_be_there_anyway_is_enough(tmp_path: Path) -> None:
    lines = ("app 1 ; Depends: one | two", "one 1", "two 1")

    assert added(tmp_path, "app two", *lines) == ["two", "app"]


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ("", " ; Priority: important", "b-mta"),
        ("", " ; Protected: yes", "b-mta"),
        (" ; Priority: optional", " ; Priority: optional", "b-mta"),  # the one mentioned last
        (" ; Priority: standard", " ; Priority: optional", "a-mta"),
    ],
)
def test_providers_are_preferred_as_apt_prefers_them(
    first: str, second: str, chosen: str, tmp_path: Path
) -> None:
    one = f"a-mta 1 ; Provides: mta{first or ' ; Priority: optional'}"
    other = f"b-mta 1 ; Provides: mta{second if 'Priority' in second else ' ; Priority: optional' + second}"

    assert added(tmp_path, "app", "app 1 ; Depends: mta", one, other) == [chosen, "app"]


def test_a_versioned_provides_counts_only_with_its_version(tmp_path: Path) -> None:
    lines = ("old 1 ; Provides: api", "mid 1 ; Provides: api (= 2)", "new 1 ; Provides: api (= 3)")

    assert added(tmp_path, "app", "app 1 ; Depends: api (= 2)", *lines) == [
        "mid",
        "app",
    ]


def test_any_architecture_wants_a_package_that_allows_it(tmp_path: Path) -> None:
    lines = (
        "perl 5 ; Multi-Arch: allowed ; Provides: perlapi",
        "app 1 ; Depends: perl:any, perlapi:any",
    )

    assert added(tmp_path, "app", *lines) == ["perl", "app"]
    with pytest.raises(Unresolvable, match="depends on libc:any"):
        added(tmp_path, "bad", "bad 1 ; Depends: libc:any")


def test_recommendations_come_only_when_asked_for_and_may_be_missing(tmp_path: Path) -> None:
    lines = ("app 1 ; Recommends: nice, missing", "nice 1")

    assert added(tmp_path, "app", *lines) == ["app"]
    assert added(tmp_path, "app", *lines, recommends=True) == ["app", "nice"]


def test_what_a_failed_alternative_marked_is_swept(tmp_path: Path) -> None:
    lines = (
        "app 1 ; Depends: first | second",
        "first 1 ; Depends: left, right",
        "left 1",
        "right 1 ; Conflicts: app",
        "second 1",
    )

    assert added(tmp_path, "app", *lines) == ["second", "app"]


def test_a_cycle_is_resolved_and_ordered_the_same_each_time(tmp_path: Path) -> None:
    lines = ("app 1 ; Depends: data", "data 1 ; Pre-Depends: app")

    assert added(tmp_path, "app", *lines) == added(tmp_path, "data", *lines) == ["app", "data"]


def test_every_package_stands_after_what_it_depends_on(tmp_path: Path) -> None:
    lines = [f"p{n} 1 ; Depends: p{n + 1}, p{(n * 7) % 40 + n + 1}" for n in range(1, 60)]
    lines += [f"p{n} 1" for n in range(60, 140)]
    order = added(tmp_path, "p1", *lines)

    for at, name in enumerate(order):
        number = int(name[1:])
        assert number >= 60 or f"p{number + 1}" in order[:at]


def test_a_deep_chain_does_not_run_into_pythons_limit(tmp_path: Path) -> None:
    lines = [f"p{n} 1 ; Depends: p{n + 1}" for n in range(1500)]

    assert len(added(tmp_path, "p0", *lines, "p1500 1")) == 1501


def test_a_version_can_be_asked_for(tmp_path: Path) -> None:
    index = index_of(tmp_path, *BASE, "app 2", "app 1", "libc 2")

    assert resolve(["app=1", "base"], index).added[0].version == "1"
    assert [each.version for each in resolve(["libc=1"], index).essential] == ["1", "1"]


def test_a_virtual_name_stands_for_its_only_provider(tmp_path: Path) -> None:
    assert added(tmp_path, "mta", "exim 1 ; Provides: mta") == ["exim"]


def failing(tmp_path: Path, wanted: str, *lines: str) -> Unresolvable:
    with pytest.raises(Unresolvable) as failure:
        added(tmp_path, wanted, *lines)
    return failure.value


def test_a_virtual_name_with_several_providers_wants_a_choice(tmp_path: Path) -> None:
    error = failing(tmp_path, "mta", "exim 1 ; Provides: mta", "dma 1 ; Provides: mta")

    assert (error.code, error.detail) == ("E_NOTFOUND", "is virtual, provided by dma, exim")


def test_a_name_that_does_not_exist_is_answered_with_its_neighbour(tmp_path: Path) -> None:
    error = failing(tmp_path, "nginxx", "nginx 1")

    assert (error.code, error.subject) == ("E_NOTFOUND", "nginxx")
    assert error.detail == "no package in trixie/main amd64 (did you mean nginx?)"


def test_a_dependency_that_nothing_meets_is_told_with_its_chain(tmp_path: Path) -> None:
    error = failing(
        tmp_path, "app", "app 1 ; Depends: lib", "lib 1 ; Depends: libfoo (>= 2)", "libfoo 1.9"
    )

    assert (error.code, error.subject) == ("E_NOTFOUND", "lib")
    assert error.detail == "depends on libfoo (>= 2), newest is 1.9"
    assert "app → lib" in error.hints[0]


def test_a_conflict_is_told_with_the_chain_to_each_side(tmp_path: Path) -> None:
    lines = (
        "one 1 ; Depends: left",
        "left 1 ; Conflicts: right",
        "two 1 ; Depends: right",
        "right 3",
    )
    error = failing(tmp_path, "one two", *lines)

    assert (error.code, error.subject) == ("E_PARAM", "left")
    assert error.detail == "conflicts with right (3 is chosen); they cannot be together"
    assert "one → left" in error.hints[0]
    assert "two → right" in error.hints[1]


def test_what_excludes_the_essential_closure_is_refused(tmp_path: Path) -> None:
    error = failing(tmp_path, "app", "app 1 ; Conflicts: base")

    assert error.code == "E_PARAM"


@pytest.mark.parametrize(
    "word", ["", "N", "../x", "a b", "foo=", "foo\n", "foo=1=2", "--help"], ids=repr
)
def test_a_word_that_is_no_package_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(Unresolvable, match="E_PARAM"):
        resolve([word], index_of(tmp_path, *BASE))


def test_why_tells_the_chain_to_a_package(tmp_path: Path) -> None:
    lines = ("app 1 ; Depends: mid (>= 1)", "mid 1 ; Depends: leaf", "leaf 1")
    chosen = resolve(["app"], index_of(tmp_path, *BASE, *lines))

    assert why(chosen, "leaf") == (
        "app was asked for",
        "app asks for mid (>= 1)",
        "mid asks for leaf",
    )
    assert why(chosen, "libc") == ("base is essential", "base asks for libc (>= 1)")
    assert why(chosen, "nothing") == ()


def test_the_digest_depends_on_the_packages_and_not_on_their_order(tmp_path: Path) -> None:
    chosen = resolve(["app"], index_of(tmp_path, *BASE, "app 1", "other 1"))
    turned = PackageSet(essential=chosen.essential[::-1], added=chosen.added)

    assert chosen.digest == turned.digest
    assert chosen.digest != resolve(["other"], index_of(tmp_path, *BASE, "app 1", "other 1")).digest


def test_an_answer_is_found_once_for_the_same_files(tmp_path: Path) -> None:
    lines = ("sh 1 ; Essential: yes ; Depends: libc (>= 1)", "libc 2 ; Provides: cc", "web 1")
    first = resolve(["web"], index_of(tmp_path, *lines))
    kept = list(tmp_path.glob("*.chosen"))

    again = resolve(["web"], index_of(tmp_path, *lines))
    asked: list[str] = []
    index_of(tmp_path, *lines).base(lambda: asked.append("base") or ())
    index_of(tmp_path, *lines).recall(("web", False, True), lambda: asked.append("web") or ())

    assert again == first
    assert not asked
    assert len(kept) == 2
    for each in kept:
        each.write_bytes(each.read_bytes()[:-9])
    assert resolve(["web"], index_of(tmp_path, *lines)) == first


def test_a_known_answer_needs_no_map_of_the_index(tmp_path: Path) -> None:
    lines = ("sh 1 ; Essential: yes", "exim 1 ; Provides: mta", "web 1 ; Depends: mta")
    first = resolve(["web", "exim"], index_of(tmp_path, *lines))

    index = index_of(tmp_path, *lines)
    for each in tmp_path.glob("*.index"):
        each.write_bytes(b"")

    assert resolve(["web", "exim"], index) == first
    assert [each.stat().st_size for each in tmp_path.glob("*.index")] == [0]


def test_a_virtual_name_means_the_same_package_when_its_answer_is_known(tmp_path: Path) -> None:
    lines = ("sh 1 ; Essential: yes", "exim 1 ; Provides: mta")

    meant = [resolve(["mta"], index_of(tmp_path, *lines)).wanted for _ in range(2)]

    assert meant == [("exim",), ("exim",)]


def test_another_question_has_another_answer(tmp_path: Path) -> None:
    lines = ("sh 1 ; Essential: yes", "web 1 ; Recommends: more", "more 1", "web 2")

    def names(*wanted: str, recommends: bool = False) -> list[str]:
        chosen = resolve(wanted, index_of(tmp_path, *lines), recommends=recommends)
        return sorted(f"{each.name}={each.version}" for each in chosen.added)

    for _ in range(2):
        assert names("web=1") == ["web=1"]
        assert names("web=1", recommends=True) == ["more=1", "web=1"]
        assert names("web") == ["web=2"]
        assert names("more") == ["more=1"]


def test_another_index_has_another_essential_closure(tmp_path: Path) -> None:
    resolve([], index_of(tmp_path, "sh 1 ; Essential: yes"))

    chosen = resolve([], index_of(tmp_path, "sh 2 ; Essential: yes"))

    assert [each.version for each in chosen.essential] == ["2"]
