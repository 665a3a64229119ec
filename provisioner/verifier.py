"""Whose signatures on a message are valid: Sequoia in this process, else /usr/bin/sqv, else /usr/bin/gpgv.

Each takes the message and the certificates that may have signed it, and answers with the text that it saw and the
primary fingerprint behind each valid signature. An exit status alone is never the answer (gpgv: 0 for an expired
key; sqv: 0 with unsigned text around the message). The verdict is `provisioner.trust.verify`'s.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from provisioner.errors import UntrustedIndex
from provisioner.openpgp import Certificate
from valuetypes import dataclass

_SECONDS = 20.0  # for a program to answer
_SQV = "/usr/bin/sqv"
_GPGV = "/usr/bin/gpgv"
_PRIMARY = re.compile(rb"[0-9A-F]{40}")
_BAD_STATUS = {b"EXPKEYSIG", b"EXPSIG", b"REVKEYSIG", b"BADSIG", b"ERRSIG", b"KEYREVOKED"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The text that a verifier saw, and the primary fingerprint behind each valid signature on it."""

    text: bytes
    valid: tuple[str, ...]


class Verifier(Protocol):
    """One way to check signatures."""

    def cleartext(self, message: bytes, certificates: Iterable[Certificate]) -> Answer:
        """Answer for a clear-signed message."""
        ...

    def detached(
        self, text: bytes, signatures: bytes, certificates: Iterable[Certificate]
    ) -> Answer:
        """Answer for `text` and signature packets (binary) beside it."""
        ...


class Sequoia:
    """pysequoia, in process. Its policy refuses SHA-1 and keys that are expired or revoked."""

    def cleartext(self, message: bytes, certificates: Iterable[Certificate]) -> Answer:
        """Answer for a clear-signed message, with `.bytes` as its text."""
        import pysequoia

        certs = _loaded(certificates)
        try:
            result = pysequoia.verify(message, lambda ids: certs)
        except RuntimeError:  # no signature is valid
            return Answer(b"", ())
        return Answer(result.bytes or b"", _primaries(result))

    def detached(
        self, text: bytes, signatures: bytes, certificates: Iterable[Certificate]
    ) -> Answer:
        """Answer for a signed text; one signature packet at a time, as pysequoia takes one."""
        import pysequoia

        from provisioner.openpgp import packets

        certs = _loaded(certificates)
        valid: list[str] = []
        for _, _, packet in packets(signatures):
            try:
                one = pysequoia.Sig.from_bytes(packet)
                result = pysequoia.verify(bytes=text, store=lambda ids: certs, signature=one)
            except RuntimeError:  # this one is not valid
                continue
            valid += _primaries(result)
        return Answer(text, tuple(valid))


def _loaded(certificates: Iterable[Certificate]) -> list[object]:
    import pysequoia

    loaded = []
    for certificate in certificates:
        try:
            loaded.append(pysequoia.Cert.from_bytes(certificate.data))
        except RuntimeError:  # its own self-signatures are not acceptable: it verifies nothing
            continue
    return list(loaded)


def _primaries(result: object) -> tuple[str, ...]:
    return tuple(each.certificate.upper() for each in getattr(result, "valid_sigs", ()))


class Sqv:
    """Sequoia's sqv(1). It prints the primary fingerprint for each valid signature."""

    def cleartext(self, message: bytes, certificates: Iterable[Certificate]) -> Answer:
        """Answer for a clear-signed message."""
        with _Scratch(certificates) as scratch:
            argv = [
                "--cleartext",
                "--output",
                scratch.path("text"),
                "--",
                scratch.put("in", message),
            ]
            lines = self._run(scratch, argv)
            return Answer(scratch.read("text"), lines)

    def detached(
        self, text: bytes, signatures: bytes, certificates: Iterable[Certificate]
    ) -> Answer:
        """Answer for a signed text."""
        with _Scratch(certificates) as scratch:
            name = scratch.put("sig", signatures)
            argv = [f"--signature-file={name}", "--", scratch.put("in", text)]
            return Answer(text, self._run(scratch, argv))

    @staticmethod
    def _run(scratch: _Scratch, argv: list[str]) -> tuple[str, ...]:
        output = scratch.run([_SQV, "--keyring", scratch.path("keyring"), *argv])
        return tuple(line.decode() for line in output.split(b"\n") if _PRIMARY.fullmatch(line))


