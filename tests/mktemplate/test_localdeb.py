"""Package files that were given by path: what is no package, or none for here, is refused before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from mktemplate.errors import CommandError
from mktemplate.making import localdeb
from provisioner.store import Store
from tests.hostile import HostileDeb


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def test_it_is_wanted_by_its_version_and_its_origin_is_local(tmp_path: Path, store: Store) -> None:
    place = tmp_path / "own.deb"
    place.write_bytes(HostileDeb(name="own", fields={"Depends": "libc6", "Essential": "yes"}).bytes)

    names, [package] = localdeb.take(["nginx", str(place)], "amd64", store)

    assert names == ("nginx", f"own={package.version}")
    assert (package.origin, package.essential, package.size) == (
        "local",
        True,
        place.stat().st_size,
    )


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({"Package": "../own"}, "E_DEB_FORMAT", "has no valid Package"),
        ({"Version": "one two"}, "E_DEB_FORMAT", "has no valid Version"),
        ({"Architecture": "s390x"}, "E_PARAM", "is for s390x, not amd64"),
    ],
    ids=str,
)
def test_what_cannot_be_installed_here_is_refused(
    tmp_path: Path, store: Store, fields: dict[str, str], code: str, detail: str
) -> None:
    place = tmp_path / "own.deb"
    place.write_bytes(HostileDeb(name="own", fields=fields).bytes)

    with pytest.raises(CommandError) as refused:
        localdeb.take([str(place)], "amd64", store)

    assert (refused.value.code, refused.value.detail) == (code, detail)
