"""When a container that has ended is started again."""

from __future__ import annotations

import pytest

from runtime.errors import ConfigError
from runtime.restarts import policy


@pytest.mark.parametrize(
    ("text", "status", "tries", "wanted"),
    [
        ("no", 1, 0, False),
        ("always", 0, 99, True),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 99, True),
        ("on-failure:2", 137, 1, True),
        ("on-failure:2", 137, 2, False),
        ("on-failure", None, 0, True),
    ],
)
def test_a_policy_wants_what_it_says(
    text: str, status: int | None, tries: int, *, wanted: bool
) -> None:
    assert policy(text).wants(status, tries) is wanted


@pytest.mark.parametrize("text", ["", "sometimes", "on-failure:0", "on-failure:", "always:3"])
def test_a_word_that_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="E_PARAM"):
        policy(text)