class Gpgv:
    """GnuPG's gpgv(1), read by its status lines (doc/DETAILS), grouped by NEWSIG."""

    def cleartext(self, message: bytes, certificates: Iterable[Certificate]) -> Answer:
        """Answer for a clear-signed message."""
        with _Scratch(certificates) as scratch:
            argv = ["--output", scratch.path("text"), "--", scratch.put("in", message)]
            valid = self._run(scratch, argv)
            return Answer(scratch.read("text"), valid)

    def detached(
        self, text: bytes, signatures: bytes, certificates: Iterable[Certificate]
    ) -> Answer:
        """Answer for a signed text."""
        with _Scratch(certificates) as scratch:
            return Answer(
                text,
                self._run(scratch, ["--", scratch.put("sig", signatures), scratch.put("in", text)]),
            )

    @staticmethod
    def _run(scratch: _Scratch, argv: list[str]) -> tuple[str, ...]:
        output = scratch.run(
            [_GPGV, "--keyring", scratch.path("keyring"), "--status-fd", "1", *argv]
        )
        return _valid_groups(output)


def _valid_groups(status: bytes) -> tuple[str, ...]:
    """Return the primary fingerprint (last field of VALIDSIG) of each group that is good and nothing else."""
    valid: list[str] = []
    for group in status.split(b"[GNUPG:] NEWSIG")[1:]:
        lines = [line.split(b" ")[1:] for line in group.split(b"\n") if line[:9] == b"[GNUPG:] "]
        words = {line[0] for line in lines if line}
        primaries = [line[-1] for line in lines if line[:1] == [b"VALIDSIG"] and len(line) >= 11]
        good = {b"GOODSIG", b"VALIDSIG"} <= words and not words & _BAD_STATUS
        if good and len(primaries) == 1 and _PRIMARY.fullmatch(primaries[0]):
            valid.append(primaries[0].decode())
    return tuple(valid)


class _Scratch:
    """A private directory (0700) in which a program finds its keyring and input, and leaves its output."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mktemplate-")
        self.put("keyring", b"".join(each.data for each in certificates))
        Path(self.path("home")).mkdir(mode=0o700)

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *exception: object) -> None:
        self._directory.cleanup()

    def path(self, name: str) -> str:
        return f"{self._directory.name}/{name}"

    def put(self, name: str, data: bytes) -> str:
        Path(self.path(name)).write_bytes(data)
        return self.path(name)

    def read(self, name: str) -> bytes:
        try:
            return Path(self.path(name)).read_bytes()
        except FileNotFoundError:
            return b""

    def run(self, argv: list[str]) -> bytes:
        """Return what a program wrote to stdout; its exit status does not count."""
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "GNUPGHOME": self.path("home")}
        try:
            done = subprocess.run(
                argv,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return b""
        return done.stdout


def find() -> Verifier:
    """Return the preferred verifier that this machine has, or raise E_TRUST_NOKEYRING."""
    from importlib.util import find_spec

    if find_spec("pysequoia") is not None:
        return Sequoia()
    if os.access(_SQV, os.X_OK):
        return Sqv()
    if os.access(_GPGV, os.X_OK):
        return Gpgv()
    raise UntrustedIndex(
        "E_TRUST_NOKEYRING",
        "signatures",
        "nothing here can check an OpenPGP signature",
        hints=("install one of: pysequoia (Python), sqv, gpgv",),
    )
