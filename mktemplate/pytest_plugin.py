"""The pytest plugin: the fixture `mktemplate` gives a test servers of its own, ready, in a tenth of a second.

    def test_query(mktemplate):
        db = mktemplate.up("postgresql", set={"anonymous": True})
        host, port = db.address()

docs/testing.md says more. Nothing of mktemplate is loaded before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

import pytest

if TYPE_CHECKING:
    from mktemplate.container import Container
    from mktemplate.keywords import UpOptions
    from mktemplate.life.lending import Lender


class Servers:
    """What a test gets: `up`, and everything that it has brought up is gone after the test."""

    def __init__(self, lender: Lender) -> None:
        """Lend from `lender`, who takes back."""
        self._lender = lender

    def up(self, template: str, **options: Unpack[UpOptions]) -> Container:
        """Return a container of `template`, this test's alone and ready; options are those of `mktemplate.up`."""
        return self._lender.lend(template, **options)


@pytest.fixture(scope="session")
def mktemplate_lender() -> Iterator[Lender]:
    """Keep the copies that tests are lent, one after the other, to the end of the session."""
    from mktemplate.life.lending import Lender

    lender = Lender()
    yield lender
    lender.close()


@pytest.fixture
def mktemplate(mktemplate_lender: Lender) -> Iterator[Servers]:
    """Servers of the test's own: `mktemplate.up("postgresql")`."""
    yield Servers(mktemplate_lender)
    mktemplate_lender.give_back()
