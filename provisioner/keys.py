"""Which keys may sign a source: pinned by fingerprint, found in a host's keyring package or in the copy that we ship.

Never in /etc/apt/trusted.gpg(.d), in ~/.gnupg, at a keyserver or at the mirror (D-2).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from provisioner.distro.series import Distro
from provisioner.errors import UntrustedIndex
from provisioner.openpgp import Certificate, Key, Malformed, certificates
from provisioner.sources import Source
from valuetypes import dataclass

_MAX_KEYRING = 1 << 20  # bytes
_WRITABLE = "can be written by others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The certificates that may sign one source."""

    name: str
    certificates: tuple[Certificate, ...]
    minimum: int = 1  # how many of them must have signed

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Their primary fingerprints, sorted."""
        return tuple(sorted(each.fingerprint for each in self.certificates))

    def find(self, issuer: str) -> tuple[Certificate, Key] | None:
        """Return the certificate and key that `issuer` (key id or fingerprint) means."""
        for certificate in self.certificates:
            try:
                key = certificate.key(issuer)
            except Malformed as problem:
                raise _unusable(self.name, problem) from None
            if key is not None:
                return certificate, key
        return None


def load(source: Source) -> Keyring:
    """Return the keyring of `source`, or raise E_TRUST_NOKEYRING, E_TRUST_KEYRING."""
    if source.keyring is not None:
        return _chosen(source, str(source.keyring), read(source.keyring))
    if source.key_text:
        return _chosen(source, source.name, _parsed(source.key_text, source.name))
    return _pinned(source)


def _chosen(source: Source, name: str, found: tuple[Certificate, ...]) -> Keyring:
    """Return the keys of one file: those whose fingerprint is named, or all of them."""
    taken = tuple(each for each in found if not source.keys or each.fingerprint in source.keys)
    if not taken:
        raise UntrustedIndex(
            "E_TRUST_NOKEYRING",
            name,
            f"holds none of the keys that may sign {source.name}",
            hints=(f"it must hold {source.keys[0]}" if source.keys else "it holds no key",),
        )
    return Keyring(name=name, certificates=taken, minimum=source.min_signers)


def _pinned(source: Source) -> Keyring:
    """Return the pinned keys, each from the host's keyring package where it is there, else from our copy."""
    from provisioner.distro import find

    row = find(source.distro)
    taken: dict[str, Certificate] = {}
    for place in _places(row):
        for each in place:
            if each.fingerprint in source.keys:
                taken.setdefault(each.fingerprint, each)
        if len(taken) == len(set(source.keys)):
            break
    if not taken:
        raise UntrustedIndex(
            "E_TRUST_NOKEYRING",
            source.name,
            f"the archive key of {row.title} is not on this machine",
            hints=(f"install {row.keyring_package}, or name its file with --keyring",),
        )
    return Keyring(
        name=f"{row.name}-{source.suite}",
        certificates=tuple(taken.values()),
        minimum=source.min_signers,
    )


def _places(row: Distro) -> Iterator[tuple[Certificate, ...]]:
    """Read the host's keyring package, then our copy, no further than is needed."""
    for file in row.keyring_files:
        try:
            yield read(Path(file))
        except UntrustedIndex:  # absent or unusable: our copy is there too
            continue
    if row.keyring:
        from importlib.resources import files  # the product may run from a zip

        yield _parsed((files("provisioner") / "keyrings" / row.keyring).read_bytes(), row.keyring)


def has_keyring(row: Distro) -> bool:
    """Tell whether a distribution's keys are here: in a usable file of its keyring package, or in our copy."""
    return next(_places(row), None) is not None


def read(file: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a file that nobody but root and the caller can write (D-2)."""
    name = str(file)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as problem:
        raise UntrustedIndex(
            "E_TRUST_NOKEYRING", name, f"cannot be read: {problem.strerror}", path=name
        ) from None
    with open(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        wrong = (
            (not stat.S_ISREG(facts.st_mode), "is not a regular file"),
            (facts.st_uid not in {0, os.geteuid()}, "belongs to another user"),
            (facts.st_mode & 0o022, _WRITABLE),
            (facts.st_size > _MAX_KEYRING, "is larger than 1 MiB"),
        )
        for bad, detail in wrong:
            if bad:
                hints = (f"chmod go-w {name}",) if detail == _WRITABLE else ()
                raise UntrustedIndex("E_TRUST_KEYRING", name, detail, path=name, hints=hints)
        return _parsed(stream.read(_MAX_KEYRING + 1), name)


_certificates = lru_cache(maxsize=4)(certificates)  # the suites of a distribution have one keyring


def _parsed(data: bytes, name: str) -> tuple[Certificate, ...]:
    try:
        found = _certificates(data)
    except Malformed as problem:
        raise _unusable(name, problem) from None
    if not found:
        raise UntrustedIndex("E_TRUST_KEYRING", name, "holds no key")
    return found


def _unusable(name: str, problem: Malformed) -> UntrustedIndex:
    return UntrustedIndex(
        "E_TRUST_KEYRING",
        name,
        f"is no OpenPGP keyring: {problem}",
        hints=("export one with `gpg --export FINGERPRINT > FILE`",),
    )
