"""Whom packages are asked of; and how that is begun while the rest of the command is still being loaded.

A mirror is far away, and half of a create is loading modules: the one waits beside the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from mktemplate.cli.parsing import Build
from mktemplate.making import origins
from mktemplate.making.origins import Groups
from mktemplate.template.facts import Facts
from mktemplate.template.spec import TemplateSpec
from provisioner import release
from provisioner.fetch import HttpFetch
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The suites that a request means, found when they are needed, and the connections over which they are asked."""

    find: Callable[[], Groups]
    fetch: HttpFetch

    @property
    def groups(self) -> Groups:
        """The suites, in the order in which they count."""
        return self.find()


def of(groups: Groups) -> Asking:
    """Return how the suites of `groups` are asked, when somebody needs an answer."""
    return Asking(find=lambda: groups, fetch=HttpFetch(os.environ))


@contextmanager
def begun(spec: TemplateSpec, facts: Facts, build: Build, path: Path) -> Iterator[Asking]:
    """Yield how the suites are asked that a container below `path` needs: at once, where nothing stands in its way."""
    find = cache(partial(origins.groups, facts.target, build, spec.repositories))
    asking = Asking(find=find, fetch=HttpFetch(os.environ))
    certain = not (facts.shared_host or spec.static)  # a static program may be the host's own
    if certain and spec.trusted and not build.offline and _is_undisturbed(path, facts.name):
        release.expect(asking.groups, asking.fetch)
    try:
        yield asking
    finally:
        asking.fetch.close()


def _is_undisturbed(path: Path, name: str) -> bool:
    """Whether nothing is to be told or undone first: a process that is copied meanwhile would copy our threads' locks.

    For the same reason templates that are not trusted are rendered first, in a copy.
    """
    if os.path.lexists(path / name):
        return False
    store = path / ".store"
    return not any(_names(store / folder) for folder in ("staging", "trash"))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
