"""The host's own mirror, as it is today, passes all of our checks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner import distro
from provisioner.fetch import HttpFetch
from provisioner.freshness import Policy, trust_list
from provisioner.keys import load
from provisioner.release import read_suites, verified_releases
from provisioner.sources import choose, host_mirrors
from provisioner.trust import verify
from provisioner.verifier import Gpgv, Sequoia, Sqv, Verifier

pytestmark = pytest.mark.system
DEBIAN = distro.find("debian")


@pytest.fixture(scope="module")
def fetch() -> Iterator[HttpFetch]:
    with HttpFetch({}) as fetch:
        yield fetch


@pytest.mark.parametrize("release", ["trixie", "bookworm"])
def test_every_suite_of_the_real_mirror_is_accepted(
    fetch: HttpFetch, tmp_path: Path, release: str
) -> None:
    groups = choose(DEBIAN, release, "amd64", host=host_mirrors())

    releases, files = read_suites(groups, fetch, tmp_path, Policy(now=time.time()))

    assert [each.source.suite for each in releases] == [
        *(release, f"{release}-updates", f"{release}-security"),
    ]
    assert all(each.signers for each in releases)
    assert [file.path.stat().st_size > 0 for file in files] == [True] * 3
    assert len(trust_list(tmp_path)) == 3
    again = verified_releases(groups, fetch, tmp_path, Policy(now=time.time()), offline=True)
    assert [each.sha256 for each in again] == [each.sha256 for each in releases]


@pytest.mark.parametrize("suite", [0, 1, 2], ids=["release", "updates", "security"])
def test_the_three_verifiers_agree_on_the_real_mirror(fetch: HttpFetch, suite: int) -> None:
    source = choose(DEBIAN, "trixie", "amd64", host=host_mirrors())[suite][0]
    data = fetch.document(f"{source.url}/dists/{source.suite}/InRelease", 1 << 22)
    tools: tuple[Verifier, ...] = (Sequoia(), Sqv(), Gpgv())

    verdicts = {verify(data, load(source), source.url, time.time(), tool) for tool in tools}

    assert len(verdicts) == 1
