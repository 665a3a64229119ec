"""An upgrade renders the texts of a container anew; what its owner changed in them stays."""

from __future__ import annotations

import pytest

from mktemplate.life import edits

MADE = (
    "# common\nlxc.uts.name = web\nlxc.cap.drop = a\nlxc.cap.drop = b\nlxc.cgroup2.memory.max = 1\n"
)
FRESH = (
    "# common\nlxc.uts.name = web\nlxc.cap.drop = a\nlxc.cap.drop = c\nlxc.cgroup2.memory.max = 2\n"
)


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (MADE, FRESH),
        (MADE.replace("max = 1", "max = 9"), FRESH.replace("max = 2", "max = 9")),
        (MADE + "lxc.start.auto = 1\n", FRESH + "lxc.start.auto = 1\n"),
        (MADE.replace("lxc.cgroup2.memory.max = 1\n", ""), FRESH.replace("lxc.cgroup2.memory.max = 2\n", "")),
        (MADE.replace("drop = b", "drop = x"), FRESH.replace("drop = c", "drop = x")),
    ],
    ids=["nothing", "another value", "a new key", "a key taken out", "one of several lines"],
)  # fmt: skip
def test_a_key_that_its_owner_changed_stays_as_it_is(current: str, expected: str) -> None:
    assert edits.config(FRESH, current, MADE) == expected


def test_what_was_allotted_stays_though_nobody_changed_it() -> None:
    allotted = (
        "lxc.idmap = u 0 100000 65536\nlxc.net.0.hwaddr = 02:00:00:00:00:01\n"
        "lxc.net.0.ipv4.address = 10.0.5.2/24\n"
    )

    assert edits.config(FRESH, MADE + allotted, MADE + allotted) == FRESH + allotted


def test_the_layers_are_always_the_new_ones() -> None:
    old, new = (
        f"lxc.rootfs.path = overlay:/layers/{name}:/path/web/upper\n" for name in ("a", "b")
    )

    assert edits.config(new, old, None) == new


def test_without_what_was_made_every_line_is_the_owners() -> None:
    assert edits.config(FRESH, MADE, None) == MADE.replace("# common\n", "# common\n")


def test_lines_of_an_fstab_are_added_and_taken_out_again() -> None:
    made = "# mounts\nproc proc proc\n/srv srv none bind\n"
    current = "# mounts\nproc proc proc\n/data data none bind\n"
    fresh = "# mounts\nproc proc proc nosuid\n/srv srv none bind\n"

    assert edits.fstab(fresh, current, made) == (
        "# mounts\nproc proc proc nosuid\n/data data none bind\n"
    )
    assert edits.fstab(fresh, current, None) == current
