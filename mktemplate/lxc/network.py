"""The nics of a configuration as python3-lxc shows them: a list, and each with its subkeys as attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mktemplate.lxc.configured import Configured

_OWN = frozenset(("container", "index", "props"))


class ContainerNetwork:
    """One nic: `ipv4_address` is lxc.net.N.ipv4.address."""

    container: Configured
    index: int
    props: dict[str, str]  # attribute → subkey

    def __init__(self, container: Configured, index: int) -> None:
        """Look at the nic `index`, whose type decides which attributes it has."""
        self.container = container
        self.index = index
        self.props = {key.replace(".", "_"): key for key in container.get_keys(f"lxc.net.{index}")}

    def __dir__(self) -> list[str]:
        return sorted(self.props)

    def __repr__(self) -> str:
        return f"'{self.type}' network at index '{self.index}'"

    def __getattr__(self, key: str) -> str | list[str]:
        return self.container.get_config_item(self._key(key))

    def __setattr__(self, key: str, value: object) -> None:
        if key in _OWN:
            object.__setattr__(self, key, value)
        else:
            self.container.set_config_item(self._key(key), value)

    def __delattr__(self, key: str) -> None:
        self.container.clear_config_item(self._key(key))

    def __hasattr__(self, key: str) -> bool:
        """Return True; AttributeError where it has no such attribute."""
        self._key(key)
        return True

    def _key(self, name: str) -> str:
        if name in _OWN or name not in self.props:
            raise AttributeError(f"network {self.index} has no attribute '{name}'")
        return f"lxc.net.{self.index}.{self.props[name]}"


class ContainerNetworkList:
    """The nics, by number; asked for the one after the last, it adds it."""

    def __init__(self, container: Configured) -> None:
        """Look at the nics of `container`."""
        self.container = container

    def __getitem__(self, index: int) -> ContainerNetwork:
        if index >= len(self):
            self.add("temp_type")
        return ContainerNetwork(self.container, index)

    def __iter__(self) -> Iterator[ContainerNetwork]:
        """Give each nic; without this a `for` would add nics for ever."""
        return (ContainerNetwork(self.container, index) for index in range(len(self)))

    def __len__(self) -> int:
        try:
            return len(self.container.get_config_item("lxc.net"))
        except KeyError:
            return 0

    def add(self, network_type: str) -> bool:
        """Add a nic; whether there is such a type."""
        return self.container.set_config_item(f"lxc.net.{len(self)}.type", network_type)

    def remove(self, index: int) -> bool:
        """Take a nic away; those behind it keep their numbers. IndexError where there is none."""
        if index >= len(self):
            raise IndexError("list index out of range")
        return self.container.clear_config_item(f"lxc.net.{index}")
