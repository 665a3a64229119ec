"""`[[repository]]` and `[[download]]` of template.toml: what a template takes from beside the distribution.

Both are pinned by the template itself: a repository by the fingerprint of its key, a download by its hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mktemplate.errors import escape
from mktemplate.template import schema
from mktemplate.template.report import Report
from provisioner.errors import ProvisionError
from provisioner.url import check_url
from valuetypes import dataclass

_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{40}", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_OWNER = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.ASCII)
_KEY_LINE = re.compile(r"[ -~]{0,200}", re.ASCII)
_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_MOST_KEY = 1 << 16  # characters
_VOLATILE = ("/run/", "/tmp/", "/dev/", "/proc/", "/sys/")  # noqa: S108  # names, not uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """`[[repository]]`: fields as in sources.list(5), deb822; `only` names what may come from it."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str  # an armored key, or the absolute path of a keyring
    fingerprints: tuple[str, ...]
    only: tuple[str, ...] = ()
    distros: tuple[str, ...] = ()  # empty = all
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """`[[download]]`: one file with its hash, and where it is put."""

    url: str
    sha256: str
    to: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    distros: tuple[str, ...] = ()
    arch: str = ""  # empty = all


def repositories(value: object, report: Report, *, trusted: bool) -> tuple[Repository, ...]:
    """Return what `[[repository]]` says."""
    return tuple(
        _repository(table, report, trusted) for table in report.tables(value, "repository")
    )


def downloads(value: object, report: Report) -> tuple[Download, ...]:
    """Return what `[[download]]` says."""
    return tuple(_download(table, report) for table in report.tables(value, "download"))


def _repository(table: Mapping[str, object], report: Report, trusted: bool) -> Repository:
    report.known(table, "repository", schema.REPOSITORY.names)
    words = {
        key: _words(table.get(key, []), f"repository.{key}", report)
        for key in ("uris", "suites", "components", "fingerprint", "only", "distros")
    }
    for key in ("uris", "suites", "components"):
        if not words[key]:
            report.add(f"repository.{key}", "is required")
    for uri in words["uris"]:
        _check_url(_plain(uri), "repository.uris", report)
    if not words["fingerprint"] or not all(map(_FINGERPRINT.fullmatch, words["fingerprint"])):
        report.add("repository.fingerprint", "must be the key's 40 hexadecimal digits")
    for name in words["only"]:
        if _PACKAGE.fullmatch(name) is None:
            report.add("repository.only", f'"{escape(name)}" is no package name')
    return Repository(
        uris=words["uris"],
        suites=words["suites"],
        components=words["components"],
        signed_by=_key(table.get("signed_by", ""), report, trusted=trusted),
        fingerprints=words["fingerprint"],
        only=words["only"],
        distros=words["distros"],
        where=report.path,
    )


def _words(value: object, where: str, report: Report) -> tuple[str, ...]:
    """Return a list of words; one text is a list of one."""
    found = report.strings([value] if isinstance(value, str) else value, where)
    if any(not word or re.search(r"\s", word) for word in found):
        report.add(where, "must be words without spaces")
        return ()
    return found


def _plain(uri: str) -> str:
    """Return an address without the marks that the target fills in."""
    return re.sub(r"\{(?:distro|release|arch)\}", "x", uri)


def _check_url(url: str, where: str, report: Report) -> None:
    try:
        check_url(url)
    except ProvisionError as problem:
        report.add(where, problem.detail)


def _key(value: object, report: Report, *, trusted: bool) -> str:
    """Return the key itself; the path of one is of this host, so only a trusted template may name it."""
    where = "repository.signed_by"
    if not isinstance(value, str) or len(value) > _MOST_KEY:
        report.add(where, "must be an armored key, or the absolute path of a keyring")
        return ""
    lines = value.strip().split("\n")
    if lines[0] == _BEGIN and all(map(_KEY_LINE.fullmatch, lines)):
        return "\n".join(lines)
    if len(lines) == 1 and re.fullmatch(r"/[A-Za-z0-9._+/-]{1,254}", lines[0], re.ASCII):
        if not trusted:
            report.add(where, "an untrusted template brings its key itself: no path of the host")
        return lines[0]
    report.add(where, "must be an armored key, or the absolute path of a keyring")
    return ""


def _download(table: Mapping[str, object], report: Report) -> Download:
    report.known(table, "download", schema.DOWNLOAD.names)
    defaults = {
        "url": "",
        "sha256": "",
        "to": "",
        "mode": "0644",
        "owner": "root",
        "group": "root",
        "arch": "",
    }
    text = {
        key: report.text(table, key, f"download.{key}", default)
        for key, default in defaults.items()
    }
    _check_url(text["url"], "download.url", report)
    if _SHA256.fullmatch(text["sha256"]) is None:
        report.add("download.sha256", "must be 64 hexadecimal digits, lower case")
    if not _is_place(text["to"]):
        report.add("download.to", "must be an absolute path without .., outside /run and /tmp")
    if _MODE.fullmatch(text["mode"]) is None:
        report.add("download.mode", 'must be octal, such as "0755"')
        text["mode"] = "0644"
    for key in ("owner", "group"):
        if _OWNER.fullmatch(text[key]) is None:
            report.add(f"download.{key}", "is no account's name")
    return Download(
        url=text["url"],
        sha256=text["sha256"],
        to=text["to"],
        mode=int(text["mode"], 8),
        owner=text["owner"],
        group=text["group"],
        distros=_words(table.get("distros", []), "download.distros", report),
        arch=text["arch"],
    )


def _is_place(path: str) -> bool:
    parts = path.split("/")[1:]
    plain = all(part not in ("", ".", "..") for part in parts)
    return path.startswith("/") and plain and not path.startswith(_VOLATILE) and len(path) < 1024
