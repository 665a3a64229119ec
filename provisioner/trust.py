"""Signed bytes in, verified text out: nothing unverified leaves this module (I-12).

The verdict is ours and the same for each verifier: a signature counts if a key of the keyring made it, with a strong
hash, while neither is expired or revoked. One must count, and each that counts must be valid.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from provisioner import verifier
from provisioner.deb.trust import Verified, split
from provisioner.errors import UntrustedIndex
from provisioner.freshness import TrustState
from provisioner.keys import Keyring
from provisioner.openpgp import (
    STRONG,
    Certificate,
    Key,
    Malformed,
    Signature,
    armor,
    dearmor,
    signatures,
)
from provisioner.verifier import Answer, Verifier

_SKEW = 10  # seconds
_OTHER = "try another mirror"
_WORDS = {
    "E_TRUST_WEAK": "signed with an algorithm that is no longer accepted",
    "E_TRUST_EXPKEY": "the key or the signature has expired",
    "E_TRUST_REVKEY": "the key was revoked",
    "E_TRUST_FUTURE": "the signature was made in the future",
}


def verify(
    data: bytes, keyring: Keyring, subject: str, now: float, tool: Verifier | None = None
) -> Verified:
    """Return the text of a clear-signed message that a key of `keyring` signed, or raise E_TRUST_* (D-4 to D-6)."""
    message = split(data, subject)
    packets, made = _packets(message.signatures, subject)
    if (
        not {each.hash for each in made} & STRONG <= message.hashes
    ):  # GnuPG goes by the header, Sequoia does not
        raise UntrustedIndex(
            "E_TRUST_FORMAT", subject, "the Hash header is not that of the signature"
        )
    able, counted, until = _judge(made, keyring, subject, now)
    if message.signatures.count(b"-----BEGIN") > 1:  # Sequoia would read the first block only
        data = data[: data.index(b"\n-----BEGIN PGP SIGNATURE-----") + 1] + armor(packets)
    answer = (tool or verifier.find()).cleartext(data, able)
    signers = _signers(answer, counted, keyring, subject)
    text = _canonical(answer.text)
    if text != _canonical(message.text):
        raise UntrustedIndex("E_TRUST_FORMAT", subject, "the verifier saw another text than we")
    return Verified(text, signers, until)


def question(data: bytes, keyring: Keyring, arch: str) -> str:
    """Return a name for what `verify` is asked: one name has one answer `until` the time that it names."""
    asked = hashlib.sha256(data)
    asked.update(arch.encode())
    for each in keyring.certificates:
        asked.update(hashlib.sha256(each.data).digest())
    return asked.hexdigest()


def verified_before(asked: str, keyring: Keyring, now: float, state: TrustState) -> Verified | None:
    """Return what `state` keeps of a file that was accepted, if it is the answer to the `question` asked still.

    Splitting, parsing and verifying three files took 25 of 60 ms of a create's processor time.
    """
    same = state.question == asked and state.extract and len(state.signers) >= keyring.minimum
    if not same or 0 < state.until < now:
        return None
    return Verified(state.extract.encode(), state.signers, state.until, state.sha256)


def verify_detached(
    pair: tuple[bytes, bytes],
    keyring: Keyring,
    subject: str,
    now: float,
    tool: Verifier | None = None,
) -> Verified:
    """Return the text of the pair `Release`, `Release.gpg` if a key of `keyring` signed it, or raise E_TRUST_*."""
    text, signature = pair
    packets, made = _packets(signature, subject)
    able, counted, until = _judge(made, keyring, subject, now)
    answer = (tool or verifier.find()).detached(text, packets, able)
    return Verified(_canonical(text), _signers(answer, counted, keyring, subject), until)


def _canonical(text: bytes) -> bytes:
    """Return what a clear-signature covers: no blanks at the ends of lines, no newline at the end."""
    return b"\n".join(line.rstrip(b" \t") for line in text.split(b"\n")).rstrip(b"\n")


def _packets(armored: bytes, subject: str) -> tuple[bytes, tuple[Signature, ...]]:
    """Return the signature packets of an armored or binary text, and what they say."""
    try:
        packets = dearmor(armored) if armored[:1] == b"-" else armored
        return packets, signatures(packets)
    except Malformed as problem:
        raise UntrustedIndex(
            "E_TRUST_FORMAT", subject, f"malformed signature: {problem}", hints=(_OTHER,)
        ) from None


def _judge(
    made: Iterable[Signature], keyring: Keyring, subject: str, now: float
) -> tuple[list[Certificate], Counter[str], int]:
    """Return who may count, before any cryptography: certificates, how many signatures each must have made, until when.

    Raise the reason where no signature can count. One by an unknown key is normal: Debian signs with three.
    """
    ends: set[int] = set()
    counted: Counter[str] = Counter()
    flaws: list[str] = []
    unknown: list[str] = []
    able: dict[str, Certificate] = {}
    for signature in made:
        found = keyring.find(signature.issuer)
        if found is None:
            unknown.append(signature.issuer[-16:] or "an unnamed key")
            continue
        certificate, key = found
        flaw = _flaw(signature, certificate, key, now)
        if flaw:
            flaws.append(flaw)
            if flaw == "E_TRUST_FUTURE":
                ends.add(signature.created - _SKEW)
            continue
        ends |= {signature.expires, certificate.primary.end, key.end}
        able[certificate.fingerprint] = certificate
        counted[certificate.fingerprint] += 1
    if flaws and not counted:
        raise UntrustedIndex(flaws[0], subject, _WORDS[flaws[0]], hints=(_OTHER,))
    if not counted:
        signers = f"signed by {', '.join(unknown)}" if unknown else "not signed"
        raise UntrustedIndex(
            "E_TRUST_NOKEY" if unknown else "E_TRUST_UNSIGNED",
            subject,
            f"{signers}, not in keyring {keyring.name}",
            hints=("if that key is right, name its file with --keyring",),
        )
    return list(able.values()), counted, min(ends - {0}, default=0)


def _flaw(signature: Signature, certificate: Certificate, key: Key, now: float) -> str:
    """Return the code of what keeps a signature from counting, or "" (D-5)."""
    primary = certificate.primary
    weak = signature.hash not in STRONG or signature.kind not in {0, 1}
    if weak or not key.strong() or not primary.strong():
        return "E_TRUST_WEAK"
    if primary.revoked or key.revoked:
        return "E_TRUST_REVKEY"
    if primary.expired(now) or key.expired(now) or 0 < signature.expires < now:
        return "E_TRUST_EXPKEY"
    return "E_TRUST_FUTURE" if signature.created > now + _SKEW else ""


def _signers(
    answer: Answer, counted: Counter[str], keyring: Keyring, subject: str
) -> tuple[str, ...]:
    """Return who signed; a signature of a pinned key that is not valid spoils the file, whoever else signed."""
    bad = counted - Counter(answer.valid)
    if bad:
        raise UntrustedIndex(
            "E_TRUST_BADSIG",
            subject,
            f"the signature of {next(iter(bad))} does not fit the text (keyring {keyring.name})",
            hints=("the file was changed on its way, or the mirror is damaged", _OTHER),
        )
    if len(counted) < keyring.minimum:
        raise UntrustedIndex(
            "E_TRUST_NOKEY",
            subject,
            f"signed by {len(counted)} of the {keyring.minimum} keys that must sign (keyring {keyring.name})",
        )
    return tuple(sorted(counted))
