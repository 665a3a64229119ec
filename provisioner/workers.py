"""A few threads for a few waits. They are daemons: an interrupt ends the program without waiting for a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int = 4
) -> list[_Result]:
    """Return what `function` makes of each item, in order; the first exception ends it and is raised."""
    work = list(items)
    if len(work) <= 1 or threads == 1:
        return [function(item) for item in work]
    crew = _Crew(function, work)
    members = [
        threading.Thread(target=crew.toil, daemon=True) for _ in range(min(threads, len(work)))
    ]
    for member in members:
        member.start()
    results = crew.wait()
    for member in members:
        member.join()  # they have nothing left to do; who forks next must be alone
    return results


class Begun(Generic[_Result]):
    """A function that is being called in a thread of its own."""

    def __init__(self, function: Callable[[], _Result]) -> None:
        """Begin to call `function`."""
        self._function = function
        self._done: SimpleQueue[Callable[[], _Result]] = SimpleQueue()
        self._member = threading.Thread(target=self._toil, daemon=True)
        self.succeeded = False  # whether there is a result already
        self._member.start()

    def _toil(self) -> None:
        self._done.put(_outcome(self._called))

    def _called(self) -> _Result:
        result = self._function()
        self.succeeded = True
        return result

    def wait(self) -> _Result:
        """Return what it returns, once, or raise what it raised."""
        outcome = self._done.get()
        self._member.join()  # it has nothing left to do; who forks next must be alone
        return outcome()


def _outcome(function: Callable[[], _Result]) -> Callable[[], _Result]:
    """Return what gives the result of `function`, or raises what went wrong, in the thread that waits."""
    try:
        result = function()
    except BaseException as problem:  # noqa: BLE001 - it is raised again there
        caught = problem

        def fail() -> _Result:
            raise caught

        return fail
    return lambda: result


class _Crew(Generic[_Item, _Result]):
    """Threads that take the next item until there is none, or one of them failed."""

    def __init__(self, function: Callable[[_Item], _Result], work: list[_Item]) -> None:
        self._function = function
        self._work = work
        self._numbers: SimpleQueue[int] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Callable[[], _Result]]] = SimpleQueue()
        for number in range(len(work)):
            self._numbers.put(number)
        self._stopped = threading.Event()

    def toil(self) -> None:
        while not self._stopped.is_set():
            try:
                number = self._numbers.get_nowait()
            except Empty:
                return
            self._done.put((number, _outcome(partial(self._function, self._work[number]))))

    def wait(self) -> list[_Result]:
        results: dict[int, _Result] = {}
        try:
            while len(results) < len(self._work):
                number, outcome = self._done.get()
                results[number] = outcome()
        finally:
            self._stopped.set()
        return [results[number] for number in range(len(self._work))]
