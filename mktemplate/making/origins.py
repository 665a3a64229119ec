"""Where packages may come from, for one request: the distribution's suites, and the repositories that were added."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mktemplate.cli.parsing import Build
from mktemplate.errors import CommandError, escape
from mktemplate.template.facts import Target, is_meant
from mktemplate.template.thirdparty import Repository
from provisioner import distro as distros
from provisioner import sources
from provisioner.lock import Provenance
from provisioner.sources import HostMirror, Source
from valuetypes import replace

Groups = tuple[tuple[Source, ...], ...]  # for each suite its mirrors, the preferred one first

UNVERIFIED = "trust:none"
_LARGEST = 1 << 20  # bytes of a .sources file
_ALLOWED_DAYS = "MKTEMPLATE_ALLOW_STALE"


def groups(
    target: Target,
    build: Build,
    repositories: Sequence[Repository] = (),
    recorded: Sequence[HostMirror] = (),
) -> Groups:
    """Return the sources that a request means, none where a lock says it all.

    `recorded` mirrors are asked before the host's own.
    """
    if build.lock:
        return ()
    found = _distributions(target, build, recorded)
    for file in build.repos:
        found += sources.parse_repository(_read(file), target.arch, where=file)
    for repository in repositories:
        if is_meant(repository.distros, target):
            text, where = _stanza(repository, target), repository.where
            found += sources.parse_repository(text, target.arch, where=where)
    if UNVERIFIED not in build.grants:
        return found
    return tuple(tuple(replace(source, unverified=True) for source in group) for group in found)


def _distributions(target: Target, build: Build, recorded: Sequence[HostMirror]) -> Groups:
    row = distros.find(target.distro)
    keyring = Path(build.keyring) if build.keyring else None
    if build.as_of:
        pattern = build.mirror or os.environ.get("MKTEMPLATE_MIRROR", "")
        return sources.choose_past(
            row, target.release, target.arch, build.as_of, mirror=pattern, keyring=keyring
        )
    return sources.choose(
        row,
        target.release,
        target.arch,
        mirror=sources.asked_mirror(build.mirror, os.environ, ""),
        host=(*recorded, *sources.host_mirrors()),
        keyring=keyring,
    )


def allowed_days(build: Build, environ: Mapping[str, str]) -> int:
    """Return how many days past its expiry an index may be: --allow-stale, else the environment's word."""
    text = environ.get(_ALLOWED_DAYS, "")
    if build.allow_stale or not text:
        return build.allow_stale
    if re.fullmatch("[1-9][0-9]{0,3}", text, re.ASCII) is None:
        raise CommandError("E_PARAM", _ALLOWED_DAYS, f'"{escape(text)}" is no number of days')
    return int(text)


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(_LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError("E_PARAM", f"--repo {escape(file)}", escape(str(error))) from None


def _stanza(repository: Repository, target: Target) -> str:
    """Return a template's repository as deb822; `{distro}`, `{release}` and `{arch}` become the target's."""
    words = {"{distro}": target.distro, "{release}": target.release, "{arch}": target.arch}

    def filled(texts: Sequence[str]) -> str:
        joined = " ".join(texts)
        for mark, word in words.items():
            joined = joined.replace(mark, word)
        return joined

    key = repository.signed_by.strip("\n").split("\n")
    rows = {
        "Types": "deb",
        "URIs": filled(repository.uris),
        "Suites": filled(repository.suites),
        "Components": filled(repository.components),
        "Fingerprint": " ".join(repository.fingerprints),
        "Include": " ".join(repository.only),
        "Signed-By": key[0] if len(key) == 1 else "".join(f"\n {line or '.'}" for line in key),
    }
    return "".join(f"{name}: {value}\n" for name, value in rows.items() if value)


def is_distributions(source: Provenance, target: Target) -> bool:
    """Whether a suite is one of the distribution's own, not a third party's."""
    suites = distros.series(distros.find(target.distro), target.release).suites
    return any((suite.name, suite.origin) == (source.suite, source.origin) for suite in suites)


def apt_sources(found: Sequence[Provenance], target: Target, as_of: str) -> str:
    """Return the deb822 text that lets apt inside go on from where its packages came (sources.list(5), D-18)."""
    row = distros.find(target.distro)
    own = [source for source in found if is_distributions(source, target)]
    stanzas = []
    for url in dict.fromkeys(source.url for source in own):
        here = [source for source in own if source.url == url]
        components = dict.fromkeys(part for source in here for part in source.components)
        more = f"Signed-By: {row.keyring_files[0]}\n" if row.keyring_files else ""
        more += "Check-Valid-Until: no\n" if as_of else ""
        stanzas.append(
            f"Types: deb\nURIs: {url}\nSuites: {' '.join(source.suite for source in here)}\n"
            f"Components: {' '.join(components)}\n{more}"
        )
    return "\n".join(stanzas)
