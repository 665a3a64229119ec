"""No key of LXC is silently without effect: refused by name, or said at every start."""

from __future__ import annotations

import pytest

from runtime import config, keydocs
from runtime.errors import ConfigError
from runtime.refuse import notes, refuse

_VETH = "lxc.net.0.type = veth\nlxc.net.0.link = br0\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (_VETH + "lxc.net.0.l2proxy = 1\n", "lxc.net.N.l2proxy"),
        (_VETH + "lxc.net.0.ipv6.gateway = auto\n", "lxc.net.N.ipv6.gateway"),
        ("lxc.net.0.type = veth\nlxc.net.0.veth.vlan.id = 7\n", "lxc.net.N.veth.vlan"),
        (
            _VETH + "lxc.net.0.veth.mode = router\nlxc.net.0.veth.vlan.tagged.id = 7\n",
            "lxc.net.N.veth.vlan",
        ),
        ("lxc.net.0.type = phys\nlxc.net.0.link = eth+\n", "lxc.net.N.link"),
        ("lxc.console.path = /dev/tty9\n", "lxc.console.path"),
    ],
)
def test_what_a_start_cannot_do_is_refused_by_name(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse(config.parse(text + "lxc.rootfs.path = /srv/root\n"))

    assert (caught.value.code, caught.value.subject) == ("E_CONFIG_KEY", key)
    assert f"`{key.removesuffix('.*')}" in keydocs.page()


def test_what_a_start_leaves_out_is_said() -> None:
    said = notes(config.parse("lxc.signal.stop = SIGTERM\nlxc.tty.dir = lxc\n"))

    assert [note.partition(":")[0] for note in said] == ["lxc.signal.stop", "lxc.tty.dir"]


def test_the_page_of_keys_is_what_the_tables_say() -> None:
    from pathlib import Path

    page = Path(__file__).parent.parent.parent / "docs" / "lxc-keys.md"

    assert page.read_text() == keydocs.page()
