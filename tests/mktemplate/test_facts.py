"""What `--network` means."""

from __future__ import annotations

import pytest

from mktemplate.errors import CommandError
from mktemplate.template.facts import Network, network
from runtime.bundle import Port


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", Network()),
        ("bridge", Network()),
        ("bridge,internal", Network(link="mkti0")),
        ("bridge,ipv6", Network(ipv6=True)),
        ("bridge,ipv6,internal", Network(link="mkti0", ipv6=True)),
        ("none", Network(kind="none", link="")),
        ("macvlan:eth0", Network(kind="macvlan", link="eth0")),
    ],
)
def test_a_network_is_what_its_words_say(text: str, meant: Network) -> None:
    assert network(text, flat=False) == meant


@pytest.mark.parametrize(
    "text", ["bridge,", "bridge,lan", "none,ipv6", "host,internal", "macvlan", "bridge:eth0", "x"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        network(text, flat=False)

    assert caught.value.code == "E_PARAM"


def test_whoever_publishes_on_an_ipv6_address_has_one_if_it_is_on_a_bridge() -> None:
    ports = (Port(host=1, container=1), Port(host=1, container=1, address="::"))

    assert network("bridge", flat=False, ports=ports).ipv6
    assert not network("bridge", flat=False, ports=ports[:1]).ipv6
    assert network("", flat=True, ports=ports) == Network(kind="router", link="")
