"""Dataclasses whose functions are there already.

The standard library writes the text of up to seven functions for each class and compiles them whenever its module is
loaded, which was half of what loading `create` took. Here they are closures over the names of the fields. Making a
value takes as long. Not offered: order, InitVar, ClassVar, fields that are not given to __init__.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MemberDescriptorType
from typing import Any, NoReturn

_FIELDS = "__fields__"  # of a class: name → Field, in order
_MISSING: Any = object()
_Put = Callable[[object, object], None]
_put = object.__setattr__


class Field:
    """One field of a class."""

    __slots__ = ("compare", "default", "default_factory", "name", "repr", "type")

    def __init__(self, default: Any, default_factory: Any, repr: bool, compare: bool) -> None:  # noqa: ANN401  # as in the standard library
        """Describe a field; its name and type come from the class."""
        self.name = self.type = ""
        self.default = default
        self.default_factory = default_factory
        self.repr = repr
        self.compare = compare


def field(
    *,
    default: Any = _MISSING,  # noqa: ANN401  # any value
    default_factory: Any = _MISSING,  # noqa: ANN401  # any callable
    repr: bool = True,  # as in the standard library
    compare: bool = True,
) -> Any:  # noqa: ANN401  # stands where the field's value would
    """Say more of a field than its default."""
    return Field(default, default_factory, repr, compare)


def dataclass(
    *, frozen: bool = False, slots: bool = False, kw_only: bool = False
) -> Callable[[type], type]:
    """Return what makes a class with annotations a class of values."""
    return lambda cls: _made(cls, frozen=frozen, slots=slots, kw_only=kw_only)


def fields(of: Any) -> tuple[Field, ...]:  # noqa: ANN401  # a class of values, or one of them
    """Return the fields of a class, or of a value's."""
    return tuple(getattr(of, _FIELDS).values())


def is_dataclass(of: object) -> bool:
    """Whether `of` is a class of values, or one of them."""
    return hasattr(of, _FIELDS)


def replace(old: Any, /, **changes: Any) -> Any:  # noqa: ANN401  # a value
    """Return a value like `old` but for the fields in `changes`."""
    return type(old)(**{name: getattr(old, name) for name in getattr(old, _FIELDS)} | changes)


def asdict(of: Any) -> Any:  # noqa: ANN401  # whatever a field holds
    """Return a value as a dict of its fields, and so whatever it holds; what has no fields is not copied."""
    if is_dataclass(of):
        return {name: asdict(getattr(of, name)) for name in getattr(of, _FIELDS)}
    if isinstance(of, tuple | list):
        return type(of)([asdict(each) for each in of])
    if isinstance(of, dict):
        return {key: asdict(each) for key, each in of.items()}
    return of


class _Standard:
    """The fields as the standard library keeps them, made when it asks: so its functions take values of ours."""

    def __get__(self, value: object, cls: type) -> Mapping[str, Any]:
        import dataclasses

        twin = []
        for each in fields(cls):
            said = {"default": each.default, "default_factory": each.default_factory}
            given = {name: value for name, value in said.items() if value is not _MISSING}
            one = dataclasses.field(repr=each.repr, compare=each.compare, **given)
            twin.append((each.name, each.type, one))
        made = dataclasses.make_dataclass(cls.__name__, twin, kw_only=True)
        return {each.name: each for each in dataclasses.fields(made)}


def _made(cls: type, *, frozen: bool, slots: bool, kw_only: bool) -> type:
    own = _declared(cls)
    known = {**getattr(cls, _FIELDS, {}), **own}
    puts: list[tuple[str, _Put]] = []
    more = {
        _FIELDS: known,
        "__dataclass_fields__": _Standard(),
        "__match_args__": () if kw_only else tuple(known),
        "__init__": _initializer(cls.__qualname__, known, puts, kw_only=kw_only),
        "__repr__": _representation([each.name for each in known.values() if each.repr]),
        **_comparison([each.name for each in known.values() if each.compare], frozen=frozen),
    }
    if frozen:
        more |= {"__setattr__": _refuse, "__delattr__": _refuse}
    kept = {key: value for key, value in vars(cls).items() if key not in {*own, *_EVERYBODYS}}
    if kept.get("__hash__", kept) is None:
        del kept["__hash__"]  # Python's own answer to a class that says when it is equal
    body = more | kept
    if slots:
        body |= {"__slots__": tuple(own), "__getstate__": _state, "__setstate__": _set_state}
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    puts += [(name, _putting(made, name)) for name in known]
    return made


