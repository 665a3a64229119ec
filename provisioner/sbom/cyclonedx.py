"""Packages → a CycloneDX 1.6 bill of materials (ECMA-424), as JSON."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from provisioner.sbom import licenses
from provisioner.sbom.database import Installed
from provisioner.sbom.subject import Subject, encode, identity, purl


def document(subject: Subject, packages: Sequence[Installed]) -> bytes:
    """Return the document that says what `subject` is made of."""
    container = f"container:{subject.name}"
    refs = {each.key: purl(each, subject) for each in packages}
    content = {
        "components": [_component(each, refs[each.key], subject) for each in packages],
        "dependencies": [
            {"ref": container, "dependsOn": sorted(refs.values())},
            *(
                {"ref": refs[each.key], "dependsOn": sorted(refs[key] for key in each.depends)}
                for each in packages
            ),
        ],
    }
    tool, _, version = subject.tool.partition(" ")
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.UUID(identity(content)).urn,
        "version": 1,
        "metadata": {
            "timestamp": subject.moment,
            "tools": {"components": [{"type": "application", "name": tool, "version": version}]},
            "component": {
                "type": "container",
                "bom-ref": container,
                "name": subject.name,
                "version": subject.version,
            },
        },
    }
    return encode({**head, **content})


def _component(each: Installed, ref: str, subject: Subject) -> dict[str, object]:
    row: dict[str, object] = {
        "type": "library",
        "bom-ref": ref,
        "name": each.name,
        "version": each.version,
        "purl": ref,
    }
    person, address = each.maintainer
    links = [{"type": "website", "url": each.homepage}] if each.homepage else []
    links += [{"type": "distribution", "url": each.location}] if each.location else []
    optional = {
        "supplier": {"name": subject.distro} if subject.distro else {},
        "publisher": f"{person} <{address}>" if address else person,
        "description": each.summary,
        "hashes": [{"alg": "SHA-256", "content": each.sha256}] if each.sha256 else [],
        "licenses": _licenses(each),
        "externalReferences": links,
    }
    return row | {key: value for key, value in optional.items() if value}


def _licenses(each: Installed) -> list[dict[str, object]]:
    """Return each license by its SPDX identifier where it has one, else by the package's own name for it."""
    rows: dict[str, dict[str, object]] = {}
    for text in each.licenses:
        found = licenses.expression(text)
        named = {"id": found} if found in licenses.IDENTIFIERS or _is_gnu(found) else {"name": text}
        rows[found or text] = {"license": named}
    return [rows[key] for key in sorted(rows)]


def _is_gnu(found: str) -> bool:
    return " " not in found and found.endswith(("-only", "-or-later"))
