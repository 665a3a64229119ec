"""System calls as values: what a start is, before any of it happens.

A Program is decided in Python from a bundle and the host's facts, and performed by `perform` or shown by `show`.
An argument is an int, bytes (a pointer to them), a Slot (the result of an earlier call, by name), or a Struct, Text,
Pointer or Out that is made when its call is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from valuetypes import dataclass, field


@dataclass(frozen=True, slots=True)
class Slot:
    """The result of the earlier call whose `result` is `name`; most often a descriptor."""

    name: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """The address of `data`, where a structure holds a pointer."""

    data: bytes | Struct


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure in memory: `layout` is a format of the `struct` module."""

    layout: str
    values: tuple[int | Slot | Pointer, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A C string in which each `%d` is the decimal result of an earlier call."""

    form: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Out:
    """`size` bytes that the kernel fills in; a Call's `expect` looks at them."""

    size: int


@dataclass(frozen=True, slots=True)
class Expect:
    """The `width` bytes at `offset` of the call's Out, masked, must be `value`."""

    offset: int
    width: int
    value: int
    mask: int = -1


Argument = int | bytes | Slot | Struct | Text | Out | None


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call means to a person: the error contract's code, object and detail."""

    code: str
    subject: str
    detail: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call, why it is made, and what its failure means.

    `result` names the slot that takes its result. On an errno in `ignore` the next `skip` calls are left out; any
    other failure ends the program. `expect` is checked after success; what does not hold is `unexpected`.
    """

    name: str
    args: tuple[Argument, ...] = ()
    result: str = ""
    why: str = ""
    ignore: tuple[int, ...] = ()
    skip: int = 0
    expect: tuple[Expect, ...] = ()
    failure: Failure | None = None
    unexpected: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A program that is run to its end, with the streams of the slots stdin, stdout and stderr: a hook.

    Only the Python performer does it. It fails with the negated exit status, 128+N for signal N.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    why: str
    unexpected: Failure


Step = Call | Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A start as three lists: the stage's up to the clone of init, the host's part for init, and init's own.

    `stage` ends with the clone, whose result is slot `init`; then the stage runs the programs of `maps` (a normal
    user's newuidmap and newgidmap; `%d` is init's pid) and goes on with `host`, which gives the word to go that
    `init` waits for.
    """

    stage: tuple[Step, ...] = ()
    maps: tuple[tuple[str, ...], ...] = ()
    host: tuple[Step, ...] = ()
    init: tuple[Step, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def calls(self) -> Iterator[Step]:
        """Yield every call in the order of the lists."""
        yield from self.stage
        yield from self.host
        yield from self.init