def _putting(made: type, name: str) -> _Put:
    """Return what sets a field of a new value: a slot's own way takes half of the time."""
    slot = getattr(made, name, None)
    if isinstance(slot, MemberDescriptorType):
        return slot.__set__
    return lambda self, value: _put(self, name, value)


# What Python adds to a class by itself.
_EVERYBODYS = frozenset(("__dict__", "__weakref__"))


def _declared(cls: type) -> dict[str, Field]:
    """Return what the annotations of a class declare."""
    found = {}
    for name, kind in vars(cls).get("__annotations__", {}).items():
        said = vars(cls).get(name, _MISSING)
        one = said if isinstance(said, Field) else field(default=said)
        one.name, one.type = name, kind
        found[name] = one
    return found


def _initializer(
    shown: str, known: Mapping[str, Field], puts: list[tuple[str, _Put]], *, kw_only: bool
) -> Callable[..., None]:
    """Return __init__; `puts` says how each field is set, once the class is there."""
    names = tuple(known)
    places = () if kw_only else names
    said = known.values()
    defaults = {each.name: each.default for each in said if each.default is not _MISSING}
    factories = {
        each.name: each.default_factory for each in said if each.default_factory is not _MISSING
    }

    def initialize(self: object, /, *args: object, **given: object) -> None:
        if args:
            given |= _placed(shown, places, args, given)
        if len(given) < len(names):
            given = {**defaults, **given}
            given |= {name: make() for name, make in factories.items() if name not in given}
        try:
            for name, put in puts:
                put(self, given[name])
        except KeyError:
            raise _misfit(shown, names, given) from None
        if len(given) > len(names):
            raise _misfit(shown, names, given)

    return initialize


def _placed(
    shown: str, places: tuple[str, ...], args: tuple[object, ...], given: Mapping[str, object]
) -> dict[str, object]:
    """Return what the arguments without a name are called."""
    if len(args) > len(places):
        raise TypeError(f"{shown}() takes {len(places)} arguments without a name, not {len(args)}")
    placed = dict(zip(places, args, strict=False))
    for name in placed.keys() & given.keys():
        raise TypeError(f"{shown}() was given {name} twice")
    return placed


def _misfit(shown: str, names: tuple[str, ...], given: Mapping[str, object]) -> TypeError:
    """Return what is wrong with the arguments of __init__."""
    missing = ", ".join(name for name in names if name not in given)
    unknown = ", ".join(name for name in given if name not in names)
    words = (f"missing {missing}" if missing else "", f"unexpected {unknown}" if unknown else "")
    return TypeError(f"{shown}(): {'; '.join(filter(None, words))}")


def _representation(names: list[str]) -> Callable[[object], str]:
    def represent(self: object) -> str:
        said = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{type(self).__qualname__}({said})"

    return represent


def _comparison(names: list[str], *, frozen: bool) -> dict[str, Any]:
    key: Callable[[object], object] = attrgetter(*names) if names else lambda value: ()

    def equal(self: object, other: object) -> object:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return key(self) == key(other)

    def hashed(self: object) -> int:
        return hash(key(self))

    return {"__eq__": equal, "__hash__": hashed if frozen else None}


def _refuse(self: object, name: str, value: object = None) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} is frozen: {name} stays as it is")


def _state(self: object) -> list[object]:
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _set_state(self: object, state: list[object]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        _put(self, name, value)
