"""A class of values is what the standard library would have made of it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from valuetypes import asdict, dataclass, field, fields, is_dataclass, made, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port."""

    host: int
    address: str = "127.0.0.1"
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.address}:{self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What has a port, things that are told to nobody, and a dict of its own."""

    port: Port
    more: tuple[Port, ...] = ()
    secret: str = field(default="", repr=False)
    looks: str = field(default="", compare=False)
    facts: dict[str, Port] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """What is given by place."""

    name: str
    size: int = 1


@dataclass(frozen=True, slots=True)
class ListKey(Key):
    """One with nothing to add, of a class of its own."""


@dataclass(slots=True)
class Count:
    """What changes."""

    count: int = 0
    seen: list[str] = field(default_factory=list)


PORT = Port(host=1)


def twin(cls: type) -> type:
    """Return what the standard library makes of the same fields."""
    shape = [
        (
            each.name,
            each.type,
            dataclasses.field(
                repr=each.repr,
                compare=each.compare,
                **{
                    name: getattr(each, name)
                    for name in ("default", "default_factory")
                    if getattr(each, name) is not made._MISSING
                },
            ),
        )
        for each in made.fields(cls)
    ]
    return dataclasses.make_dataclass(cls.__qualname__, shape, frozen=True, slots=True)


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (Port, {"host": 1}),
        (Port, {"host": 1, "address": "::1", "notes": ("a", "b'")}),
        (Service, {"port": PORT, "secret": "s", "looks": "x"}),
        (Service, {"port": PORT, "more": (PORT,), "facts": {"a": PORT}}),
        (Key, {"name": "n"}),
        (ListKey, {"name": "n", "size": 2}),
        (Count, {"count": 3}),
    ],
)
def test_it_reads_and_unfolds_as_the_standard_librarys(
    cls: Callable[..., Any], given: Mapping[str, object]
) -> None:
    ours, theirs = cls(**given), twin(cls)(**given)  # type: ignore[arg-type]  # a class, as each of them is

    assert repr(ours) == repr(theirs)
    assert asdict(ours) == dataclasses.asdict(theirs)
    assert [each.name for each in fields(ours)] == [
        each.name for each in dataclasses.fields(theirs)
    ]


def test_equal_fields_make_equal_values_of_one_class_only() -> None:
    assert Port(host=1) == PORT
    assert hash(Port(host=1)) == hash(PORT)
    assert Port(host=2) != PORT
    assert Key("a") != ListKey("a")
    assert Service(port=PORT, looks="x") == Service(port=PORT, looks="y")


def test_a_value_that_is_frozen_stays_as_it_is() -> None:
    with pytest.raises(AttributeError, match="Port is frozen: host"):
        PORT.host = 2
    with pytest.raises(AttributeError, match="Port is frozen: host"):
        del PORT.host
    with pytest.raises(AttributeError):
        Count().colour = 1


def test_what_is_not_frozen_changes_and_has_no_hash() -> None:
    one, other = Count(), Count()
    one.count = 2
    one.seen.append("a")

    assert (other.count, other.seen) == (0, [])
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Port, "missing host"),
        (lambda: Port(1), "0 arguments without a name, not 1"),
        (lambda: Port(host=1, hsot=2), "unexpected hsot"),
        (lambda: Key("a", 1, 2), "2 arguments without a name, not 3"),
        (lambda: Key("a", name="b"), "name twice"),
        (lambda: replace(PORT, hsot=2), "unexpected hsot"),
    ],
)
def test_arguments_that_do_not_fit_are_named(make: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


def test_the_standard_librarys_functions_take_values_of_ours() -> None:
    value = Service(port=PORT, more=(PORT,))

    assert dataclasses.is_dataclass(value) and is_dataclass(Service)
    assert dataclasses.replace(value, looks="x") == replace(value, looks="x")
    assert dataclasses.asdict(value) == asdict(value)
    assert [each.name for each in dataclasses.fields(Port)] == ["host", "address", "notes"]


def test_values_are_matched_copied_and_pickled() -> None:
    match Key("a", 2):
        case Key(name, size):
            assert (name, size) == ("a", 2)

    value = Service(port=PORT)

    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    assert value.port.shown == "127.0.0.1:1"


def test_nothing_is_compiled_and_the_standard_library_not_loaded() -> None:
    code = "import sys, runtime.bundle; sys.exit(bool({'dataclasses', 'inspect'} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)

    assert done.returncode == 0
