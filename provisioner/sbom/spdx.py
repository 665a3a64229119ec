"""Packages → an SPDX 2.3 document (spdx.github.io/spdx-spec/v2.3), as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from provisioner.sbom import licenses
from provisioner.sbom.database import Installed
from provisioner.sbom.subject import Subject, encode, identity, purl

_NONE = "NOASSERTION"
_CONTAINER = "SPDXRef-Container"
_HOME = "https://spdx.org/spdxdocs"


def document(subject: Subject, packages: Sequence[Installed]) -> bytes:
    """Return the document that says what `subject` is made of."""
    ids = {each.key: f"SPDXRef-Package-{_word(each.key)}" for each in packages}
    texts: dict[str, str] = {}
    rows = [_package(each, ids[each.key], subject, texts) for each in packages]
    relations = [
        _relation("SPDXRef-DOCUMENT", "DESCRIBES", _CONTAINER),
        *(_relation(_CONTAINER, "CONTAINS", ids[each.key]) for each in packages),
        *(
            _relation(ids[each.key], "DEPENDS_ON", ids[key])
            for each in packages
            for key in each.depends
        ),
    ]
    content = {
        "packages": [_container(subject), *rows],
        "relationships": relations,
        "hasExtractedLicensingInfos": [
            {"licenseId": name, "name": text, "extractedText": f"What Debian calls {text}: see its copyright file."}
            for name, text in sorted(texts.items())
        ],
    }  # fmt: skip
    head = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": f"{_HOME}/{_word(subject.name)}-{identity(content)}",
        "creationInfo": {
            "created": subject.moment,
            "creators": [f"Tool: {subject.tool.replace(' ', '-')}"],
        },
    }
    return encode({**head, **content})


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", text.replace("+", "plus"))


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _container(subject: Subject) -> dict[str, object]:
    return {
        "SPDXID": _CONTAINER,
        "name": subject.name,
        "versionInfo": subject.version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "primaryPackagePurpose": "CONTAINER",
    }


def _package(
    each: Installed, name: str, subject: Subject, texts: dict[str, str]
) -> dict[str, object]:
    person, address = each.maintainer
    row: dict[str, object] = {
        "SPDXID": name,
        "name": each.name,
        "versionInfo": each.version,
        "downloadLocation": each.location or _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _declared(each, texts),
        "copyrightText": _NONE,
        "supplier": f"Organization: {subject.distro or 'unknown'}",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl(each, subject),
            }
        ],
    }
    optional = {
        "originator": f"Person: {person or address}{f' ({address})' if address else ''}" if person or address else "",
        "homepage": each.homepage,
        "summary": each.summary,
        "sourceInfo": f"built from the source package {each.source}" if each.source else "",
        "checksums": [{"algorithm": "SHA256", "checksumValue": each.sha256}] if each.sha256 else [],
    }  # fmt: skip
    return row | {key: value for key, value in optional.items() if value}


def _declared(each: Installed, texts: dict[str, str]) -> str:
    """Return one expression for all that a package names; what SPDX has no name for is told in `texts`."""
    parts = []
    for text in each.licenses:
        found = licenses.expression(text)
        if not found:
            found = f"LicenseRef-{_word(text)[:100].strip('-.') or 'unnamed'}"
            texts[found] = text
        parts.append(f"({found})" if " " in found else found)
    parts = sorted(set(parts))
    if len(parts) == 1:
        return parts[0].removeprefix("(").removesuffix(")")
    return " AND ".join(parts) or _NONE
