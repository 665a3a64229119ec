"""Bills of materials: what they say of a package database, and what the formats' own validators say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from provisioner.errors import BadArchive
from provisioner.sbom import cyclonedx, database, licenses, spdx
from provisioner.sbom.database import Texts
from provisioner.sbom.subject import Subject

SUBJECT = Subject(
    name="web.1", distro="debian", release="trixie", epoch=1_750_000_000, tool="mktemplate 9"
)
STATUS = """\
Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc
Version: 2.41-12+deb13u1
Description: GNU C Library: Shared libraries
 Contains the standard libraries.
Homepage: https://www.gnu.org/software/libc/libc.html

Package: nginx
Status: install ok installed
Maintainer: "Nobody, really" <nobody@example.org>
Architecture: amd64
Version: 1:1.26.3-3~deb13u1
Depends: httpd-common (>= 1) | nginx-common, libc6 (>= 2.34), absent
Provides: httpd
Description: small, powerful, scalable web/proxy server

Package: nginx-common
Status: install ok installed
Architecture: all
Version: 1.26.3-3
Description: small

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
INSTALLED = """\
C:Q1abc
P:busybox
V:1.36.1-r29
A:x86_64
T:Size optimized toolbox
U:https://busybox.net/
L:GPL-2.0-only
o:busybox
m:Natanael Copa <ncopa@alpinelinux.org>
D:so:libc.musl-x86_64.so.1
p:/bin/sh cmd:busybox=1.36.1-r29
F:bin
R:busybox

P:musl
V:1.2.5-r0
A:x86_64
L:MIT
p:so:libc.musl-x86_64.so.1=1
"""


def texts(dpkg: str = "", apk: str = "", **copyrights: str) -> Texts:
    return {"dpkg": dpkg, "apk": apk, "copyrights": copyrights}


DEBIAN = texts(STATUS, nginx="BSD-2-clause\nGPL-2+ or Artistic\nmade up", libc6="LGPL-2.1+")
ALPINE = texts(apk=INSTALLED)


def test_dpkgs_status_says_what_is_installed_and_what_needs_what() -> None:
    found = database.parse(DEBIAN, "web")

    assert [each.key for each in found] == ["libc6:amd64", "nginx:amd64", "nginx-common:all"]
    nginx = found[1]
    assert nginx.depends == ("libc6:amd64", "nginx-common:all")
    assert nginx.maintainer == ("Nobody, really", "nobody@example.org")
    assert found[0].source == "glibc"


def test_apks_file_says_what_is_installed_and_what_needs_what() -> None:
    busybox, musl = database.parse(ALPINE, "web")

    assert (busybox.kind, busybox.version, busybox.licenses) == (
        "apk",
        "1.36.1-r29",
        ("GPL-2.0-only",),
    )
    assert busybox.depends == (musl.key,)


@pytest.mark.parametrize("text", ["Package: a b\nStatus: a b installed\nVersion: 1\n", "nonsense"])
def test_a_database_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadArchive, match="E_DEB_FORMAT"):
        database.parse(texts(text), "web")


@pytest.mark.parametrize(
    "found", [DEBIAN, ALPINE, texts(STATUS)], ids=["dpkg", "apk", "unlicensed"]
)
def test_an_spdx_document_passes_spdxs_own_validator(found: Texts, tmp_path: Path) -> None:
    packages = database.parse(found, "web")

    (tmp_path / "web.spdx.json").write_bytes(spdx.document(SUBJECT, packages))

    read = parse_file(str(tmp_path / "web.spdx.json"))
    assert [each.validation_message for each in validate_full_spdx_document(read, "SPDX-2.3")] == []
    assert {each.name for each in read.packages} == {"web.1", *(each.name for each in packages)}


@pytest.mark.parametrize(
    "found", [DEBIAN, ALPINE, texts(STATUS)], ids=["dpkg", "apk", "unlicensed"]
)
def test_a_cyclonedx_document_passes_cyclonedxs_own_validator(found: Texts) -> None:
    body = cyclonedx.document(SUBJECT, database.parse(found, "web")).decode()

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(body) is None


@pytest.mark.parametrize("document", [spdx.document, cyclonedx.document], ids=["spdx", "cyclonedx"])
def test_equal_containers_give_equal_bytes_and_others_do_not(document: object) -> None:
    packages = database.parse(DEBIAN, "web")

    first, again, less = (
        document(SUBJECT, rows)  # type: ignore[operator]
        for rows in (packages, database.parse(DEBIAN, "web"), packages[:1])
    )

    assert first == again
    assert first != less


def test_a_package_url_is_the_packages_and_nobody_elses() -> None:
    found = json.loads(cyclonedx.document(SUBJECT, database.parse(DEBIAN, "web")))

    urls = [each["purl"] for each in found["components"]]

    assert urls[1] == "pkg:deb/debian/nginx@1%3A1.26.3-3~deb13u1?arch=amd64&distro=debian-trixie"


@pytest.mark.parametrize(
    ("debian", "expression"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-3", "GPL-3.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("GPL-2+ or Artistic", "GPL-2.0-or-later OR Artistic-1.0"),
        ("GPL-2+ and made-up", ""),
        ("GPL-7", ""),
        ("public-domain", ""),
    ],
)
def test_debians_names_of_licenses_become_spdxs_where_both_mean_the_same(
    debian: str, expression: str
) -> None:
    assert licenses.expression(debian) == expression


def test_every_identifier_is_one_of_spdxs() -> None:
    known = get_spdx_licensing().known_symbols

    assert {name for name in licenses.IDENTIFIERS if name not in known} == set()
