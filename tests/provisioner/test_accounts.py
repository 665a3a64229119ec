"""Users and groups of a tree: sysusers.d(5) semantics on the four account files."""

from __future__ import annotations

import pytest

from provisioner import accounts
from provisioner.errors import ProvisionError
from provisioner.tree import Group, Member, User

BASE = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nmail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n",
    "group": "root:x:0:\nmail:x:8:\nutmp:x:998:\n",
    "shadow": "root:*:19000:0:99999:7:::\nmail:*:19000:0:99999:7:::\n",
    "gshadow": "root:*::\nmail:*::\nutmp:*::\n",
}


def added(*wanted: User | Group | Member) -> dict[str, str]:
    after = accounts.extend(BASE, wanted, 20_000)
    return {name: text.removeprefix(BASE[name]) for name, text in after.items()}


def test_a_user_gets_a_group_and_one_free_number_for_both() -> None:
    new = added(User(name="redis", gecos="Redis", home="/var/lib/redis"))

    assert new == {
        "passwd": "redis:x:999:999:Redis:/var/lib/redis:/usr/sbin/nologin\n",
        "group": "redis:x:999:\n",
        "shadow": "redis:!*:20000::::::\n",
        "gshadow": "redis:!*::\n",
    }


def test_free_numbers_go_downwards_past_what_is_taken() -> None:
    new = added(User(name="one"), User(name="two"))

    assert "one:x:999:999:" in new["passwd"]
    assert "two:x:997:997:" in new["passwd"]  # 998 is utmp's


def test_numbers_that_are_asked_for_are_given() -> None:
    new = added(Group(name="web", gid=4000), User(name="web", uid=4001, gid=4000))

    assert new["passwd"] == "web:x:4001:4000::/:/usr/sbin/nologin\n"
    assert new["group"] == "web:x:4000:\n"


def test_running_twice_changes_nothing() -> None:
    wanted = (User(name="redis"), Group(name="web"), Member(user="redis", group="mail"))
    once = accounts.extend(BASE, wanted, 20_000)

    assert accounts.extend(once, wanted, 30_000) == once


def test_what_exists_stays_as_it_is() -> None:
    assert not any(added(User(name="mail", uid=5), Group(name="utmp", gid=6)).values())


def test_a_member_is_in_group_and_gshadow() -> None:
    after = accounts.extend(BASE, (User(name="redis"), Member(user="redis", group="mail")), 1)

    assert "mail:x:8:redis\n" in after["group"]
    assert "mail:*::redis\n" in after["gshadow"]


@pytest.mark.parametrize("node", [User(name="new", uid=8), Group(name="new", gid=8)])
def test_a_number_that_is_taken_is_refused_by_name(node: User | Group) -> None:
    with pytest.raises(ProvisionError, match="id 8 is mail's already"):
        accounts.extend(BASE, (node,), 1)


def test_an_unknown_owner_is_named() -> None:
    known = accounts.numbers(BASE)

    assert (known.user("mail"), known.group("utmp"), known.user("77")) == (8, 998, 77)
    with pytest.raises(ProvisionError, match="E_USER: nobody-here"):
        known.user("nobody-here")


def test_missing_files_are_made() -> None:
    after = accounts.extend({}, (User(name="root", uid=0, home="/root", shell="/bin/sh"),), 1)

    assert after["passwd"] == "root:x:0:0::/root:/bin/sh\n"
    assert after["group"] == "root:x:0:\n"


def test_alone_everybody_is_root_by_another_name() -> None:
    after = accounts.alone(accounts.extend(BASE, (User(name="redis", home="/r"),), 20_000))

    assert after["passwd"].split("\n")[1:3] == [
        "mail:x:0:0:mail:/var/mail:/usr/sbin/nologin",
        "redis:x:0:0::/r:/usr/sbin/nologin",
    ]
    assert after["group"] == "root:x:0:\nmail:x:0:\nutmp:x:0:\nredis:x:0:\n"
    assert after["shadow"] == BASE["shadow"] + "redis:!*:20000::::::\n"
