"""Versions are ordered as dpkg and python-debian order them."""

from __future__ import annotations

import itertools
import random
import subprocess

import pytest
from debian.debian_support import NativeVersion

from provisioner.deb import version

CURIOUS = (  # noqa: SIM905 - a list of 38 strings would hide them in quotes
    "0 1 1.0 1.00 1.0-0 1.0-1 0:1 1:0 1:0.1 1.0~ 1.0~rc1 1.0~~ 1.0~~a 1.0a 1.0+b1 1.0. 1.0.0"
    " 1.a 1.A 1.0-1~bpo12+1 1.0-1+b2 2.41-12+deb13u5 2:1-0 1-1-1 1.2.3-4-5 1.010 1.09 1.9 1.10"
    " 1+really0 1:3.6.1-2.1 5.2.1+dfsg1-1 20250216-2 0.0~git2023 a b z"
).split()


def sample(count: int) -> list[tuple[str, str]]:
    chance = random.Random(7)
    pieces = ["~", "+", ".", "-", ":", "a", "rc", "Z", "0", "00", "1", "9", "10", "deb13u1", "b2"]
    words = pieces[:4] + pieces[5:]  # one epoch at most
    made = ["1" + "".join(chance.choices(words, k=chance.randint(0, 6))) for _ in range(count)]
    made = [each + "0" if each.endswith("-") else each for each in made]
    return list(zip(made, [chance.choice(made) for _ in made], strict=True))


def test_the_order_of_curious_and_of_random_versions_is_python_debians() -> None:
    pairs = [*itertools.product(CURIOUS, repeat=2), *sample(4000)]

    for a, b in pairs:
        theirs = NativeVersion(a)._compare(NativeVersion(b)) if ":" not in a[2:] else 0
        assert version.compare(a, b) == (theirs > 0) - (theirs < 0), (a, b)


def test_the_order_is_dpkgs() -> None:
    pairs = [*itertools.combinations(CURIOUS[:24], 2), *sample(300)]
    script = (
        'while read a b; do if dpkg --compare-versions "$a" lt "$b"; then echo -1;'
        ' elif dpkg --compare-versions "$a" eq "$b"; then echo 0; else echo 1; fi; done'
    )

    answer = subprocess.run(
        ["/bin/sh", "-c", script],
        input="".join(f"{a} {b}\n" for a, b in pairs),
        capture_output=True,
        text=True,
        check=True,
    )

    assert [version.compare(a, b) for a, b in pairs] == list(map(int, answer.stdout.split()))


@pytest.mark.parametrize(
    ("have", "operator", "wanted", "holds"),
    [
        ("1.0", "", "", True),
        ("", "", "", True),
        ("", ">=", "1", False),
        ("1.0-1", "=", "0:1.0-1", True),
        ("1.0~rc1", "<<", "1.0", True),
        ("1.0", "<<", "1.0", False),
        ("1.0", "<=", "1.0", True),
        ("1.0+b1", ">>", "1.0", True),
        ("1.0", ">>", "1.0", False),
        ("1:0", ">=", "9", True),
    ],
    ids=str,
)
def test_a_condition_holds_as_policy_says(
    have: str, operator: str, wanted: str, holds: bool
) -> None:
    assert version.satisfies(have, operator, wanted) is holds


def test_keys_sort_as_versions_compare() -> None:
    ordered = sorted(CURIOUS, key=version.sort_key)

    assert all(version.compare(a, b) <= 0 for a, b in itertools.pairwise(ordered))
